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
from typing import Any, NamedTuple

import numpy as np

from bench.analysis import ranking
from bench.analysis.timings import FIELDS
from bench.metrics import METRICS
from reports.columns import OF, Column, column_key
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
    """Ranks by Holm-corrected tests of all pairs of comparable rows, in each group by itself."""
    rows = [row for own in groups.values() for row in own]
    if not rows or not columns:
        return
    records = [row.record for row in rows]
    answers = ranking.answers_of(records)
    for column in columns:
        metric = _metric(column)
        medians = ranking.medians_of(records, metric, column.part or None) if metric in FIELDS else {}
        floors = ranking.floors_of(_twins(rows, column.part))
        for own in groups.values():
            for alike in _comparable(own, column.key):
                found = ranking.ranks(_members(alike, column.key, floors), metric, medians=medians, answers=answers)
                for row, rank in zip(alike, found, strict=True):
                    row.rank[column.key] = rank


def _comparable(rows: Iterable[Row], key: str) -> Iterable[list[Row]]:
    """Rows of a group that have a value of the most direct provenance, under each protocol by itself."""
    listed = list(rows)
    best = _most_direct(listed, key)
    by_protocol: dict[Any, list[Row]] = {}
    for row in listed:
        cell = row.cells.get(key)
        if cell is not None and cell.value is not None and cell.provenance in best:
            by_protocol.setdefault((row.record.get("protocol") or {}).get("hash"), []).append(row)
    return by_protocol.values()


def _twins(rows: Iterable[Row], part: str) -> Iterable[tuple[str, float | None, float | None]]:
    """What identical twins showed of a part: the session and the ends of their ratio."""
    key = column_key("aa_ratio", part)
    for row in rows:
        session, cell = (row.record.get("timing") or {}).get("session"), row.cells.get(key)
        if session and cell is not None:
            yield session, cell.low, cell.high


def _members(rows: Sequence[Row], key: str, floors: Mapping[str, float]) -> ranking.Members:
    """The cells of one column as the tests take them."""
    cells = [row.cells[key] for row in rows]
    timings = [row.record.get("timing") or {} for row in rows]
    sessions = [timing.get("session") for timing in timings]
    noise = [timing.get("noise_floor") or {} for timing in timings]
    ends = np.array([each.get(end) for each in noise for end in ("low", "high")], dtype=float)

    def column(name: str) -> np.ndarray:
        return np.array([getattr(cell, name) for cell in cells], dtype=float)

    return ranking.Members(
        values=column("value"),
        low=column("low"),
        high=column("high"),
        counts=column("n"),
        provenances=frozenset(cell.provenance for cell in cells),
        keys=[(row.case_key, row.machine_key) for row in rows],
        sessions=sessions,
        tolerance=ranking.tolerance_of(ends, sessions, floors),
    )


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
