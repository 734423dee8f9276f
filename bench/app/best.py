"""The best row of a sweep in one line: the fastest whose quality does not fall for certain, as the pages choose it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from bench.foreign_text import escape_controls, shortened
from bench.labels import NO_SPEED, label_of
from bench.metrics import METRICS
from bench.short_names import short_name
from bench.store.record_parts import reading_of, score_of
from bench.store.records import Record

if TYPE_CHECKING:
    from reports.rows import Row

#: Rows that are read whole at once, the fastest first.
AT_ONCE = 16


def best_row(records: Sequence[Record], whole_of: Callable[[Collection[str]], Sequence[Record]]) -> str:
    """The largest speed-up that is certain and loses no quality for certain; empty where nothing was compared.

    Where every row that is faster loses, the line says so first, and then how much the fastest of them loses.

    Args:
        records: outlines are enough.
        whole_of: the whole records of some case keys, with the answers that tell a certain loss from another.
    """
    if not any(reading_of(record, "speedup") for record in records):
        return ""
    from reports.findings import best_saving, bought, loses

    faster = sorted((record for record in records if _least(record) > 1.0), key=_least, reverse=True)
    fastest = None
    for first in range(0, len(faster), AT_ONCE):
        best = best_saving(_rows(faster[first : first + AT_ONCE], whole_of))
        fastest = fastest or best
        if best is not None and not loses(best):
            return f"{_named(best)}, {_quality(best)}"
    if fastest is None:
        return "nothing is faster than its baseline for certain"
    return f"nothing is faster without a certain loss: {bought(fastest)} {_named(fastest)}"


def _least(record: Record) -> float:
    """The lower end of a real row's speed-up; 0 where it has none, or claims no speed."""
    real = record["status"] == "ok" and label_of(record, "execution") not in NO_SPEED
    ratio = reading_of(record, "speedup") if real else None
    return float(ratio["ci_low"] or 0.0) if ratio else 0.0


def _rows(records: Sequence[Record], whole_of: Callable[[Collection[str]], Sequence[Record]]) -> list[Row]:
    """The rows of these records, with their changes against their baselines."""
    from reports.rows import rows_of

    keys = {record["case_key"] for record in records}
    found = rows_of(whole_of(keys | {record["baseline_key"] for record in records}), [])
    return [row for row in found if row.record["case_key"] in keys]


def _named(row: Row) -> str:
    speed = row.cells["speedup"]
    times = f"{speed.value or 0:.2f}x" + ("" if speed.high is None else f" [{speed.low:.2f}, {speed.high:.2f}]")
    return f"{escape_controls(shortened(short_name(row.case.label)))}: {times}"


def _quality(row: Row) -> str:
    """The score of a row that does not lose for certain."""
    from reports.findings import score_change

    top = score_of(row.record)
    if top is None:
        return "no score was measured"
    change = score_change(row)
    known = "its change is not known" if change is None else "no certain loss"
    if change is not None and change[1].low is None:
        known = "the interval of its change is not known"
    return f"{METRICS[top['metric']].title.lower()} {top['value']:.4g} {top['unit']}, {known}"
