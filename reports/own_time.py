"""What a method's own operators cost: where a case's time differs from its baseline's, module by module.

Both networks have a table of layers with times of their own pass. A module path that the plain network lacks is *added*
by the method (what it decides and moves). A module of another class at the same path, with everything below it, is
*replaced*: it does the method's work and some of the network's, which times per module cannot tell apart. All other
modules are shared. What no module explains (operators outside modules, the cost of the clock's hooks) stays apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from bench.analysis.roofline import block_of
from bench.store.records import Record

Layer = Mapping[str, Any]

OUTSIDE, ITSELF, REPLACED = "outside the blocks", "blocks themselves", "replaced modules"


@dataclass(frozen=True)
class KindOfModule:
    """One kind of module in both networks: time per run in ms in the plain network and in the case."""

    name: str
    base_ms: float
    ms: float

    @property
    def change_ms(self) -> float:
        """Time that the case needs more (or, below zero, less) than the plain network."""
        return self.ms - self.base_ms


@dataclass(frozen=True)
class Side:
    """A network's table of layers; what comparisons take from it is found once, however many cases it is a side of."""

    layers: Sequence[Layer]
    ms: float | None

    @classmethod
    def of(cls, record: Record) -> Side:
        """That of a record; `ms` is the time of a whole run."""
        return cls(record.get("layers") or [], (record.get("layers_info") or {}).get("end_to_end_ms"))

    @cached_property
    def classes(self) -> dict[str, str]:
        """The class of the module at each path."""
        return {_path(row): str(row.get("op", "")) for row in self.layers}

    @cached_property
    def timed(self) -> dict[str, Layer]:
        """The rows that have a time, by their path."""
        return {_path(row): row for row in self.layers if row.get("time_ms") is not None}

    @property
    def explained_ms(self) -> float:
        """The time of all modules."""
        return _sum(self.timed.values(), "time_ms")


@dataclass(frozen=True)
class Split:
    """Where the time of a case differs from its baseline's; all in ms per run of the whole batch.

    Attributes:
        base, case: the two tables of layers.
        added: paths of modules that the method adds.
        replaced: paths (of either side) at or below a module of another class.
    """

    base: Side
    case: Side
    added: frozenset[str]
    replaced: frozenset[str]

    @property
    def base_ms(self) -> float:
        """The baseline's time."""
        return self.base.ms or 0.0

    @property
    def ms(self) -> float:
        """The case's time."""
        return self.case.ms or 0.0

    @cached_property
    def _own(self) -> list[Layer]:
        return [row for path, row in self.case.timed.items() if path in self.added]

    @property
    def own_modules(self) -> int:
        """How many modules are added and have a time."""
        return len(self._own)

    @cached_property
    def own_ms(self) -> float:
        """The time of the added modules."""
        return _sum(self._own, "time_ms")

    @property
    def own_low_ms(self) -> float | None:
        """The lower end of that: the ends of the modules' own 95 % intervals added up, so wider than that of a sum."""
        return _end(self._own, "time_low_ms")

    @property
    def own_high_ms(self) -> float | None:
        """The upper end likewise."""
        return _end(self._own, "time_high_ms")

    @property
    def own_macs(self) -> float:
        """Products of the added modules."""
        return sum(float(row.get("macs") or 0.0) for row in self._own)

    @property
    def macs(self) -> float:
        """Products of all modules of the case."""
        return sum(float(row.get("macs") or 0.0) for row in self.case.layers)

    @property
    def base_unexplained_ms(self) -> float:
        """Time of the baseline that no module explains."""
        return self.base_ms - self.base.explained_ms

    @property
    def unexplained_ms(self) -> float:
        """Time of the case that no module explains."""
        return self.ms - self.case.explained_ms

    @cached_property
    def parts(self) -> tuple[KindOfModule, ...]:
        """The modules that are not added, by their role, in the order of the plain network; replaced ones last."""
        times: dict[str, list[float]] = {}
        for column, layers in enumerate((self.base.timed, self.case.timed)):
            for path, row in layers.items():
                if path not in self.added:
                    name = REPLACED if path in self.replaced else role(path)
                    times.setdefault(name, [0.0, 0.0])[column] += row["time_ms"]
        names = sorted(times, key=lambda name: name == REPLACED)
        return tuple(KindOfModule(name, *times[name]) for name in names)

    @property
    def own_share(self) -> float:
        """The added modules' part of the case's time."""
        return self.own_ms / self.ms

    @property
    def saved_ms(self) -> float:
        """Time that the other modules save, before the added ones take theirs."""
        return -sum(part.change_ms for part in self.parts)

    @property
    def taken_back(self) -> float | None:
        """The added modules' time as a share of what the others save; None where they save nothing."""
        return self.own_ms / self.saved_ms if self.saved_ms > 0 else None

    @property
    def replaced_ms(self) -> float:
        """Time in modules that the method put in place of the network's."""
        return _sum((row for path, row in self.case.timed.items() if path in self.replaced), "time_ms")


def split(record: Record, baseline: Record) -> Split | str:
    """The comparison of a case with its baseline, or the reason why there is none."""
    return split_of(Side.of(record), Side.of(baseline))


def split_of(case: Side, base: Side) -> Split | str:
    """The same of two tables of layers."""
    if not case.ms or not base.ms or not case.timed or not base.timed:
        return "no time was measured per layer for the case or its baseline"
    added, replaced = _changed_paths(case.classes, base.classes)
    return Split(base, case, frozenset(added), frozenset(replaced))


def added_paths(layers: Sequence[Layer], baseline: Sequence[Layer]) -> tuple[set[str], set[str]]:
    """Module paths of the case that the baseline lacks, and paths (of either) at or below a module of another class."""
    return _changed_paths(Side(layers, None).classes, Side(baseline, None).classes)


def _changed_paths(after: Mapping[str, str], before: Mapping[str, str]) -> tuple[set[str], set[str]]:
    swapped = {path for path in after if path in before and after[path] != before[path]}
    replaced = {path for path in {*before, *after} if any(up in swapped for up in _upwards(path))} if swapped else set()
    return {path for path in after if path not in before and path not in replaced}, replaced


def _path(row: Layer) -> str:
    return str(row["module_path"] if "module_path" in row else row.get("name", ""))


def _upwards(path: str) -> Iterable[str]:
    """The path and everything above it but the root."""
    parts = path.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


@lru_cache(maxsize=4096)
def role(path: str) -> str:
    """What a module is in its block: `blocks.3.mlp.fc1` is `mlp`, `blocks.3.norm2` is `norm`; else outside."""
    block = block_of(path)
    if not block:
        return OUTSIDE
    return path.removeprefix(block).lstrip(".").partition(".")[0].rstrip("0123456789") or ITSELF


def _sum(rows: Iterable[Layer], name: str) -> float:
    return float(sum(row[name] for row in rows))


def _end(rows: Sequence[Layer], name: str) -> float | None:
    return None if any(row.get(name) is None for row in rows) else _sum(rows, name)
