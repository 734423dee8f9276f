"""Where rows stand inside their group: rank intervals per column.

A rank is an interval because measurements overlap: rank 2-4 says that one row is surely better and that the row is
surely better than all but three. `bench.analysis.ranking` tests every pair with Holm's correction, paired where rows
were timed in one session or scored on the same images. Derived columns and groups of more than `LARGE` rows use a
simpler rule that needs no pairs: two rows are separated when their intervals do not touch and, for times, when they
differ by more than the noise floor of the group. Different provenances are never ranked together.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.analysis import ranking
from bench.analysis.table import from_records
from bench.analysis.timings import FIELDS
from bench.metrics import METRICS
from reports.columns import OF, Column
from reports.groups import Group
from reports.rows import Cell, Row

#: The more direct evidence is ranked; the rest stays visible without a rank.
EVIDENCE = ("measured", "counted", "modelled", "estimated", "published")
#: Columns in which differences inside the noise floor mean nothing.
TIMED = frozenset({"latency_ms", "latency_p90_ms", "latency_p99_ms", "speedup", *FIELDS})


class Span(NamedTuple):
    """A value's interval in the direction in which smaller is better."""

    low: float
    high: float


#: Rows of a group above which pairs are no longer tested.
LARGE = 60


def rank_rows(rows: Iterable[Row], groups: Sequence[Group], columns: Iterable[Column]) -> None:
    """Fill in `rank` of every row that may be ranked, for every column with a direction, group by group."""
    members: dict[int, list[Row]] = {group.index: [] for group in groups}
    for row in rows:
        if row.ranked:
            members[row.group].append(row)
    directed = [column for column in columns if column.better != "none"]
    small = {index: own for index, own in members.items() if 1 < len(own) <= LARGE}
    tested = [column for column in directed if _metric(column) in METRICS and not _is_exact(small, column)]
    _test_pairs(small, tested)
    for column in directed:
        done = small if column in tested else {}
        for group in groups:
            if group.index not in done:
                _rank_column(members[group.index], column, group.noise_floor if _metric(column) in TIMED else None)


def _is_exact(groups: Mapping[int, Sequence[Row]], column: Column) -> bool:
    """Whether no pair of a column needs a test in any of these groups: then it is ranked by its values alone."""
    best = {kind for own in groups.values() for kind in _most_direct(own, column.key)}
    return ranking.is_exact(_metric(column), best)


def _metric(column: Column) -> str:
    """The metric or derived quantity of a column, whatever its part."""
    return column.key.partition(OF)[0]


def _test_pairs(groups: Mapping[int, Sequence[Row]], columns: Sequence[Column]) -> None:
    """Ranks by Holm-corrected tests of all pairs of comparable rows, in each group by itself.

    One table holds all groups, which the conditions, machines and suites of its rows part again.
    """
    rows = [row for own in groups.values() for row in own]
    if not rows or not columns:
        return
    by_key = {(row.case_key, row.machine_key): row for row in rows}
    records = [row.record for row in rows]
    frame, answers = from_records(records), ranking.answers_of(records)
    twins = frame["metric"] == "aa_ratio"
    for column in columns:
        metric, part = _metric(column), column.part or None
        best = {index: _most_direct(own, column.key) for index, own in groups.items()}
        medians = ranking.medians_of(records, metric, part) if metric in FIELDS else None
        shown = frame[twins | (frame["metric"] == metric)]
        by = (*ranking.COMPARABLE, "suite")
        ranked = ranking.rank_intervals(shown, metric, by, medians=medians, answers=answers, part=part)
        ranked = ranked.dropna(subset=["rank_low"])
        names = ("case_key", "machine_key", "provenance", "rank_low", "rank_high")
        for case, machine, kind, low, high in zip(*(ranked[name] for name in names), strict=True):
            row = by_key[case, machine]
            if kind in best[row.group]:
                row.rank[column.key] = (int(low), int(high))


def _most_direct(rows: Iterable[Row], metric: str) -> list[str]:
    """The provenance that is ranked, the most direct that any row has."""
    cells = (row.cells.get(metric) for row in rows)
    kinds = {cell.provenance for cell in cells if cell is not None and cell.value is not None}
    return [kind for kind in EVIDENCE if kind in kinds][:1]


def rank_intervals(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """For each span the best and the worst rank that the other spans leave open; equal spans share both."""
    highs = sorted(span.high for span in spans)
    lows = sorted(span.low for span in spans)
    total = len(spans)
    return [(1 + bisect_left(highs, span.low), total - (total - bisect_right(lows, span.high))) for span in spans]


def _rank_column(rows: list[Row], column: Column, floor: tuple[float, float] | None) -> None:
    found = ((row, row.cells.get(column.key)) for row in rows)
    valued = [(row, cell) for row, cell in found if cell is not None and cell.value is not None]
    kinds = {cell.provenance for _, cell in valued}
    best = next((kind for kind in EVIDENCE if kind in kinds), None)
    ranked = [(row, cell) for row, cell in valued if cell.provenance == best]
    spans = [_span(cell, column.better, floor) for _, cell in ranked]
    for (row, _), rank in zip(ranked, rank_intervals(spans), strict=True):
        row.rank[column.key] = rank


def _span(cell: Cell, better: str, floor: tuple[float, float] | None) -> Span:
    value = cell.value or 0.0
    low = value if cell.low is None else cell.low
    high = value if cell.high is None else cell.high
    if floor:
        low, high = min(low, value * floor[0]), max(high, value * floor[1])
    return Span(low, high) if better == "lower" else Span(-high, -low)
