"""Processes beside the measured one that end with it and leave its cores alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Sequence

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


class Program:
    """A program beside this process that ends with it, keeps to its own cores, and uses so much processor time at most.

    Args:
        words: path and arguments.
        cpu_seconds: after which the kernel ends it.
    """

    def __init__(self, words: Sequence[str], cpu_seconds: int = 900):
        check_platform()
        self._ended = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that threads do not come along is known: another program takes over
            self.pid = os.fork()
        if self.pid == 0:
            _become(words, cpu_seconds)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        if not self._ended:
            self._ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return not self._ended

    def end(self) -> None:
        """End it now, if it runs."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._ended = True


def _become(words: Sequence[str], cpu_seconds: int) -> None:
    """In the fork: the limits, no input and no output, then the program."""
    import resource

    try:
        dies_with_parent()
        elsewhere()
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.execv(words[0], list(words))
    finally:
        os._exit(127)
