"""The best row of a sweep in one line: the fastest whose quality does not fall for certain, as the pages choose it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.foreign_text import escape_controls, shortened
from bench.labels import NO_SPEED, label_of
from bench.metrics import METRICS
from bench.short_names import short_name
from bench.store.record_parts import reading_of, score_of
from bench.store.records import Record

if TYPE_CHECKING:
    from reports.rows import Row


def best_row(records: Sequence[Record]) -> str:
    """The largest speed-up that is certain and loses no quality for certain; empty where nothing was compared.

    Where every row that is faster loses, the line says so first, and then how much the fastest of them loses.
    """
    if not any(reading_of(record, "speedup") for record in records):
        return ""
    from reports.findings import best_saving, bought, loses
    from reports.rows import rows_of

    rows = [row for row in rows_of(records, []) if label_of(row.record, "execution") not in NO_SPEED]
    best = best_saving(rows)
    speed = None if best is None else best.cells["speedup"]
    if best is None or speed is None or speed.value is None or (speed.low or 0.0) <= 1.0:
        return "nothing is faster than its baseline for certain"
    name = escape_controls(shortened(short_name(best.case.label)))
    times = f"{speed.value:.2f}x" + ("" if speed.high is None else f" [{speed.low:.2f}, {speed.high:.2f}]")
    if loses(best):
        return f"nothing is faster without a certain loss: {bought(best)} {name}: {times}"
    return f"{name}: {times}, {_quality(best)}"


def _quality(row: Row) -> str:
    """The score of a row that does not lose for certain."""
    from reports.findings import score_change

    top = score_of(row.record)
    if top is None:
        return "no score was measured"
    known = "no certain loss" if score_change(row) else "its change is not known"
    return f"{METRICS[top['metric']].title.lower()} {top['value']:.4g} {top['unit']}, {known}"
