"""Bytes of a state that a step reads and writes: what moving a window costs beside the arithmetic.

Every operator that runs is seen, inside kernels nothing is. A read is a tensor of the state that an operator takes, as
much of it as its view shows; a write is what an operator leaves in a storage of the state, or makes where that becomes
the next state. So a ring that is overwritten in one place is cheap, one that is rolled or put together again is moved
whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.tensors import leaves, storages_of, tensors_in

#: Operators that overwrite their first argument without reading it.
_OVERWRITING = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_", "_foreach_copy_", "_foreach_zero_"})
#: Operators that write a part of their first argument, as much as their last tensor holds, and read nothing of it.
_SCATTERING = frozenset({"index_copy_", "index_put_", "_index_put_impl_", "scatter_", "masked_scatter_"})
#: Operators that read a part of their first argument, as much as comes out.
_GATHERING = frozenset({"index", "index_select", "gather", "embedding", "take", "masked_select"})


@dataclass(frozen=True)
class Traffic:
    """Bytes of the state that were read, and that were written."""

    read: int
    written: int

    @property
    def total(self) -> int:
        """Read and written."""
        return self.read + self.written


@dataclass
class _Touches(TorchDispatchMode):
    """Every read and write of a tensor, by the identity of its storage; what is seen lives on until the end."""

    reads: list[tuple[int, int]] = field(default_factory=list)
    writes: list[tuple[int, int]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if not given or not _only_looks(func, given, made):
            self._note(name, _is_written(func), given, made)
        return result

    def _note(self, name: str, in_place: bool, given: list[Tensor], made: list[Tensor]) -> None:
        first, others = given[:1], given[1:]
        for each in first:
            if name in _GATHERING:
                self._add(self.reads, each, sum(_bytes(part) for part in made))
            elif not (in_place and name in (*_OVERWRITING, *_SCATTERING)):
                self._add(self.reads, each)
        for each in others:
            self._add(self.reads, each)
        for each in first if in_place else made:
            self._add(self.writes, each, _bytes(others[-1]) if in_place and name in _SCATTERING and others else None)

    def _add(self, where: list[tuple[int, int]], tensor: Tensor, size: int | None = None) -> None:
        for part in leaves(tensor):
            storage = part.untyped_storage()
            self.kept.append(storage)  # an address is not used again as long as we look
            where.append((storage._cdata, _bytes(part) if size is None else size))


def of_step(step: Callable[[Any], Any], state: Any) -> Traffic:
    """What one step reads and writes of its state.

    Args:
        step: takes the state and gives the next one.
        state: of the steady stream; it may be changed in place.
    """
    before = set(storages_of(tensors_in(state)))
    with _Touches() as touched:
        after = step(state)
    lasting = before | set(storages_of(tensors_in(after)))
    read = sum(size for key, size in touched.reads if key in before)
    written = sum(size for key, size in touched.writes if key in lasting)
    return Traffic(read, written)


def _is_written(func: Any) -> bool:
    """Whether the operator writes one of its arguments."""
    schema = getattr(func, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _only_looks(func: Any, given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether an operator gives another view of a tensor and moves nothing."""
    if _is_written(func) or not made:
        return False
    known = set(storages_of(given))
    return all(key in known for key in storages_of(made))


def _bytes(tensor: Tensor) -> int:
    """Bytes that the view shows: of an expanded one those that are there."""
    shown = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        shown *= size if stride else min(size, 1)
    return shown * tensor.element_size()
