"""How many cores this process and those beside it keep busy: client, broker, workers, whoever it has forked."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Share of the cores that may be busy before nothing is left for whoever sends.
FULL = 0.95


@dataclass
class BusyCores:
    """What a block kept busy, filled in when it ends.

    Attributes:
        cores: processor time over wall time; None where the kernel does not tell.
        processes: that were there at its end.
        usable: cores that they may use together.
    """

    cores: float | None = None
    processes: int = 0
    usable: int = 1

    @property
    def is_full(self) -> bool:
        """Whether hardly anything of the cores was left."""
        return self.cores is not None and self.cores >= FULL * self.usable


@contextlib.contextmanager
def watched() -> Iterator[BusyCores]:
    """Processor time over wall time of a block, of this process and of all that descend from it."""
    found, before, reaped, start = BusyCores(), _nanoseconds(), _of_the_reaped(), time.perf_counter_ns()
    yield found
    after, ended, spent = _nanoseconds(), _of_the_reaped() - reaped, time.perf_counter_ns() - start
    if not after or spent <= 0:
        return
    lived = sum(now - before.get(pid, 0) for pid, now in after.items())
    earlier = sum(then for pid, then in before.items() if pid not in after)  # of those that have ended since
    found.cores = (lived + max(0, ended - earlier)) / spent
    found.processes, found.usable = len(after), len(_usable(after))


def _nanoseconds() -> dict[int, int]:
    """Process -> nanoseconds that its threads have run on a processor; empty where there is no /proc."""
    found = {}
    for pid in _family():
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may have ended meanwhile
            tasks = Path(f"/proc/{pid}/task").iterdir()
            found[pid] = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    return found


def _of_the_reaped() -> int:
    """Nanoseconds that children took which have ended and were waited for."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int(1e9 * (used.ru_utime + used.ru_stime))


def _family() -> list[int]:
    import psutil

    try:
        return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
    except psutil.Error:
        return [os.getpid()]


def _usable(processes: dict[int, int]) -> set[int]:
    cores: set[int] = set()
    for pid in processes:
        with contextlib.suppress(OSError, AttributeError):
            cores |= os.sched_getaffinity(pid)
    return cores
