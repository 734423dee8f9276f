"""A machine's calibration: in how many fresh processes it is measured, what they say together, and whether it holds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.store.journal import Journal
from bench.store.records import Store, read_calibration
from bench.sweep.attempts import translate_errors
from bench.sweep.events import Event, Working
from bench.sweep.executors import Executor
from bench.sweep.writing import save_json
from bench.worker.client import Done, Failed, Outcome

#: With several threads one that is preempted or badly placed stalls all, often for the whole life of a process.
PROCESSES_OF_SEVERAL_THREADS = 3
#: A calibration older than this is measured again.
CALIBRATION_DAYS = 30
#: About how long a process of a sweep's own calibration may take.
BUDGET_S = 8.0

Machine = dict[str, Any]
Rate = dict[str, Any]


def processes(device: str, threads: int) -> int:
    """In how many processes the machine is measured: three where several threads of a CPU work together, else one."""
    return PROCESSES_OF_SEVERAL_THREADS if device == "cpu" and threads > 1 else 1


def measure(executor: Executor, device: str, threads: int, budget_s: float, log: Path) -> Outcome:
    """What the machine could do (`bench.meters.peaks`) over fresh processes; the outcome of one that failed.

    Args:
        executor: what runs a process.
        device: `cpu` or a CUDA device.
        threads: of each process.
        budget_s: about how long a process may take.
        log: file for what they print.
    """
    spec = {"device": device, "threads": threads, "budget_s": budget_s}
    outcomes = [executor.run("calibrate", spec, log=log) for _ in range(processes(device, threads))]
    found = [outcome.result for outcome in outcomes if isinstance(outcome, Done)]
    if not found:
        return outcomes[-1]
    return Done(together(found), sum(outcome.seconds for outcome in outcomes))


def drift(executor: Executor, saved: Machine, device: str, threads: int, log: Path) -> str | None:
    """Why a calibration no longer holds, by a probe of a second; None if it holds, or if the probe itself fails.

    With several threads a probe may read low by itself, so that all of several have to say so.
    """
    spec = {"device": device, "threads": threads, "earlier": saved}
    reason = None
    for _ in range(processes(device, threads)):
        outcome = executor.run("calibrate", spec, log=log)
        reason = outcome.result.get("drift") if isinstance(outcome, Done) else None
        if not reason:
            return None
    return reason


@dataclass(frozen=True)
class Calibrator:
    """Gives a sweep its machine's calibration: measured once per machine, device and thread count, then read.

    Args:
        executor: what runs a process.
        store: the results folder, where calibrations are kept.
        journal: told of a drift.
        announce: told of every step.
    """

    executor: Executor
    store: Store
    journal: Journal
    announce: Callable[[Event], None]

    def current(self, machine_key: str, device: str, threads: int) -> Machine:
        """What the machine can do now; without rates, and with the reason, if that could not be measured.

        Raises:
            Interrupted: Ctrl-C.
            ResultsError: a disk has no room.
        """
        path = self.store.calibration_path(machine_key, device, threads)
        saved = recent_calibration(path)
        if saved is not None and not self._has_drifted(saved, device, threads):
            return saved
        self.announce(Working("calibrating: what this machine could do"))
        with translate_errors(self._note_interruption):
            outcome = measure(self.executor, device, threads, BUDGET_S, self._log)
        if isinstance(outcome, Failed):
            return {"peaks": [], "bandwidth": None, "notes": [f"calibration failed: {outcome.message}"]}
        made = {**outcome.result, "measured_at": time.time()}
        save_json(self.store, path, made)
        return made

    @property
    def _log(self) -> Path:
        return self.store.logs / "calibrate.log"

    def _note_interruption(self) -> None:
        self.journal.append("interrupted", cases=[])

    def _has_drifted(self, saved: Machine, device: str, threads: int) -> bool:
        """Whether the machine is no longer as it was calibrated, by a probe of a second."""
        self.announce(Working("checking the calibration"))
        with translate_errors(self._note_interruption):
            reason = drift(self.executor, saved, device, threads, self._log)
        if reason:
            self.journal.append("drifted", reason=reason)
        return bool(reason)


def recent_calibration(path: Path) -> Machine | None:
    """An earlier calibration that is not too old; one that cannot be read can always be made again."""
    saved = read_calibration(path)
    measured_at = (saved or {}).get("measured_at")
    if not isinstance(measured_at, int | float):
        return None
    return saved if 0 <= time.time() - measured_at < CALIBRATION_DAYS * 86400 else None


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
        **parts[0],
        "peaks": peaks,
        "bandwidth": bandwidth,
        "launch_overhead_us": _middle(parts, "launch_overhead_us"),
        "stable": all(part["stable"] for part in chosen),
        "notes": [*notes, *_spread_notes([*peaks, bandwidth])],
        "host": chosen[0]["host"] if chosen else parts[0]["host"],
    }


def _keys(parts: Sequence[Machine]) -> Iterator[tuple[str, int]]:
    yield from dict.fromkeys((rate["dtype"], rate["threads"]) for part in parts for rate in part["peaks"])


def _peak(part: Machine, dtype: str, threads: int) -> Rate | None:
    same: Callable[[Rate], bool] = lambda rate: (rate["dtype"], rate["threads"]) == (dtype, threads)  # noqa: E731
    return next(filter(same, part["peaks"]), None)


def _middle(parts: Sequence[Machine], name: str) -> Rate:
    rates: list[Rate] = [part[name] for part in parts]
    middle = statistics.median_low(rate["value"] for rate in rates)
    return next(rate for rate in rates if rate["value"] == middle)


def _spread_notes(rates: Sequence[Rate | None]) -> Iterator[str]:
    for rate in rates:
        if rate is not None:
            values = rate["per_process"]
            yield (
                f"{rate.get('dtype', 'bandwidth')} at {rate['threads']} threads: the best of {len(values)} processes, "
                f"the lowest of which gave {100 * min(values) / rate['value']:.0f} % of it"
            )
