"""A further part of a workload looked at by itself: what holds of a whole run then holds of the part. Pure."""

from __future__ import annotations

from typing import Any

from bench.statistics import ratio_interval_paired
from bench.store.records import Record

#: What a line says of the whole run and of no part of it.
_OF_THE_WHOLE = frozenset(
    {
        "parts",
        "first_inference_ms",
        "load_ms",
        "compile_ms",
        "capture_ms",
        "device_median_ms",
        "outlier_share",
        "drift",
        "labels",
    }
)


def as_part(record: Record, part: str) -> Record:
    """The record as if a further part were the whole run: that part's readings, processes, layers and curves.

    Readings of the subject (its parameters, its score) are those of the record, and none of its parts.
    """
    table = (record.get("part_layers") or {}).get(part) or {}
    return {
        **record,
        "readings": [{**row, "part": ""} for row in record["readings"] if row.get("part", "") == part],
        "timing": _timing_of_part(record.get("timing") or {}, part),
        "layers": table.get("layers", []),
        "layers_info": table.get("info", {}),
        "picture": None,
        "part_layers": {},
        "curves": [curve for curve in record.get("curves") or [] if curve.get("part", "") == part],
    }


def _timing_of_part(timing: dict[str, Any], part: str) -> dict[str, Any]:
    """The processes with the times of one part; what belongs to a process (its index, its reference GEMM) stays."""
    lines = [line for line in timing.get("invocations") or [] if part in (line.get("parts") or {})]
    own = [{**{k: v for k, v in line.items() if k not in _OF_THE_WHOLE}, **line["parts"][part]} for line in lines]
    used = [line for line in own if not line.get("set_aside")] or own
    known = [line for line in used if line.get("baseline_median_ms") and line.get("twin_median_ms")]
    floor = None
    if known:
        base = [line.get("beside_twin_ms") or line["baseline_median_ms"] for line in known]
        found = ratio_interval_paired(base, [line["twin_median_ms"] for line in known])
        floor = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    return {**timing, "noise_floor": floor, "invocations": own}
