"""Clocks, temperature, power and what holds the clocks back, sampled between rounds of timing: raw, and as a summary.

Everything is asked of NVML, nothing is set. A sample is taken while no forward runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from bench.host.visible_gpus import locate, nvml

#: Bits of NVML's clocks event reasons in words (NVML API Reference, nvmlClocksEventReasons).
REASONS = {
    0x001: "idle",
    0x002: "application clock setting",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clock setting",
}
#: Reasons that are no throttling: nothing to do, and clocks that somebody chose.
HARMLESS = 0x001 | 0x002
SLOWDOWNS = ~HARMLESS & ((1 << 64) - 1)
LABEL = "GPU throttled"

#: Samples may take so many seconds, and this share of the time since the first; rounds beyond that go without. Most
#: boards answer in less than a millisecond, so that every round has its sample; some take ten for the power alone.
COST_S, COST_SHARE = 0.5, 0.05

QUANTITIES = ("sm_mhz", "memory_mhz", "temperature_c", "power_w", "reasons")


def reason_names(bits: int) -> list[str]:
    """The reasons in words, those unknown to us by their bit."""
    return [REASONS.get(1 << place, f"reason {1 << place:#x}") for place in range(64) if bits >> place & 1]


def event_reasons(lib: Any, board: Any) -> int | None:
    """The bits of what holds the board's clocks back now; None if unknown. Older drivers know one name only."""
    for ask in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        try:
            return int(getattr(lib, ask)(board))
        except (AttributeError, lib.NVMLError):
            continue
    return None


def board_now(lib: Any, board: Any) -> dict[str, Any]:
    """The board's clocks, temperature, power and reasons at this moment; what NVML refuses is None."""
    questions: dict[str, Callable[[], Any]] = {
        "sm_mhz": lambda: int(lib.nvmlDeviceGetClockInfo(board, lib.NVML_CLOCK_SM)),
        "memory_mhz": lambda: int(lib.nvmlDeviceGetClockInfo(board, lib.NVML_CLOCK_MEM)),
        "temperature_c": lambda: int(lib.nvmlDeviceGetTemperature(board, lib.NVML_TEMPERATURE_GPU)),
        "power_w": lambda: lib.nvmlDeviceGetPowerUsage(board) / 1e3,
        "reasons": lambda: event_reasons(lib, board),
    }
    found: dict[str, Any] = {}
    for name, ask in questions.items():
        try:
            found[name] = ask()
        except lib.NVMLError:
            found[name] = None
    return found


class ClockSamples:
    """Samples of a board by round, kept as columns; taking them is cheap or is left out.

    Args:
        lib: the initialised pynvml module; None where there is no board to ask, and then nothing is sampled.
        board: its handle.
        clock: seconds; replaced in tests.
    """

    def __init__(self, lib: Any, board: Any, clock: Callable[[], float] = time.perf_counter):
        self._lib, self._board, self._clock = lib, board, clock
        self._began: float | None = None
        self.rounds, self.cost_s = 0, 0.0
        self.taken: list[int] = []
        self.columns: dict[str, list[Any]] = {name: [] for name in QUANTITIES}

    def take(self) -> None:
        """A sample of the round that just ended, unless samples already cost too much."""
        place, self.rounds = self.rounds, self.rounds + 1
        if self._lib is None:
            return
        start = self._clock()
        self._began = start if self._began is None else self._began
        if self.cost_s > COST_S + COST_SHARE * (start - self._began):
            return
        now = board_now(self._lib, self._board)
        self.taken.append(place)
        for name in QUANTITIES:
            self.columns[name].append(now[name])
        self.cost_s += self._clock() - start

    def as_dict(self) -> dict[str, Any] | None:
        """Columns with the round of each sample and what sampling cost; None if nothing was sampled."""
        if not self.taken:
            return None
        return {"round": self.taken, **self.columns, "rounds": self.rounds, "cost_s": self.cost_s}


@contextmanager
def sampling(device: str) -> Iterator[ClockSamples]:
    """Samples of a CUDA device's board; of none on a CPU and without NVML."""
    with ExitStack() as stack:
        lib = board = None
        if device.startswith("cuda"):
            with suppress(Exception):  # NVML raises its own classes, and without it there is only nothing to sample
                lib = stack.enter_context(nvml())
                board = locate(lib, device).board
        yield ClockSamples(lib if board is not None else None, board)


def throttled(samples: dict[str, Any] | None) -> bool:
    """Whether any sample has a reason that is neither idling nor a chosen clock."""
    return any((bits or 0) & SLOWDOWNS for bits in (samples or {}).get("reasons", []))


def summary(samples: dict[str, Any] | None) -> dict[str, Any] | None:
    """Median and range of each quantity over the rounds, and the share of samples by reason; None without samples."""
    if not samples:
        return None
    found: dict[str, Any] = {"n": len(samples["round"])}
    for name in QUANTITIES[:-1]:
        values = [value for value in samples[name] if value is not None]
        found[name] = {"median": statistics.median(values), "low": min(values), "high": max(values)} if values else None
    known = [bits for bits in samples["reasons"] if bits is not None]
    seen = 0
    for bits in known:
        seen |= bits
    shares = {name: sum(name in reason_names(bits) for bits in known) / len(known) for name in reason_names(seen)}
    return {**found, "reasons": shares if known else None, "throttled": throttled(samples)}
