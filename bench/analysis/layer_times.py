"""Puts the times of a session's processes to the counted rows of a per-layer table: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.analysis.session import Invocation, member
from bench.statistics import log_mean_interval

LayerRow = dict[str, Any]

NOTE = (
    "Times: per process the median of the module's own time (its children's taken off) over hooked forwards in a pass "
    "of its own, after the end-to-end timing; across processes the geometric mean with a 95 % t-interval on logs. "
    "end_to_end_ms: forwards without hooks that alternate with the hooked ones. unexplained_ms: end_to_end_ms less all "
    "rows; below zero it is what the hooks cost."
)

ALONE = " One process took them, so there is no interval."
AS_ONE = "compiled modules and captured graphs run as one: there are no layer times"
NONE_TOOK = "no process that counts took times of layers"


def _centre(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Value and interval; without an interval where a time is not positive and so has no logarithm."""
    if min(values) <= 0:
        return sum(values) / len(values), None, None
    found = log_mean_interval(values)
    return found.value, found.low, found.high


def merge(
    rows: Sequence[LayerRow], info: dict[str, Any], invocations: Sequence[Invocation], key: str, part: str | None = None
) -> tuple[list[LayerRow], dict[str, Any]]:
    """The rows with `time_ms`, its interval and `share`, and the table's info with what no row explains.

    Args:
        rows: counted rows of the probe.
        info: the table's facts from the probe.
        invocations: the session's processes that count.
        key: the case.
        part: a further part of its workload; `None` is the whole run.
    """
    took = [item for item in invocations if (item.get("plan") or {}).get("layers", True)]
    passes = [found for found in (_pass(member(item, key), part) for item in took) if found]
    if not passes:
        return list(rows), {**info, "reason": AS_ONE if took else NONE_TOOK}
    whole, low, high = _centre([item["plain"] for item in passes])
    timed = [_timed(row, passes, whole) for row in rows]
    explained = sum(row["time_ms"] for row in timed if row["time_ms"] is not None)
    facts = {
        "end_to_end_ms": whole,
        "end_to_end_low_ms": low,
        "end_to_end_high_ms": high,
        "explained_ms": explained,
        "hooked_end_to_end_ms": _centre([item["hooked"] for item in passes])[0],
        "unexplained_ms": whole - explained,
        "repeats": passes[0]["repeats"],
        "processes": len(passes),
        "reason": None,
        "method_note": NOTE if len(passes) > 1 else NOTE + ALONE,
    }
    return timed, {**info, **facts}


def _pass(raw: dict[str, Any], part: str | None) -> dict[str, Any] | None:
    """The layer times that a process took of a part."""
    times: dict[str, Any] | None = raw.get("layers") if part is None else raw.get("part_layers", {}).get(part)
    return times


def _timed(row: LayerRow, passes: Sequence[dict[str, Any]], whole: float) -> LayerRow:
    values = [part["own"][row["module_path"]] for part in passes if row["module_path"] in part["own"]]
    if not values:
        return {**row, "time_ms": None, "time_low_ms": None, "time_high_ms": None, "share": None}
    middle, low, high = _centre(values)
    return {**row, "time_ms": middle, "time_low_ms": low, "time_high_ms": high, "share": middle / whole}
