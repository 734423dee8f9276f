"""Writing: a record on disk once, a line in the journal, an event for whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.analysis import assemble
from bench.analysis.assemble import Context, Session
from bench.errors import ResultsError
from bench.foreign_text import whole_characters
from bench.plan.case import Case
from bench.store.journal import Journal
from bench.store.records import CorruptRecord, Record, Store, check, is_present, seal, write_json
from bench.store.stored import Stored
from bench.sweep.events import Event, Recorded
from bench.worker.client import Failed
from bench.worker.ending import CORRUPT


@dataclass
class Sweep:
    """What a sweep did: the records of its cases, new and old, read when they are asked for, and what was wrong."""

    records: Stored
    measured: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> Stored:
        """Records of cases that did not end well."""
        return self.records.that(lambda head: head.status not in ("ok", "contaminated"))


def save_json(store: Store, path: Path, value: Any) -> None:
    """Write JSON into the results folder.

    Raises:
        ResultsError: the disk is full or read-only.
    """
    with translate_write_errors(store, path.name):
        write_json(path, value)


@contextmanager
def translate_write_errors(store: Store, what: str) -> Iterator[None]:
    """Raise ResultsError for a disk that is full or read-only, with the remedy."""
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"{store.root}: {what} cannot be written ({error.strerror or error}); make room or make the folder "
            "writable and run again: what was measured before is kept"
        ) from error


def put_record(store: Store, journal: Journal, record: Record) -> Record:
    """The record as it is on disk, sealed as what follows the newest of its case and machine, and told to the journal.

    Raises:
        CorruptRecord: the newest one cannot be trusted.
        ResultsError: the disk is full or read-only.
    """
    key, machine = record["case_key"], record["machine_key"]
    before = store.latest(key, machine)
    made = seal({**record, "supersedes": before["content_hash"] if before else None})
    facts = {"case": key, "status": record["status"], "content_hash": made["content_hash"]}
    # before the record is there: a driver that is killed between the two leaves no row that is nobody's
    journal.append("recording", machine=machine, **facts)
    with translate_write_errors(store, "the record"):
        path = store.write(made)
    sealed = store.read(path)
    journal.append("recorded", file=path.name, **facts)
    return sealed


class Writer:
    """Gives every case of a sweep its record.

    Args:
        store: the results folder.
        journal: told of every record.
        context: what all records share; how torch is built is added when a probe has told it.
        sweep: gets every record.
        announce: told of every record.
        now: gives the time stamps.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        context: Context,
        sweep: Sweep,
        announce: Callable[[Event], None],
        now: Callable[[], str],
    ):
        self.store, self.journal, self.context, self.sweep, self.now = store, journal, context, sweep, now
        self._announce = announce

    def learn_torch(self, probe: dict[str, Any]) -> None:
        """Write into the records how torch is built and what it picked, which only a process that imported it knows."""
        if "torch" in probe:
            environment = {**self.context.environment, "torch": probe["torch"]}
            self.context = replace(self.context, environment=environment)

    def finished(self, case: Case, probe: dict[str, Any], session: Session | None) -> None:
        """Write the record of a case that was measured; if its numbers make none, the record of that."""
        try:
            made = assemble.finished(case, self.context, probe, session, self.now())
            check(seal(made), "the record")
        except CorruptRecord as error:
            self._odd(case, probe, str(error))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            self._odd(case, probe, f"{type(error).__name__}: {error}")
        else:
            self._record(made)

    def _odd(self, case: Case, probe: dict[str, Any], why: str) -> None:
        """Write a record that says why what a case's processes told makes no record; nothing of theirs is in it."""
        error = {
            "phase": "record",
            "type": CORRUPT,
            "log_tail": "",
            "message": f"what its processes told makes no record: {whole_characters(why)[:1000]}",
        }
        started = probe["started_at"] if isinstance(probe.get("started_at"), str) else self.now()
        self._record(assemble.failed(case, self.context, "crashed", error, started, self.now()))

    def failed(self, case: Case, outcome: Failed, started: str, probe: dict[str, Any] | None = None) -> None:
        """Write the record of a case that failed, with what its probe had measured before."""
        self.journal.append("failed", case=case.key, status=outcome.status, phase=outcome.error["phase"])
        self._record(assemble.failed(case, self.context, outcome.status, outcome.error, started, self.now(), probe))

    def interrupted(self, cases: Sequence[Case], phase: str) -> None:
        """Give the cases a record of the interruption, unless they have one that tells more."""
        error = {"phase": phase, "type": "KeyboardInterrupt", "message": "interrupted by the user", "log_tail": ""}
        for case in cases:
            if not is_present(self.latest_readable(case), retry="none"):
                moment = self.now()
                self._record(assemble.failed(case, self.context, "interrupted", error, moment, moment))
        self.journal.append("interrupted", cases=[case.key for case in cases])

    def latest_readable(self, case: Case) -> Record | None:
        """The newest record of a case; None if there is none, or if it is damaged, which the loop has told."""
        try:
            return self.store.latest(case.key, self.context.machine_key)
        except CorruptRecord:
            return None

    def save(self, path: Path, value: Any) -> None:
        """Write JSON into the results folder; ResultsError if it has no room."""
        save_json(self.store, path, value)

    def _record(self, record: Record) -> None:
        sealed = put_record(self.store, self.journal, record)
        self.sweep.records.append(sealed)
        self.sweep.measured += record["status"] != "interrupted"
        self._announce(Recorded(sealed))
