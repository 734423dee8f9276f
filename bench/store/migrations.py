"""Older records in the present schema: one step a version, pure; nothing ever rewrites a record in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.config.axes import AXES
from bench.metrics import METRICS

Record = dict[str, Any]

#: The only workload of schema 1, and its only part.
FORWARD = "forward"


def to_schema_2(record: Record) -> Record:
    """Cases get the axes that are newer than schema 1 at their defaults, readings their part, records their curves.

    Parts that are not of the kind that schema 1 has are left as they are: it is not a migration's matter to judge them.
    """
    late = {axis.name: axis.default for axis in AXES if axis.late}
    case = record.get("case")
    readings = record.get("readings")
    return {
        **record,
        "schema": 2,
        "case": {**late, **case} if isinstance(case, dict) else case,
        "readings": [_with_part(item) for item in readings] if isinstance(readings, list) else readings,
        "curves": [],
        "part_layers": {},
        "conversion": {},
    }


def _with_part(item: Any) -> Any:
    if not isinstance(item, dict) or "part" in item:
        return item
    known = METRICS.get(item["metric"]) if isinstance(item.get("metric"), str) else None
    return {**item, "part": FORWARD if known is not None and known.per_part else ""}


#: From schema n to n + 1.
MIGRATIONS: dict[int, Callable[[Record], Record]] = {1: to_schema_2}
