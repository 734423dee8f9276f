"""Where rows stand inside their group: rank intervals per column and membership of the Pareto front.

A rank is an interval because intervals overlap: rank 2-4 says that one row is surely better and that the row is surely
better than all but three. Two rows are separated when their intervals do not touch and, for times, when they differ by
more than the noise floor of the group. Different provenances are never ranked together.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reports.groups import Group
from reports.rows import Cell, Column, Row

#: The more direct evidence is ranked; the rest stays visible without a rank.
EVIDENCE = ("measured", "counted", "modelled", "estimated", "published")
TIMED = frozenset({"latency_ms", "latency_p90_ms", "latency_p99_ms", "speedup", "throughput_per_s"})


class Span(NamedTuple):
    """A value's interval in the direction in which smaller is better."""

    low: float
    high: float


def stand(rows: Iterable[Row], groups: Sequence[Group], columns: Iterable[Column]) -> None:
    """Fill in `rank` of every row that may be ranked, for every column with a direction, group by group."""
    members: dict[int, list[Row]] = {group.index: [] for group in groups}
    for row in rows:
        if row.ranked:
            members[row.group].append(row)
    for column in columns:
        if column.better == "none":
            continue
        for group in groups:
            _rank_column(members[group.index], column, group.noise_floor if column.key in TIMED else None)


def rank_intervals(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """For each span the best and the worst rank that the other spans leave open; equal spans share both."""
    highs = sorted(span.high for span in spans)
    lows = sorted(span.low for span in spans)
    total = len(spans)
    return [(1 + bisect_left(highs, span.low), total - (total - bisect_right(lows, span.high))) for span in spans]


def _rank_column(rows: list[Row], column: Column, floor: tuple[float, float] | None) -> None:
    kinds = {row.cells[column.key].provenance for row in rows if row.value(column.key) is not None}
    best = next((kind for kind in EVIDENCE if kind in kinds), None)
    ranked = [row for row in rows if column.key in row.cells and row.cells[column.key].provenance == best]
    spans = [_span(row.cells[column.key], column.better, floor) for row in ranked if row.value(column.key) is not None]
    for row, rank in zip(ranked, rank_intervals(spans), strict=True):
        row.rank[column.key] = rank


def _span(cell: Cell, better: str, floor: tuple[float, float] | None) -> Span:
    value = cell.value or 0.0
    low = value if cell.low is None else cell.low
    high = value if cell.high is None else cell.high
    if floor:
        low, high = min(low, value * floor[0]), max(high, value * floor[1])
    return Span(low, high) if better == "lower" else Span(-high, -low)
