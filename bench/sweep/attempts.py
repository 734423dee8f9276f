"""Attempts: a worker is run, again if its process was lost, until so many are lost in a row that the sweep gives up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.config.schema import Config
from bench.errors import BenchError, ResultsError
from bench.plan.case import Case
from bench.store.journal import Journal
from bench.sweep import memory
from bench.sweep.executors import Executor
from bench.worker.client import Done, Failed, Outcome

RESUME_HINT = "interrupted; run the same command again to continue"


class Interrupted(BenchError):
    """Ctrl-C: what was measured is on disk."""

    exit_code = 130


class CircuitBroken(BenchError):
    """So many cases failed in a row that something outside them is wrong."""

    exit_code = 3


@contextmanager
def translate_errors(on_interrupt: Callable[[], None]) -> Iterator[None]:
    """Raise Interrupted for Ctrl-C and ResultsError for a disk without room for a worker's files.

    Args:
        on_interrupt: called first at Ctrl-C, to write down what was being measured.
    """
    try:
        yield
    except KeyboardInterrupt:
        on_interrupt()
        raise Interrupted(RESUME_HINT) from None
    except OSError as error:
        raise ResultsError(
            f"{error.filename or 'the folder for temporary files'}: cannot be written ({error.strerror}); make "
            "room there or set TMPDIR, and run again: what was measured before is kept"
        ) from error


class Attempts:
    """Runs workers for a sweep and counts the processes that were lost in a row.

    Args:
        executor: what runs a process.
        config: says how often a lost process is tried again, and how many losses in a row end the sweep.
        journal: told of every loss.
        logs: folder for what the processes print.
        record_interruption: called with the active cases and the phase at Ctrl-C.
    """

    def __init__(
        self,
        executor: Executor,
        config: Config,
        journal: Journal,
        logs: Path,
        record_interruption: Callable[[Sequence[Case], str], None],
    ):
        self._executor, self._config, self._journal, self._logs = executor, config, journal, logs
        self._record_interruption = record_interruption
        self.lost_in_a_row = 0

    def run(self, kind: str, spec: dict[str, Any], name: str, active: Sequence[Case]) -> Outcome:
        """How the worker ended; a lost process is tried again. A completed attempt resets the count of losses in a row.

        Args:
            kind: one of `bench.worker.child.JOBS`.
            spec: what it is told.
            name: of the log file, before the kind.
            active: the cases that get a record of the interruption at Ctrl-C.
        """
        log = self._logs / f"{name}.{kind}.log"
        for attempt in range(self._config.executor.retries + 1):
            with translate_errors(lambda: self._record_interruption(active, kind)):
                limit = memory.worker_limit(self._config)
                outcome = self._executor.run(kind, spec, log=log, memory_limit_bytes=limit)
            if isinstance(outcome, Done) or not outcome.worth_retrying:
                self.lost_in_a_row = 0
                return outcome
            self._journal.append("lost", kind=kind, name=name, attempt=attempt + 1, status=outcome.status)
        self.lost_in_a_row += 1
        return outcome

    def check_circuit(self, last: Failed) -> None:
        """Raise CircuitBroken if too many processes in a row were lost; called once the last ones are recorded.

        Args:
            last: how the latest one ended.
        """
        if self.lost_in_a_row >= self._config.executor.breaker:
            raise CircuitBroken(
                f"{self.lost_in_a_row} cases in a row were lost ({last.status}: {last.message}); "
                "the machine or the installation is at fault rather than the cases. Mend it and run again with "
                "retry=failed; what was measured is kept"
            )
