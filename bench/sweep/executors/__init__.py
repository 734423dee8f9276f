"""Where the processes of a sweep run: a table of executors; another one is a file beside `local.py` and a line here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from bench import lookup
from bench.errors import UsageError
from bench.worker.client import Outcome

#: Name -> module with a function `open_executor(timeouts_s)` that gives a context manager around an `Executor`.
EXECUTORS: dict[str, str] = {
    "local": "bench.sweep.executors.local",
}


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
        name: a key of `EXECUTORS`, or the dotted path of a module of one's own.
        timeouts_s: seconds that each phase of a worker may take.

    Raises:
        UsageError: there is no executor of that name, or its module has no `open_executor`.
    """
    module = lookup.module_of("executor", name, EXECUTORS)
    if not callable(getattr(module, "open_executor", None)):
        raise UsageError(f'executor "{name}": the module {module.__name__} has no open_executor')
    opened: AbstractContextManager[Executor] = module.open_executor(timeouts_s)
    return opened
