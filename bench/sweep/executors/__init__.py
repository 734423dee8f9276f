"""Where the processes of a sweep run: a table of executors; another one is a file beside `local.py` and a line here."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from bench.errors import UsageError
from bench.worker.client import Outcome

#: Name -> module with a function `open_executor(timeouts_s)` that gives a context manager around an `Executor`.
EXECUTORS = {"local": "bench.sweep.executors.local"}


class Executor(Protocol):
    """Runs one job at a time in a fresh process, wherever that is."""

    def run(self, kind: str, spec: dict[str, Any], *, log: Path, memory_limit_bytes: int | None = None) -> Outcome:
        """How the job ended; never raises for what the job does.

        Args:
            kind: one of `bench.worker.child.JOBS`.
            spec: plain JSON types for the job.
            log: file that gets everything the process prints.
            memory_limit_bytes: data size above which the process's allocations fail.

        Raises:
            OSError: the driver's own files cannot be written.
        """


def open_executor(name: str, timeouts_s: dict[str, float]) -> AbstractContextManager[Executor]:
    """The executor of that name, to be entered; leaving it ends whatever it runs.

    Args:
        name: a key of `EXECUTORS`.
        timeouts_s: seconds that each phase of a worker may take.

    Raises:
        UsageError: there is no executor of that name.
    """
    if name not in EXECUTORS:
        raise UsageError(f"there is no executor {name!r}; there are: {', '.join(sorted(EXECUTORS))}")
    opened: AbstractContextManager[Executor] = importlib.import_module(EXECUTORS[name]).open_executor(timeouts_s)
    return opened
