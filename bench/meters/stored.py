"""What is behind a tensor: its plain parts, the storage that holds each, and the bytes it takes there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.tensors import leaves

__all__ = ["Extent", "covered_bytes", "extent", "is_wrapper", "leaves"]


@dataclass(frozen=True)
class Extent:
    """A run of bytes in one storage; `storage` names the storage as long as it lives."""

    storage: int
    start: int
    stop: int


def is_wrapper(tensor: Tensor) -> bool:
    """Whether the tensor only stands for others, so that its dtype and storage say nothing about bytes."""
    return type(tensor) not in (Tensor, torch.nn.Parameter) and hasattr(tensor, "__tensor_flatten__")


def extent(tensor: Tensor) -> Extent:
    """The bytes of its storage that a plain strided tensor spans, first to last."""
    storage = tensor.untyped_storage()
    if tensor.numel() == 0:
        return Extent(storage._cdata, 0, 0)
    bits = _bits(tensor)
    first = tensor.storage_offset() * bits // 8
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return Extent(storage._cdata, first, first + (reach * bits + 7) // 8)


def covered_bytes(extents: Iterable[Extent]) -> int:
    """Bytes that are inside at least one extent: shared and overlapping parts count once."""
    by_storage: dict[int, list[tuple[int, int]]] = {}
    for item in extents:
        by_storage.setdefault(item.storage, []).append((item.start, item.stop))
    return sum(_union(spans) for spans in by_storage.values())


def _union(spans: list[tuple[int, int]]) -> int:
    total, reached = 0, 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def _bits(tensor: Tensor) -> int:
    return {torch.quint4x2: 4, torch.quint2x4: 2}.get(tensor.dtype, 8 * tensor.element_size())
