"""What a method's own operators cost: where a case's time differs from its baseline's, module by module.

Both networks have a table of layers with times of their own pass. A module path that the plain network lacks is *added*
by the method (what it decides and moves). A module of another class at the same path, with everything below it, is
*replaced*: it does the method's work and some of the network's, which times per module cannot tell apart. All other
modules are shared. What no module explains (operators outside modules, the cost of the clock's hooks) stays apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
class Split:
    """Where the time of a case differs from its baseline's; all in ms per run of the whole batch.

    `own_low_ms` and `own_high_ms` add up the layers' own 95 % intervals, which is wider than the interval of the sum.
    `own_macs` and `macs` are of the added modules and of all.
    """

    base_ms: float
    ms: float
    parts: tuple[KindOfModule, ...]
    own_ms: float
    own_low_ms: float | None
    own_high_ms: float | None
    own_modules: int
    own_macs: float
    macs: float
    base_unexplained_ms: float
    unexplained_ms: float

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
        return sum(part.ms for part in self.parts if part.name == REPLACED)


def split(record: Record, baseline: Record) -> Split | str:
    """The comparison of a case with its baseline, or the reason why there is none."""
    ms, base_ms = ((each.get("layers_info") or {}).get("end_to_end_ms") for each in (record, baseline))
    if not ms or not base_ms or not record.get("layers") or not baseline.get("layers"):
        return "no time was measured per layer for the case or its baseline"
    before, after = _timed(baseline["layers"]), _timed(record["layers"])
    if not before or not after:
        return "no time was measured per layer for the case or its baseline"
    added, replaced = added_paths(record["layers"], baseline["layers"])
    own = [after[path] for path in after if path in added]
    return Split(
        base_ms=base_ms,
        ms=ms,
        parts=_parts(before, after, added, replaced),
        own_ms=_sum(own, "time_ms"),
        own_low_ms=_end(own, "time_low_ms"),
        own_high_ms=_end(own, "time_high_ms"),
        own_modules=len(own),
        own_macs=sum(float(row.get("macs") or 0.0) for row in own),
        macs=sum(float(row.get("macs") or 0.0) for row in record["layers"]),
        base_unexplained_ms=base_ms - _sum(before.values(), "time_ms"),
        unexplained_ms=ms - _sum(after.values(), "time_ms"),
    )


def added_paths(layers: Sequence[Layer], baseline: Sequence[Layer]) -> tuple[set[str], set[str]]:
    """Module paths of the case that the baseline lacks, and paths (of either) at or below a module of another class."""
    before = {_path(row): str(row.get("op", "")) for row in baseline}
    after = {_path(row): str(row.get("op", "")) for row in layers}
    swapped = {path for path in after if path in before and after[path] != before[path]}
    replaced = {path for path in {*before, *after} if any(up in swapped for up in _upwards(path))} if swapped else set()
    return {path for path in after if path not in before and path not in replaced}, replaced


def _path(row: Layer) -> str:
    return str(row["module_path"] if "module_path" in row else row.get("name", ""))


def _upwards(path: str) -> Iterable[str]:
    """The path and everything above it but the root."""
    parts = path.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


def _timed(layers: Sequence[Layer]) -> dict[str, Layer]:
    return {_path(row): row for row in layers if row.get("time_ms") is not None}


@lru_cache(maxsize=4096)
def role(path: str) -> str:
    """What a module is in its block: `blocks.3.mlp.fc1` is `mlp`, `blocks.3.norm2` is `norm`; else outside."""
    block = block_of(path)
    if not block:
        return OUTSIDE
    return path.removeprefix(block).lstrip(".").partition(".")[0].rstrip("0123456789") or ITSELF


def _parts(
    before: Mapping[str, Layer], after: Mapping[str, Layer], added: set[str], replaced: set[str]
) -> tuple[KindOfModule, ...]:
    """The modules that are not added, by their role, in the order of the plain network; replaced ones last."""
    times: dict[str, list[float]] = {}
    for column, layers in enumerate((before, after)):
        for path, row in layers.items():
            if path not in added:
                name = REPLACED if path in replaced else role(path)
                times.setdefault(name, [0.0, 0.0])[column] += row["time_ms"]
    names = sorted(times, key=lambda name: name == REPLACED)
    return tuple(KindOfModule(name, *times[name]) for name in names)


def _sum(rows: Iterable[Layer], name: str) -> float:
    return float(sum(row[name] for row in rows))


def _end(rows: Sequence[Layer], name: str) -> float | None:
    return None if any(row.get(name) is None for row in rows) else _sum(rows, name)
