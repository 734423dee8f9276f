"""Open loops at rising loads until a server cannot keep up: where a pipeline becomes unstable, and its times before.

Loads are shares of the row's own saturated rate; equal seeds give every load the same arrivals, only faster. The first
load that is unstable is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.reading import Curve, Reading
from bench.workloads import load, open_loop
from bench.workloads.open_loop import OpenLoop
from bench.workloads.workload import Facts

#: What is offered one after another.
LOADS = (0.3, 0.5, 0.7, 0.8, 0.9, 1.1)
#: Metrics of a load, each a curve over the offered rate.
DRAWN = ("achieved_rate", "sojourn_mean_ms", "sojourn_p50_ms", "sojourn_p90_ms", "sojourn_p99_ms")


def facts(loops_at: Callable[[float], list[OpenLoop]], saturated_rate: float, how: str) -> Facts:
    """Time in system over the offered rate as curves, with intervals over runs in the details; no reading of its own.

    Args:
        loops_at: the runs at a rate per second.
        saturated_rate: of the same processes, per second.
        how: they were taken, for the notes.
    """
    points, flags = list[dict[str, Any]](), dict[str, dict[str, str]]()
    for share in LOADS if saturated_rate > 0 else ():
        loops = loops_at(share * saturated_rate)
        told = load.loop_facts(loops, saturated_rate, how)
        points.append(_point(loops, share, told.readings))
        flags |= {each["code"]: each for each in told.flags if each["code"] != "unstable"}
        if not points[-1]["stable"]:
            break
    note = f"{load.RUNS} open loops a rate, the same arrivals scaled, {how}; none where the backlog grows"
    return Facts(curves=_curves(points, note), details={"rising": points}, flags=list(flags.values()))


def _point(loops: Sequence[OpenLoop], share: float, readings: Sequence[Reading]) -> dict[str, Any]:
    """One load as plain JSON: value, low and high of each metric that is there, and why there is none."""
    unstable = next((loop.stability for loop in loops if not loop.stability.stable), None)
    times = {
        item.metric: [item.value, item.ci_low, item.ci_high]
        for item in readings
        if item.metric in DRAWN and item.value is not None
    }
    reason = "" if unstable is None else open_loop.why_unstable(unstable)
    return {"rate": loops[0].rate, "load": share, "stable": unstable is None, "reason": reason, "times": times}


def _curves(points: Sequence[Mapping[str, Any]], note: str) -> list[Curve]:
    if not points:
        return []
    rates = [point["rate"] for point in points]
    return [
        Curve(metric, "rate", rates, [point["times"].get(metric, [None])[0] for point in points], "measured", "request",
              note)
        for metric in DRAWN
    ]  # fmt: skip
