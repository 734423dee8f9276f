"""Tensors behind a value: the plain parts of one, all that an object holds, the bytes they keep, and a true copy.

A cache, a stream's state or an optimizer's is whatever its author made it: nested lists, dictionaries, dataclasses,
objects. What is found here is found in all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

_INDEXED: dict[torch.layout, tuple[str, ...]] = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


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
    elif tensor.is_nested:
        yield tensor.values()
    elif tensor.layout is torch.strided:
        yield tensor
        if tensor.is_quantized and tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
            yield tensor.q_per_channel_scales()
            yield tensor.q_per_channel_zero_points()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor that a value holds, once and in order: in sequences, mappings, attributes, slots, at any depth.

    Modules are not entered: they hold weights, which are no part of what a run keeps.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, nn.Module | type | str | bytes | int | float | None):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        else:
            waiting.extend(reversed(_members(item)))


def _members(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, list | tuple | set | frozenset) or type(item).__name__ == "deque":
        return list(item)
    if callable(item) and not hasattr(item, "__dict__"):
        return []
    names = [name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ())]
    slots = [getattr(item, name) for name in names if hasattr(item, name) and name not in ("__dict__", "__weakref__")]
    return [*vars(item).values(), *slots] if hasattr(item, "__dict__") else slots


def storages_of(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of the distinct storages behind tensors, by an identity that holds as long as they live."""
    found = {}
    for tensor in tensors:
        for part in leaves(tensor):
            storage = part.untyped_storage()
            found[storage._cdata] = storage.nbytes()
    return found


def held_bytes(value: Any, without: Any = ()) -> int:
    """Bytes that a value keeps alive: whole storages, each once, but those behind the tensors in `without`.

    A view keeps the storage that it looks into, all of it, so that is what counts.
    """
    kept = storages_of(tensors_in(value))
    other = storages_of(tensors_in(without))
    return sum(size for key, size in kept.items() if key not in other)


def weights_of(module: Any) -> list[Tensor]:
    """Parameters and buffers of a module; none of what is no module."""
    return [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []


def copy_of(value: Any, module: Any = None) -> Any:
    """A copy that shares no tensor with the value but the module's own, and aliases itself as the value does.

    Tensors of the copy are ordinary ones, also where the value was made in inference mode.
    """
    shared = [] if module is None else [*getattr(module, "modules", list)(), *weights_of(module)]
    memo = {id(item): item for item in shared}
    with ordinary_tensors():
        return copy.deepcopy(value, memo)


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """No gradients, but tensors that may be changed in place later in any mode, unlike inference mode's."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def placed(value: Any, device: str, dtype: Any = None) -> Any:
    """The value with its tensors on the device, and the floating ones in the dtype, if there is one."""

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.to(device, dtype) if dtype is not None and leaf.is_floating_point() else leaf.to(device)

    return tree_map(move, value)
