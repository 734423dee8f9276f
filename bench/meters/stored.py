"""What is behind a tensor: its plain parts, the storage that holds each, and the bytes it takes there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_INDEXED: dict[torch.layout, tuple[str, ...]] = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


@dataclass(frozen=True)
class Extent:
    """A run of bytes in one storage; `storage` names the storage as long as it lives."""

    storage: int
    start: int
    stop: int


def leaves(tensor: Tensor) -> Iterator[Tensor]:
    """The plain strided tensors that a tensor is made of.

    A wrapper subclass (quantised, 2:4 sparse, ...) gives its inner tensors, a sparse one its indices and values, any
    other tensor itself. Scale and zero point of torch's own per-channel quantised tensors count as parts.
    """
    if type(tensor) not in (Tensor, torch.nn.Parameter) and hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from leaves(getattr(tensor, name))
    elif tensor.layout in _INDEXED:
        for name in _INDEXED[tensor.layout]:
            yield from leaves(getattr(tensor.detach(), name)())
    elif tensor.layout is torch.strided:
        yield tensor
        if tensor.is_quantized and tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
            yield tensor.q_per_channel_scales()
            yield tensor.q_per_channel_zero_points()


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
