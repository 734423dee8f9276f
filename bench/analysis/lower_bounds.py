"""Which counts are lower bounds alone: operators that no rule counts took a part of the time that matters.

A ratio of two counts of which one is a lower bound can be wrong either way, so nobody is told one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.canonical import BASELINE_METHOD
from bench.plan.case import Case

#: Part of a forward's time in operators that no rule counts, above which its products are told as a lower bound alone.
BOUND_SHARE = 0.01


def partly_counted(record: Mapping[str, Any]) -> str:
    """Which operators of a record no rule counts, where they take more than `BOUND_SHARE` of the time; else empty."""
    unknown = (record.get("counts") or {}).get("uncounted") or []
    named = [row for row in unknown if isinstance(row, dict) and row.get("time_share") is not None]
    share = sum(row["time_share"] for row in named)
    if share <= BOUND_SHARE:
        return ""
    be, take = ("is", "takes") if len(named) == 1 else ("are", "take")
    return f"{', '.join(row['operator'] for row in named)} {be} not counted and {take} {share:.0%} of the time"


def lower_bounds(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Of every case whose products are a lower bound its name and what is not counted, by case key."""
    found = ((record, partly_counted(record)) for record in records)
    return {str(record["case_key"]): f"{_named(record)}: {what}" for record, what in found if what}


def _named(record: Mapping[str, Any]) -> str:
    case = Case.from_dict(record["case"])
    return case.model_label if case.method == BASELINE_METHOD else f"{case.model_label} with {case.method_label}"
