"""What a record says process by process: the values that the statistics take as independent replicates.

Of a further part of the workload they are those of `bench.analysis.parts.as_part`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.metrics import METRICS
from bench.store.records import Record

#: Where an invocation's line keeps the value of a timed metric; every workload has one rate, in units of its own.
FIELDS = {
    "latency_ms": "median_ms",
    **{name: "throughput_per_s" for name, row in METRICS.items() if row.section == "throughput"},
}


def used_invocations(record: Record) -> list[dict[str, Any]]:
    """The invocations that count: those not set aside, or all where too few clean ones were left."""
    timing = record.get("timing") or {}
    lines = timing.get("invocations") or []
    clean = [line for line in lines if not line.get("set_aside")]
    return clean if clean and timing.get("clean", True) else list(lines)


def per_process(record: Record, metric: str) -> list[float]:
    """One value of a timed metric per process that counts, in the metric's unit."""
    return [line[FIELDS[metric]] for line in used_invocations(record) if line.get(FIELDS[metric])]


def per_gemm(record: Record, metric: str) -> list[float]:
    """The same in units of the reference GEMM of the same process; empty where one was not timed."""
    lines = used_invocations(record)
    if any(not line.get("gemm_median_ms") for line in lines):
        return []
    power = -1 if METRICS[metric].better == "lower" else 1
    return [line[FIELDS[metric]] * line["gemm_median_ms"] ** power for line in lines if line.get(FIELDS[metric])]


def speedups(record: Record) -> dict[int, float]:
    """Per process, by its index, the baseline's median over the case's; with the twin as control, of both together.

    Empty for a baseline and where the baseline was not timed together with the case.
    """
    if record["case_key"] == record["baseline_key"] or not (record.get("timing") or {}).get("paired"):
        return {}
    found = {line["index"]: speedup_of(line) for line in used_invocations(record)}
    return {index: value for index, value in found.items() if value is not None}


def speedup_of(line: Mapping[str, Any]) -> float | None:
    """The speed-up in one process; None where nothing was timed beside the case, or no such part."""
    other = line.get("against_ms") or line.get("baseline_median_ms")  # before there was a control, a record has one
    return float(other) / float(line["median_ms"]) if other and line.get("median_ms") else None


#: One timed process: its session, its number there, and the moment at which it was started.
Process = tuple[Any, int, Any]


def processes(record: Record) -> set[Process]:
    """The timed processes behind a record, each told apart from one that took its number in a copy of the folder."""
    timing = record.get("timing") or {}
    return {(timing.get("session"), line["index"], line.get("started_at")) for line in timing.get("invocations") or []}


def unshared(record: Record, others: Iterable[Record]) -> Record:
    """The record without the timed processes that others have as well: a process is one measurement, not two.

    Where a session was continued in two copies of its folder, both hold what was measured before. A record that
    shares all of its processes, or none, is given back as it is.
    """
    taken = set[Process]().union(*(processes(other) for other in others))
    shared = processes(record) & taken
    if not shared or shared == processes(record):
        return record
    timing = record["timing"]
    kept = [
        line
        for line in timing["invocations"]
        if (timing.get("session"), line["index"], line.get("started_at")) not in shared
    ]
    return {**record, "timing": {**timing, "invocations": kept}}


def paired(a: Record, b: Record, metric: str) -> tuple[list[float], list[float]] | None:
    """Values of the processes that timed both records, in equal order; `None` if they are not of the same processes."""
    session = (a.get("timing") or {}).get("session")
    if session is None or session != (b.get("timing") or {}).get("session") or a["machine_key"] != b["machine_key"]:
        return None
    together = {index for _, index, _ in processes(a) & processes(b)}
    one, two = (speedups(r) if metric == "speedup" else by_index(r, metric) for r in (a, b))
    both = sorted(one.keys() & two.keys() & together)
    return ([one[i] for i in both], [two[i] for i in both]) if both else None


def by_index(record: Record, metric: str) -> dict[int, float]:
    """Per process, by its index, what rows of one session are compared by: its value of a timed metric.

    Where ratios are taken round by round a time is the baseline's median over the case's speed-up, so that the ratio of
    two cases is that of their speed-ups; what the baseline has in it cancels.
    """
    name = FIELDS[metric]
    lines = [line for line in used_invocations(record) if line.get(name)]
    return {line["index"]: _beside_others_ms(line) if metric == "latency_ms" else line[name] for line in lines}


def _beside_others_ms(line: Mapping[str, Any]) -> float:
    speedup, base = speedup_of(line), line.get("baseline_median_ms")
    if not line.get("by_rounds") or not speedup or not base:
        return float(line["median_ms"])
    return float(base) / speedup
