"""A machine's calibration: in how many fresh processes it is measured, what they say together, and whether it holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.worker.client import Outcome, Workers

#: With several threads one that is preempted or badly placed stalls all, often for the whole life of a process.
PROCESSES_OF_SEVERAL_THREADS = 3

Machine = dict[str, Any]
Rate = dict[str, Any]


def processes(device: str, threads: int) -> int:
    """In how many processes the machine is measured: three where several threads of a CPU work together, else one."""
    return PROCESSES_OF_SEVERAL_THREADS if device == "cpu" and threads > 1 else 1


def measure(workers: Workers, device: str, threads: int, budget_s: float, log: Path) -> Outcome:
    """What the machine could do, as `bench.meters.peaks` gives it, over fresh processes; the outcome of one that failed.

    Args:
        workers: what runs a process.
        device: `cpu` or a CUDA device.
        threads: of each process.
        budget_s: about how long a process may take.
        log: file for what they print.
    """
    spec = {"device": device, "threads": threads, "budget_s": budget_s}
    outcomes = [workers.run("calibrate", spec, log=log) for _ in range(processes(device, threads))]
    found = [outcome.result for outcome in outcomes if outcome.ok and outcome.result is not None]
    if not found:
        return outcomes[-1]
    return Outcome("ok", together(found), None, sum(outcome.seconds for outcome in outcomes))


def drift(workers: Workers, saved: Machine, device: str, threads: int, log: Path) -> str | None:
    """Why a calibration no longer holds, by a probe of a second, or nothing.

    With several threads a probe may read low by itself, so that all of several have to say so.
    """
    spec = {"device": device, "threads": threads, "earlier": saved}
    reason = None
    for _ in range(processes(device, threads)):
        reason = (workers.run("calibrate", spec, log=log).result or {}).get("drift")
        if not reason:
            return None
    return reason


def together(parts: Sequence[Machine]) -> Machine:
    """One calibration from those of several processes: every rate whole from the process in which it was highest.

    A rate is a ceiling, so its value is the best that was seen; `per_process` keeps what each process gave. The launch
    overhead is a cost, and its process is the one in the middle.
    """
    if len(parts) == 1:
        return parts[0]
    chosen: list[Machine] = []

    def best(rates: Iterable[Rate | None]) -> Rate | None:
        found = [(rate["value"], index, rate) for index, rate in enumerate(rates) if rate is not None]
        if not found:
            return None
        _, index, rate = max(found, key=lambda item: item[0])
        chosen.append(parts[index])
        return {**rate, "per_process": [value for value, _, _ in found]}

    peaks = [best(_peak(part, *key) for part in parts) for key in _keys(parts)]
    bandwidth = best(part.get("bandwidth") for part in parts)
    notes = dict.fromkeys(note for part in chosen for note in part["notes"])
    return {
        **parts[0], "peaks": peaks, "bandwidth": bandwidth, "launch_overhead_us": _middle(parts, "launch_overhead_us"),
        "stable": all(part["stable"] for part in chosen), "notes": [*notes, *_told([*peaks, bandwidth])],
        "host": chosen[0]["host"] if chosen else parts[0]["host"],
    }  # fmt: skip


def _keys(parts: Sequence[Machine]) -> Iterator[tuple[str, int]]:
    yield from dict.fromkeys((rate["dtype"], rate["threads"]) for part in parts for rate in part["peaks"])


def _peak(part: Machine, dtype: str, threads: int) -> Rate | None:
    same: Callable[[Rate], bool] = lambda rate: (rate["dtype"], rate["threads"]) == (dtype, threads)  # noqa: E731
    return next(filter(same, part["peaks"]), None)


def _middle(parts: Sequence[Machine], name: str) -> Rate:
    rates: list[Rate] = [part[name] for part in parts]
    middle = statistics.median_low(rate["value"] for rate in rates)
    return next(rate for rate in rates if rate["value"] == middle)


def _told(rates: Sequence[Rate | None]) -> Iterator[str]:
    for rate in rates:
        if rate is not None:
            values = rate["per_process"]
            yield (
                f"{rate.get('dtype', 'bandwidth')} at {rate['threads']} threads: the best of {len(values)} processes, the "
                f"lowest of which gave {100 * min(values) / rate['value']:.0f} % of it"
            )
