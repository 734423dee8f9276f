"""One setting of a method over several networks: geometric means of promised and measured speed-up, and ratio.

A mean speaks for the networks that are named beside it and for no others. Where one of them gave no speed-up there is
no mean: leaving it out would flatter the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.short_names import short_names
from bench.statistics import Interval, Summary, from_summary, geometric_summary
from reports.groups import AXES, conditions_of
from reports.rows import Row


@dataclass(frozen=True)
class Line:
    """A method with its setting over `models`; `promised` is exact where every network's MACs are known, else None."""

    method: str
    conditions: str
    models: tuple[str, ...]
    promised: float | None
    speedup: Summary
    realised: Summary


def lines(rows: Sequence[Row]) -> list[Line]:
    """Every method with a setting that was tried on two or more networks under equal conditions, in row order."""
    members: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        if not row.case.is_baseline and not row.by_model:
            key = (row.head_in_full, *conditions_of(row))
            members.setdefault(key, {})[row.case.model_label] = row
    several = [own for own in members.values() if len(own) > 1]
    first = [next(iter(own.values())) for own in several]
    names = short_names(row.head_in_full for row in first)
    varying = [axis for axis in AXES if len({axis.read(row) for row in first}) > 1]
    said = [", ".join(axis.show(axis.read(row)) for axis in varying) for row in first]
    return [_line(names[row.head_in_full], text, own) for row, text, own in zip(first, said, several, strict=True)]


def _line(method: str, conditions: str, own: Mapping[str, Row]) -> Line:
    ratios = [row.value("mac_ratio") for row in own.values()]
    known = [math.log(ratio) for ratio in ratios if ratio]
    return Line(
        method=method,
        conditions=conditions,
        models=tuple(own),
        promised=math.exp(math.fsum(known) / len(known)) if len(known) == len(ratios) else None,
        speedup=geometric_summary({network: _interval(row, "speedup") for network, row in own.items()}),
        realised=geometric_summary({network: _interval(row, "realised_gain") for network, row in own.items()}),
    )


def _interval(row: Row, metric: str) -> Interval | None:
    """A ratio as the leaderboard has it; None for a row that may not be ranked or has no such ratio."""
    cell = row.cells.get(metric)
    if not row.ranked or cell is None or not cell.value:
        return None
    return from_summary(cell.value, cell.low, cell.high, cell.n)


def describe(summary: Summary) -> str:
    """A summary as the page writes it: the mean with its interval and the networks' range, or why there is none."""
    mean = summary.interval
    if mean is None or mean.low is None or mean.high is None:
        return f"unavailable: {summary.reason or 'one process gives no interval'}"
    span = f"; {summary.smallest:.2f} to {summary.largest:.2f}"
    return f"{mean.value:.2f}× [{mean.low:.2f}, {mean.high:.2f}]{span}"
