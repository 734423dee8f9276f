"""Processes beside the measured one that end with it and leave its cores alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1


def check_platform() -> None:
    """Raise NotImplementedError where a process cannot be tied to its parent's life."""
    if sys.platform != "linux":
        raise NotImplementedError("a client in a process of its own needs Linux; transport='direct' needs none")


def dies_with_parent() -> None:
    """Have the kernel end this process with the thread that made it."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def beside() -> list[int]:
    """The cores for processes beside this one: those that it may not use; where it may use all, the last one."""
    own = os.sched_getaffinity(0)
    others = set(range(os.cpu_count() or 1)) - own
    return sorted(others or {max(own)})


def elsewhere() -> None:
    """Move this process, which still has its parent's cores, to those beside them."""
    with contextlib.suppress(OSError):  # a container may own fewer cores than there are
        os.sched_setaffinity(0, set(beside()))
