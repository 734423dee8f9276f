"""What a worker does to itself: die with its parent, be the first the kernel kills, stay within a memory limit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAD_BYTES = 1 << 20


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel signal this process when its parent goes, so that a killed driver leaves nothing running."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of whatever descendants leave behind, so that they can be found and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_children() -> None:
    """Kill and reap every child this process still has."""
    while True:
        children = _children()
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    try:
        tasks = list(Path("/proc/self/task").iterdir())
        return [int(pid) for task in tasks for pid in (task / "children").read_text(encoding="utf-8").split()]
    except OSError:
        return []


def volunteer_for_oom() -> None:
    """Make this process the kernel's first choice when memory runs out: the driver has to survive."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")


def limit_memory(limit_bytes: int | None) -> None:
    """Let allocations beyond the limit fail in this process instead of exhausting the host."""
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def shift_heap(seed: int) -> None:
    """Move the heap by a random amount, kept until exit.

    Forked processes would otherwise all have one address layout, and layout alone changes times (Mytkowicz et al.,
    "Producing wrong data without doing anything obviously wrong", ASPLOS 2009): processes must differ in it to be
    replicates.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc(random.Random(seed).randrange(16, _PAD_BYTES, 16))


def redirect_output(log: Path) -> None:
    """Send everything printed, also by C code, to the log; standard input is empty."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # O_APPEND lets the driver cut the file while we write: a model that prints a gigabyte fills no disk
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o644)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    os.close(empty)
