"""Parameters that the operators of one run read: distinct ones, region by region of their storages.

Beside the parameters that are stored this says what a mixture of experts, an early exit or an elastic network works
with on the given inputs: experts that were chosen, layers that ran, slices that were taken, rows of an embedding that
were looked up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from bench.meters.products import Call
from bench.meters.reach import Reached

#: Storages of more elements are not laid out element by element; parts of them that overlap are counted at most once.
LARGEST_MAP = 1 << 27
#: Look-ups whose rows are told by indices: operator -> (argument of the table, argument of the indices, dimension).
LOOK_UPS = {
    "aten::embedding": (0, 1, 0),
    "aten::index_select": (0, 2, None),
    "aten::_embedding_bag": (0, 1, 0),
}

_Region = tuple[int, tuple[int, ...], tuple[int, ...]]


@dataclass
class _Storage:
    """A storage of plain parameters: which elements are parameters, and which were read."""

    itemsize: int
    held: set[_Region] = field(default_factory=set)
    read: set[_Region] = field(default_factory=set)
    rows: dict[tuple[_Region, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    at_most: int = 0


@dataclass(frozen=True)
class ParametersRead:
    """How many distinct parameters a run read; None with the reason where that cannot be told.

    Attributes:
        count: elements of parameters, shared ones once.
        at_most: whether it is an upper bound: look-ups whose indices had no values.
        reason: why there is no count.
    """

    count: int | None
    at_most: bool = False
    reason: str = ""


class ParameterReads:
    """Fills itself while operators are recorded; `found()` is the outcome."""

    def __init__(self, reached: Reached) -> None:
        self._storages: dict[int, _Storage] = {}
        self._reason = ""
        for part in reached.modules:
            for name, parameter in part._parameters.items():
                if parameter is not None and not is_lazy(parameter):
                    self._hold(name, parameter)

    def _hold(self, name: str, parameter: Tensor) -> None:
        if type(parameter.data) is not Tensor or parameter.layout is not torch.strided:
            kind = type(parameter.data).__name__ if parameter.layout is torch.strided else str(parameter.layout)
            self._reason = f"{name} is stored as {kind}, whose reads are not those of single parameters"
            return
        storage = self._storages.setdefault(_key(parameter), _Storage(parameter.element_size()))
        storage.held.add(_plain(_region(parameter)))

    def packed(self, operator: str) -> None:
        """An operator read weights that no tensor shows."""
        self._reason = f"{operator} reads packed weights, which are no parameters"

    def read(self, operator: str, tensor: Tensor, position: int, call: Call, results: int) -> None:
        """An operator that moves or computes read this tensor; nothing is noted of one that holds no parameter.

        Args:
            operator: its name with its namespace.
            tensor: an input of it.
            position: which of its inputs.
            call: with its arguments.
            results: elements of what came out, where no more than those were read; 0 where all of the tensor was.
        """
        storage = self._storages.get(_key(tensor)) if tensor.layout is torch.strided else None
        if storage is None:
            return
        if tensor.element_size() != storage.itemsize:
            self._reason = f"{operator} reads parameters as {tensor.dtype}, which is not how they are stored"
            return
        region = _region(tensor)
        if not results:
            storage.read.add(_plain(region))
            return
        rows = _rows(operator, position, call)
        if rows is None:
            storage.at_most += min(results, tensor.numel())
        else:
            dimension, indices = rows
            storage.rows[(region, dimension)].update(indices)

    def and_those_of(self, other: ParameterReads) -> ParameterReads:
        """The reads of two runs of one network, as if one run had made them all; both are left as they are."""
        joined = ParameterReads(Reached([], [], []))
        joined._reason = self._reason or other._reason
        for storages in (self._storages, other._storages):
            for key, storage in storages.items():
                one = joined._storages.setdefault(key, _Storage(storage.itemsize))
                one.held |= storage.held
                one.read |= storage.read
                one.at_most += storage.at_most
                for place, rows in storage.rows.items():
                    one.rows[place] |= rows
        return joined

    def found(self) -> ParametersRead:
        """The distinct parameters that were read so far."""
        if self._reason:
            return ParametersRead(None, reason=self._reason)
        total, bounded = 0, False
        for storage in self._storages.values():
            count, at_most = _covered(storage)
            total, bounded = total + count, bounded or at_most
        return ParametersRead(total, bounded)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _region(tensor: Tensor) -> _Region:
    return int(tensor.storage_offset()), tuple(map(int, tensor.shape)), tuple(map(int, tensor.stride()))


def _plain(region: _Region) -> _Region:
    """The same elements in one way of writing them: a transposed or reshaped view is the region that it looks at."""
    offset, shape, stride = region
    dims = sorted(((step, size) for size, step in zip(shape, stride, strict=True) if size != 1 and step), reverse=True)
    merged: list[tuple[int, int]] = []
    for step, size in dims:
        if merged and merged[-1][0] == step * size:
            merged[-1] = (step, merged[-1][1] * size)
        else:
            merged.append((step, size))
    return offset, tuple(size for _, size in merged), tuple(step for step, _ in merged)


def _rows(operator: str, position: int, call: Call) -> tuple[int, set[int]] | None:
    """The dimension and the indices of a look-up with values; None where the rows cannot be told."""
    if operator not in LOOK_UPS:
        return None
    table, at, dimension = LOOK_UPS[operator]
    indices = call.args[at] if at < len(call.args) else None
    if position != table or not isinstance(indices, Tensor) or indices.is_meta:
        return None
    along = int(call.args[1]) if dimension is None else dimension
    return along, set(indices.detach().unique().tolist())


def _covered(storage: _Storage) -> tuple[int, bool]:
    """Elements of parameters in a storage that were read, and whether that is an upper bound."""
    whole = sum(_elements(region) for region in storage.held)
    if not storage.read and not storage.rows and not storage.at_most:
        return 0, False
    if storage.held <= storage.read:
        return whole, False
    if not storage.read and not storage.rows:
        return min(whole, storage.at_most), True
    if not storage.read and not storage.at_most and len(storage.rows) == 1:
        ((region, along), rows) = next(iter(storage.rows.items()))
        if _plain(region) in storage.held:
            return _of_rows(region, along, len(rows)), False
    return _mapped(storage, whole)


def _mapped(storage: _Storage, whole: int) -> tuple[int, bool]:
    """The same from a map of the storage's elements, or of the runs that all regions are made of."""
    run = 1 if storage.rows else _run_length([*storage.held, *storage.read])
    if run > 1:
        fewer = _Storage(storage.itemsize, _in_runs(storage.held, run), _in_runs(storage.read, run))
        runs, bounded = _mapped(fewer, whole // run)
        return min(whole, run * runs + storage.at_most), bounded or storage.at_most > 0
    size = max(_end(region) for region in [*storage.held, *storage.read, *(region for region, _ in storage.rows)])
    if size > LARGEST_MAP:
        parts = [_elements(region) for region in storage.read]
        parts += [_of_rows(region, along, len(rows)) for (region, along), rows in storage.rows.items()]
        return min(whole, sum(parts) + storage.at_most), True
    seen, held = (torch.zeros(size, dtype=torch.bool, device="cpu") for _ in range(2))  # whatever device is in force
    for offset, shape, stride in storage.held:
        held.as_strided(shape, stride, offset).fill_(True)
    for offset, shape, stride in storage.read:
        seen.as_strided(shape, stride, offset).fill_(True)
    for ((offset, shape, stride), along), rows in storage.rows.items():
        read = torch.tensor(sorted(rows), dtype=torch.long, device="cpu")
        seen.as_strided(shape, stride, offset).index_fill_(along, read, True)
    known = int((seen & held).sum())
    return min(whole, known + storage.at_most), storage.at_most > 0


def _run_length(regions: Sequence[_Region]) -> int:
    """The longest run of neighbours that all regions consist of whole runs of: a map needs one place a run.

    Heads that are taken out of one large matrix are rows of it, so that the map is as long as it has rows.
    """
    run = 0
    for offset, shape, stride in regions:
        inner = [size for size, step in zip(shape, stride, strict=True) if step == 1]
        run = math.gcd(run, offset, *(step for step in stride if step != 1), *(inner if len(inner) == 1 else [1]))
    return run


def _in_runs(regions: set[_Region], run: int) -> set[_Region]:
    """The regions with a run of elements as one."""
    found = set()
    for offset, shape, stride in regions:
        sizes = tuple(size // run if step == 1 else size for size, step in zip(shape, stride, strict=True))
        found.add((offset // run, sizes, tuple(1 if step == 1 else step // run for step in stride)))
    return found


def _elements(region: _Region) -> int:
    _, shape, stride = region
    return torch.Size(size for size, step in zip(shape, stride, strict=True) if step or size < 2).numel()


def _of_rows(region: _Region, along: int, rows: int) -> int:
    shape = region[1]
    return _elements(region) // max(shape[along], 1) * rows


def _end(region: _Region) -> int:
    offset, shape, stride = region
    return offset + 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True) if size)
