"""The process as its host sees it: the largest resident size while something runs."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): writing 5 sets the peak back to the present resident size


@dataclass(frozen=True)
class ResidentPeak:
    """Resident bytes of the whole process before a run and at its peak; `how` says what the peak was read from."""

    before_bytes: int
    peak_bytes: int
    how: str

    @property
    def growth_bytes(self) -> int:
        """What the run itself added at its peak."""
        return self.peak_bytes - self.before_bytes


def resident_peak(run: Callable[[], Any], *, warmup: int = 1) -> ResidentPeak | None:
    """The resident peak of one run after `warmup` others; None where the kernel does not tell resident sizes.

    Pin the allocator for memory first (`bench.meters.allocator`): with glibc's own thresholds the reading is up to
    twice too high and varies by a tenth to a half between runs.

    Args:
        run: the work; it is called `warmup` + 1 times.
        warmup: calls before the one that is watched.
    """
    for _ in range(warmup):
        run()
    gc.collect()
    _give_back()
    before = status_bytes("VmRSS")
    if before is None:
        return None
    reset = _reset_peak()
    run()
    if reset:
        peak, how = status_bytes("VmHWM"), "VmHWM after a reset"
    else:
        peak, how = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "largest since the process began"
    return None if peak is None else ResidentPeak(before, max(peak, before), how)


def watch_peak() -> int | None:
    """Set the resident peak (`VmHWM`) back to what is held now, in bytes; None where the kernel does not let us."""
    _give_back()
    before = status_bytes("VmRSS")
    return before if before is not None and _reset_peak() else None


def status_bytes(name: str) -> int | None:
    """One size of /proc/self/status in bytes; None where there is no such line."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found.split()[1]) * 1024


def _reset_peak() -> bool:
    try:
        CLEAR_REFS.write_text(_RESET_PEAK, encoding="utf-8")
    except OSError:
        return False
    return True


def _give_back() -> None:
    """Have glibc return what is free, so that an earlier peak does not count as present."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return
