"""What machines send, kept in the driver's results folder as if it had been measured here."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from bench.plan.case import Case
from bench.store import classes
from bench.store.bundle import MAX_JSON_BYTES
from bench.store.foreign import CorruptRecord, parse, unpacked
from bench.store.journal import Journal
from bench.store.outline import Head
from bench.store.records import Record, Store, check, counts, is_calibration, write_atomically
from bench.sweep.writing import put_record, translate_write_errors

#: Kinds of files that a machine sends, by the first part of their path.
KINDS = ("machines", "logs", "samples", "records")


class Arrivals:
    """Keeps the files of machines.

    Args:
        store: the driver's results folder.
        journal: told of every record.
        label: what machines were asked for; machines of other labels have rows of their own.
        on_record: called with every record that is kept.
    """

    def __init__(self, store: Store, journal: Journal, label: str, on_record: Callable[[Record], None]):
        self._store, self._journal, self._label, self._on_record = store, journal, label, on_record
        self.problems: list[str] = []

    def machines(self) -> tuple[str, ...]:
        """Keys of the machines of this label that have rows here."""
        return tuple(self._known.get(self._label, ()))

    def present(self, case: Case, retry: str) -> Head | None:
        """The record that makes measuring the case again needless, of whichever machine of this label."""
        for machine in self.machines():
            try:
                head = self._store.head(case.key, machine)
            except CorruptRecord as error:
                self.problems.append(str(error))
                continue
            if head is not None and counts(head.status, retry=retry):
                return head
        return None

    def state(self, cases: Sequence[Case]) -> list[str | None]:
        """Hash of what is known of each case, of whichever machine of this label."""
        known = self.machines()
        hashes = ([self._store.last_final_hash(case.key, machine) for machine in known] for case in cases)
        return ["/".join(filter(None, each)) or None for each in hashes]

    def keep(self, files: Mapping[str, bytes], wanted: frozenset[str]) -> None:
        """Keep what a machine sent; what is not what it should be is told among the problems and left out.

        Args:
            files: by their path in the machine's results folder, what a record names before the record.
            wanted: keys of the cases that it was to measure.

        Raises:
            ResultsError: the results folder cannot be written.
        """
        for name, data in files.items():
            try:
                self._keep(name, data, wanted)
            except (CorruptRecord, ValueError, OSError, EOFError, zlib.error) as error:
                self.problems.append(f"from a machine of the pool: {name}: {error}")

    def _keep(self, name: str, data: bytes, wanted: frozenset[str]) -> None:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.parts[0] not in KINDS or len(path.parts) < 2:
            raise ValueError("no path of a results folder")
        if path.parts[0] == "records":
            self._keep_record(check(parse(data, MAX_JSON_BYTES), name), wanted)
            return
        if path.parts[0] == "machines" and not is_calibration(parse(data, MAX_JSON_BYTES)):
            raise ValueError("no calibration")
        if path.parts[0] == "samples":
            parse(unpacked(data, MAX_JSON_BYTES) if path.suffix == ".gz" else data, MAX_JSON_BYTES)
        with translate_write_errors(self._store, name):
            write_atomically(self._store.root / path, data)

    def _keep_record(self, record: Record, wanted: frozenset[str]) -> None:
        if record["case_key"] not in wanted:
            raise ValueError("the record of a case that it was not asked for")
        if record["status"] == "interrupted":
            return
        kept = put_record(self._store, self._journal, record)
        self._learn(record["machine_key"])
        self._on_record(kept)

    def _learn(self, machine: str) -> None:
        known = self._known
        if machine not in known.setdefault(self._label, []):
            known[self._label].append(machine)
            with translate_write_errors(self._store, classes.FILE):
                classes.write(self._store.root, known)

    @cached_property
    def _known(self) -> classes.Classes:
        """Machines by label; read once, for the driver holds the folder alone and asks for every case."""
        return classes.read(self._store.root)
