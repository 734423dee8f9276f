"""What a record holds over its processes, as points with steps: times, and what the host and the GPU did meanwhile.

MLflow draws a line of a metric that has several steps, and shows `system/...` on a page of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.analysis.timings import speedup_of
from bench.store.records import Record

#: Section of the values of each process.
PROCESSES = "process"
#: MLflow's section for what the machine did.
SYSTEM = "system"
#: What the host's watch tells -> the metric's name, and what it is multiplied with.
_HOST = {
    "other_cores": ("cores_of_others", 1.0),
    "pressure_share": ("waiting_for_a_processor_percent", 100.0),
    "steal_share": ("stolen_by_the_hypervisor_percent", 100.0),
    "load_1min": ("load_1min", 1.0),
    "involuntary_switches_per_s": ("involuntary_switches_per_s", 1.0),
}


@dataclass(frozen=True)
class Point:
    """One value of a metric at a step; the moment is milliseconds since 1970, None where it is not known."""

    name: str
    value: float
    step: int
    moment_ms: int | None


def points(record: Record) -> list[Point]:
    """A point for every value of every process, in the order of the processes."""
    found: list[Point] = []
    for line in (record.get("timing") or {}).get("invocations") or []:
        moment = milliseconds(line.get("started_at"))
        values = [*_times(line), *_of_host(line.get("host") or {}), *_of_gpu(line.get("gpu") or {})]
        found += [Point(name, value, int(line["index"]), moment) for name, value in values]
    return found


def _times(line: dict[str, Any]) -> Iterable[tuple[str, float]]:
    """Time and rate of the case in a process, the time of what it is compared with, and their ratio."""
    own, other = line["median_ms"], line.get("baseline_median_ms")
    yield f"{PROCESSES}/latency_ms", float(own)
    if line.get("throughput_per_s"):
        yield f"{PROCESSES}/throughput_per_s", float(line["throughput_per_s"])
    if other:
        yield f"{PROCESSES}/latency_of_the_other_side_ms", float(other)
    speedup = speedup_of(line)
    if speedup is not None:
        yield f"{PROCESSES}/speedup", speedup


def _of_host(host: dict[str, Any]) -> Iterable[tuple[str, float]]:
    for key, (name, factor) in _HOST.items():
        if host.get(key) is not None:
            yield f"{SYSTEM}/{name}", factor * float(host[key])


def _of_gpu(gpu: dict[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in gpu.items():
        if isinstance(value, dict) and isinstance(value.get("median"), int | float):
            yield f"{SYSTEM}/gpu_{name}", float(value["median"])


def milliseconds(moment: str | None) -> int | None:
    """ISO 8601 text as milliseconds since 1970."""
    return None if not moment else int(datetime.fromisoformat(moment).timestamp() * 1000)
