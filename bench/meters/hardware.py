"""What the processor counted during runs: instructions, cycles and last-level cache misses per sample.

They explain times: few instructions per cycle and many bytes from memory are a loss to memory, many instructions for
few products a loss to the kernels. Source of the counters: `bench.host.perf_events`.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from time import perf_counter
from typing import Any

from bench.host.perf_events import HARDWARE, Count, Counters, CountersUnavailable, counting
from bench.reading import Reading, reading, unavailable
from bench.workloads.workload import Part

#: Runs that are counted one by one, after one that is not: at least, at most, and until so many seconds are over.
LEAST, MOST, SECONDS = 3, 20, 1.0
#: Bytes that one miss of the last level fetches.
LINE = 64
#: Below this share of the time a count is said to be scaled.
ALL_THE_TIME = 0.99
METRICS = ("instructions", "cycles", "instructions_per_cycle", "llc_miss_bytes")


def take(subject: Any, ready: Any, part: Part) -> tuple[list[Reading], dict[str, Any]]:
    """The counters of the part's runs, per sample; unavailable with the reason where the machine has none.

    Args:
        subject: with its case.
        ready: not used; a meter's signature.
        part: prepared and put back outside what is counted.
    """
    del ready
    if subject.case.device != "cpu":
        return missing("the work is done on the GPU, whose counters torch does not give; the host's would say nothing")
    try:
        with counting(HARDWARE) as counters:
            runs = counted_runs(part, counters)
    except CountersUnavailable as error:
        return missing(str(error))
    return readings(runs, subject.case.batch), {"runs": len(runs)}


def missing(reason: str) -> tuple[list[Reading], dict[str, Any]]:
    """All of it as unavailable."""
    return [unavailable(name, reason) for name in METRICS], {}


def counted_runs(part: Part, counters: Counters) -> list[dict[str, Count]]:
    """What each run of the part was counted, the first left out."""
    found: list[dict[str, Count]] = []

    def call() -> None:
        counters.start()
        try:
            part.call()
        finally:
            found.append(counters.stop())

    part.run()
    begin = perf_counter()
    counted = replace(part, call=call)
    while len(found) < LEAST or (len(found) < MOST and perf_counter() - begin < SECONDS):
        counted.run()
    return found


def readings(runs: list[dict[str, Count]], batch: int) -> list[Reading]:
    """Medians over runs of one process, per sample; the note has their range, which is no interval of a session."""
    counted = f"user code, all threads, over {len(runs)} runs"
    share = min(count.share for run in runs for count in run.values())
    turns = f"; counters took turns and ran {100 * share:.0f} % of the time, scaled up" if share < ALL_THE_TIME else ""
    series = {
        "instructions": [run["instructions"].value / batch for run in runs],
        "cycles": [run["cycles"].value / batch for run in runs],
        "instructions_per_cycle": [run["instructions"].value / max(run["cycles"].value, 1.0) for run in runs],
        "llc_miss_bytes": [LINE * run["llc_misses"].value / batch for run in runs],
    }
    return [
        reading(
            name,
            statistics.median(values),
            "measured",
            n=len(values),
            statistic="median over runs of one process",
            method_note=f"{counted}: {min(values):.4g} to {max(values):.4g}{turns}",
        )
        for name, values in series.items()
    ]
