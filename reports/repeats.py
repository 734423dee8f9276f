"""Do the entries of a cohort repeat? What each took in every process, and how many vary by more than a tenth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.prediction_errors import REPEATS_WITHIN, repeatability
from bench.store.records import Record
from bench.workloads import OPERATOR
from reports.content import Site
from reports.figures.figure import significant
from reports.rows import Row


@dataclass(frozen=True)
class Entry:
    """One function of a cohort: its milliseconds (geometric mean) and their relative standard deviation."""

    name: str
    ms: float
    deviation: float

    @property
    def repeats(self) -> bool:
        """Whether its processes vary by a tenth at most."""
        return self.deviation <= REPEATS_WITHIN


@dataclass(frozen=True)
class Repeats:
    """One case that times many functions, each in several processes."""

    row: Row
    processes: int
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The case as a suite file spells it."""
        return self.row.case.model_label

    @property
    def refused(self) -> tuple[Entry, ...]:
        """Entries that do not repeat, the worst first."""
        return tuple(sorted((one for one in self.entries if not one.repeats), key=lambda one: -one.deviation))


def cohorts(site: Site) -> list[Repeats]:
    """The cases of bare functions that were timed function by function, in two processes or more."""
    made = (_repeats(row) for row in site.rows if row.case.workload == OPERATOR)
    return [one for one in made if one.entries]


def _repeats(row: Row) -> Repeats:
    spans = _spans(row.record)
    names = [name for name in spans[0] if all(own.get(name, 0) > 0 for own in spans)] if len(spans) > 1 else []
    return Repeats(row, len(spans), tuple(_entry(name, [own[name] for own in spans]) for name in names))


def _spans(record: Record) -> list[Mapping[str, float]]:
    """Milliseconds of every function, process by process: those not set aside, or all where none was left."""
    lines = (record.get("timing") or {}).get("invocations") or []
    kept = [line for line in lines if not line.get("set_aside")] or lines
    return [line.get("spans") or {} for line in kept]


def _entry(name: str, values: Sequence[float]) -> Entry:
    ms = math.exp(sum(map(math.log, values)) / len(values))
    return Entry(name, ms, repeatability(values) or 0.0)


HEAD = ["functions", "processes", "entries", "vary by 10 % at most", "median", "largest", "which do not, by how much"]
#: Refused entries that are named.
NAMED = 4


def table(found: Sequence[Repeats]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a cohort each with its relative standard deviations over processes, then all together."""
    lines = [_line(one.name, str(one.processes), one.entries, one.refused) for one in found]
    if len(found) > 1:
        every = [entry for one in found for entry in one.entries]
        counts = sorted({one.processes for one in found})
        processes = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        lines.append(_line("all", processes, every, ()))
    return HEAD, lines


def _line(name: str, processes: str, entries: Sequence[Entry], refused: Sequence[Entry]) -> list[str]:
    spreads = [entry.deviation for entry in entries]
    named = [f"{entry.name} {_percent(entry.deviation)}" for entry in refused[:NAMED]]
    further = [f"{len(refused) - NAMED} more"] if len(refused) > NAMED else []
    return [
        name,
        processes,
        str(len(entries)),
        f"{sum(entry.repeats for entry in entries)} of {len(entries)}",
        _percent(median(spreads)),
        _percent(max(spreads)),
        ", ".join([*named, *further]) or "-",
    ]


def _percent(share: float) -> str:
    return f"{significant(100 * share)} %"
