"""The truth on disk: one write-once JSON record per case and machine, raw samples beside it, versioned.

A record is plain JSON; `bench.store.schema.RecordFields` names its parts and their kinds.

`migrate` brings older schemas forward; nothing ever rewrites a record in place.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from json import dumps  # taken before a worker's code could put another in its place
from pathlib import Path
from typing import Any

from bench.canonical import content_hash
from bench.store.attempts import Attempts, file_name
from bench.store.foreign import CorruptRecord, faults, parse, read_json, shown, translate_faults, without_halves
from bench.store.index import Index, read_stamped
from bench.store.index_file import NAME as INDEX
from bench.store.migrations import MIGRATIONS
from bench.store.outline import Head, Record
from bench.store.record_parts import contradictions
from bench.store.schema import Calibration, RecordFields

SCHEMA = 2
READABLE = 0o644
UNREADABLE = "unreadable"

#: Half of a surrogate pair, as JSON spells one: the whole pair too, which is looked at more closely.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: a reader sees the whole file or none, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), READABLE)  # mkstemp makes it private, but a site is there to be served
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Plain JSON, atomically; `.gz` names are compressed. NaN and infinity are refused."""
    data = dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    write_atomically(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def seal(record: Record) -> Record:
    """The record with its schema and content hash filled in."""
    sealed = {**record, "schema": SCHEMA}
    return {**sealed, "content_hash": content_hash(sealed)}


def migrate(record: Record) -> Record:
    """The record in the present schema.

    Raises:
        CorruptRecord: the schema is newer than this version of the suite, or no schema at all.
    """
    schema = record.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise CorruptRecord(f"record has no usable schema number (found {shown(schema)})")
    if schema > SCHEMA:
        raise CorruptRecord(
            f"record has schema {shown(schema)}, newer than {SCHEMA}: update waterline-bench to read it"
        )
    for version in range(schema, SCHEMA):
        record = MIGRATIONS[version](record)
    return record


def check(record: Any, where: str, *, halves: bool = True) -> Record:
    """The record, verified against its content hash, brought to the present schema, every part of its kind.

    Args:
        record: plain JSON data.
        where: how to name it in an error.
        halves: whether halves of surrogate pairs may be in it; who has seen its text may know that none is.

    Raises:
        CorruptRecord: it is not a record, was edited, is of a schema that is not known here, or a part is of another
            kind.
    """
    if not isinstance(record, dict) or not isinstance(record.get("case"), dict):
        raise CorruptRecord(f"{where}: not a record")
    try:
        right = record.get("content_hash") == content_hash(record)
    except (ValueError, TypeError, RecursionError) as error:  # NaN, infinity, nesting without end: no writer made it
        raise CorruptRecord(f"{where}: not a record: {error}") from error
    if not right:
        raise CorruptRecord(f"{where}: content does not match its hash: it was edited or damaged")
    try:
        migrated = without_halves(migrate(record)) if halves else migrate(record)
    except CorruptRecord as error:
        raise CorruptRecord(f"{where}: {error}") from error
    for name in _KEYS:
        _file_name(migrated.get(name), f"{where}: {name}")
    for look in (partial(faults, RecordFields), contradictions):
        for fault in look(migrated):
            raise CorruptRecord(f"{where}: not a record: {fault}")
    return migrated


#: Parts that files are named after, here and in the report.
_KEYS = ("record_key", "case_key", "machine_key")
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")


def _file_name(key: Any, where: str) -> str:
    """The key, if it can only be a file's name and never a path that leads elsewhere.

    Raises:
        CorruptRecord: it cannot.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise CorruptRecord(f"{where} {shown(key)} is no key")
    return key


_AFTER_KEY = re.compile(r"(\.[1-9][0-9]{0,8})?\.json")


def _is_named_after(path: Path, record: Record) -> bool:
    """Whether a file has the name under which a record is written."""
    key, name = f"{record['case_key']}.{record['machine_key']}", path.name
    return name.startswith(key) and _AFTER_KEY.fullmatch(name, len(key)) is not None


#: Status of a row whose processes other work held up: it has numbers, its ranks are withheld.
DISTURBED = "contaminated"


def is_present(record: Record | None, *, retry: str = "none") -> bool:
    """Whether a case needs no measuring: it has a record that was not interrupted and is not to be measured again.

    Args:
        record: the newest of the case on this machine, or None.
        retry: one of `bench.config.verbs.RETRIES`.
    """
    return counts(None if record is None else record["status"], retry=retry)


def counts(status: str | None, *, retry: str = "none") -> bool:
    """The same of the newest record's status, None without a record."""
    if status is None or status == "interrupted":
        return False
    if status == "ok":
        return True
    kind = "disturbed" if status == DISTURBED else "failed"
    return retry not in (kind, "all")


def without_superseded(records: Iterable[Record]) -> list[Record]:
    """The records that no other of the same case and machine replaces (`supersedes` names a content hash)."""
    kept = list(records)
    replaced = {(record.get("record_key"), record.get("supersedes")) for record in kept}
    return [
        record for record in kept if not {(record.get("record_key"), name) for name in identities(record)} & replaced
    ]


def heads_that_count(heads: Mapping[str, Head]) -> dict[str, Head]:
    """The same of heads by the name of their file."""
    replaced = {(head.record_key, head.supersedes) for head in heads.values()}
    return {
        name: head
        for name, head in heads.items()
        if not {(head.record_key, identity) for identity in head.identities} & replaced
    }


def identities(record: Record) -> set[str]:
    """The content hashes that a record goes by: its own, and the one it had before personal parts were taken out."""
    return {str(record[name]) for name in ("content_hash", "redacted_from") if record.get(name)}


def is_calibration(value: Any) -> bool:
    """Whether this has the shape that readers of a machine's calibration rely on."""
    return not any(True for _ in faults(Calibration, value))


def read_calibration(path: Path) -> dict[str, Any] | None:
    """What a machine could do, or None if nothing readable says so: it can always be measured again."""
    try:
        value: dict[str, Any] = read_json(path)
    except CorruptRecord:
        return None
    return value if is_calibration(value) else None


class Store:
    """A results folder: `records/`, `samples/`, `probes/`, `logs/`, `machines/` and the journal."""

    def __init__(self, root: Path | str, records: Path | None = None):
        """Nothing is read yet.

        Args:
            root: the folder.
            records: a folder of records alone, which gets no index; default the one in `root`.
        """
        self.root = Path(root)
        self.records = records or self.root / "records"
        self._own = self.root / "records"
        self.samples = self.root / "samples"
        self.probes = self.root / "probes"
        self.logs = self.root / "logs"
        self.machines = self.root / "machines"
        self.journal = self.root / "journal.jsonl"
        self._known_attempts = Attempts(self.records)
        index = self.root / INDEX if records is None else None
        self._index = Index(self.records, index, self._verified, _trusted)

    def record_path(self, case_key: str, machine_key: str, attempt: int = 1) -> Path:
        """Where an attempt at a case on a machine is."""
        stem = f"{_file_name(case_key, 'case_key')}.{_file_name(machine_key, 'machine_key')}"
        return self.records / file_name(stem, attempt)

    def calibration_path(self, machine_key: str, device: str, threads: int) -> Path:
        """Where the calibration of a machine, device and thread count is."""
        return self.machines / f"{machine_key}.{device.replace(':', '-')}.{threads}.json"

    def attempts(self, case_key: str, machine_key: str) -> list[Path]:
        """The files of every attempt at a case on a machine, oldest first, also where one in between was moved away."""
        return [path for _, path in self._numbered(case_key, machine_key)]

    def _numbered(self, case_key: str, machine_key: str) -> list[tuple[int, Path]]:
        stem = self.record_path(case_key, machine_key).stem
        return [(number, self.record_path(case_key, machine_key, number)) for number in self._known_attempts.of(stem)]

    def _put(self, case_key: str, machine_key: str, put: Callable[[Path], None]) -> Path:
        """Have the next attempt written, after the last one there is; its file."""
        stem = self.record_path(case_key, machine_key).stem
        number = max(self._known_attempts.of(stem), default=0) + 1
        path, changed = self.record_path(case_key, machine_key, number), self._known_attempts.changed()
        put(path)
        self._known_attempts.written(stem, number, changed)
        return path

    def latest(self, case_key: str, machine_key: str) -> Record | None:
        """The newest record of a case on a machine, or None.

        Raises:
            CorruptRecord: it is there but cannot be trusted.
        """
        attempts = self.attempts(case_key, machine_key)
        return self.read(attempts[-1]) if attempts else None

    def head(self, case_key: str, machine_key: str) -> Head | None:
        """The head of the newest record of a case on a machine, or None; a record that has not changed is not read.

        Raises:
            CorruptRecord: it is there but cannot be trusted.
        """
        attempts = self.attempts(case_key, machine_key)
        return self._index.head(attempts[-1].name) if attempts else None

    def last_final_hash(self, case_key: str, machine_key: str) -> str | None:
        """Content hash of the newest record of a case that tells more than an interruption; None if there is none.

        A record that cannot be read is another than any that can: its hash is `UNREADABLE`.
        """
        for path in reversed(self.attempts(case_key, machine_key)):
            try:
                head = self._index.head(path.name)
            except CorruptRecord:
                return UNREADABLE
            if head.status != "interrupted":
                return head.content_hash
        return None

    def write(self, record: Record) -> Path:
        """Seal and write a record once; one that `supersedes` another gets a file of its own beside it.

        Raises:
            FileExistsError: there is a record of this case and machine that this one does not supersede.
        """
        case_key, machine_key = record["case_key"], record["machine_key"]
        before = self.attempts(case_key, machine_key)
        if before and record.get("supersedes") != self.read(before[-1])["content_hash"]:
            raise FileExistsError(f"{before[-1]} exists; records are written once")
        return self._put(case_key, machine_key, lambda path: write_json(path, seal(record)))

    def adopt(self, record: Record, data: bytes) -> Path | None:
        """Keep a verified record from elsewhere beside ours; its file, or None where that record is there already.

        Args:
            record: the record, verified.
            data: its file, which is kept byte by byte.
        """
        case_key, machine_key = record["case_key"], record["machine_key"]
        for kept in self.attempts(case_key, machine_key):
            with suppress(CorruptRecord):
                if identities(self.read(kept)) & identities(record):
                    return None
        return self.put_copy(case_key, machine_key, data)

    def put_copy(self, case_key: str, machine_key: str, data: bytes) -> Path:
        """The new file of a verified record from elsewhere that is known not to be here, kept byte by byte."""
        return self._put(case_key, machine_key, lambda path: write_atomically(path, data))

    def read(self, path: Path) -> Record:
        """One verified record in the present schema.

        Raises:
            CorruptRecord: it cannot be trusted, or lies under the name of another.
        """
        return self._verified(path, read_stamped(path)[0])

    def _verified(self, path: Path, data: bytes) -> Record:
        with translate_faults(path):
            value = parse(data)
        record = check(value, str(path), halves=_HALF.search(data) is not None)
        if path.parent == self._own and not _is_named_after(path, record):
            raise CorruptRecord(
                f"{path}: holds the record of {record['record_key']}: two files were exchanged or one was renamed; "
                "name it after its record, or move it away"
            )
        return record

    def remove_litter(self) -> None:
        """Remove the temporary files of writers that were killed; for the one driver that holds the folder's lock."""
        for folder in (self.records, self.probes, self.machines, self.samples, *self.samples.glob("*/")):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def heads(self, problems: list[str] | None = None, learned: dict[str, Record] | None = None) -> dict[str, Head]:
        """The head of every readable record that no other supersedes, by the name of its file, in a stable order.

        Args:
            problems: gets a line for each file that could not be read; without it the first one raises.
            learned: gets the whole records that had to be read for it.
        """
        return heads_that_count(self._index.heads(problems, learned))

    def head_of(self, name: str) -> Head:
        """The head of one record, as `heads` gives it.

        Args:
            name: of its file.

        Raises:
            CorruptRecord: it cannot be trusted.
        """
        return self._index.head(name)

    def read_again(self, name: str) -> Record:
        """One whole record; what was verified before and has not changed is not verified again.

        Args:
            name: of its file.

        Raises:
            CorruptRecord: it cannot be trusted.
        """
        return self._index.read(name)

    def outlines_of(self, names: Sequence[str]) -> list[Record]:
        """The outlines of some records.

        Args:
            names: of their files, in the order in which they are given back.

        Raises:
            CorruptRecord: one cannot be trusted.
        """
        found = dict(self._index.outlines({name: self.head_of(name) for name in sorted(set(names))}))
        return [found[name] for name in names]

    def outlines(self, problems: list[str] | None = None) -> Iterator[Record]:
        """The same records without their long parts (`bench.store.outline`): what tables are made from.

        Args:
            problems: as for `heads`.
        """
        for _, outline in self._index.outlines(self.heads(problems), problems):
            yield outline

    def iterate(self, problems: list[str] | None = None) -> Iterator[Record]:
        """The same records, whole, one after another: none is kept.

        Args:
            problems: as for `heads`.
        """
        yield from (record for _, record in self._named(problems))

    def every(self, problems: list[str] | None = None) -> list[Record]:
        """The same records at once, each file read once: for who keeps them all in memory.

        Args:
            problems: as for `heads`.
        """
        return [record for _, record in self._named(problems, learned={})]

    def files(self, problems: list[str] | None = None) -> Iterator[tuple[Path, Record]]:
        """The same records with their files.

        Args:
            problems: as for `heads`.
        """
        yield from ((self.records / name, record) for name, record in self._named(problems))

    def _named(
        self, problems: list[str] | None = None, learned: dict[str, Record] | None = None
    ) -> Iterator[tuple[str, Record]]:
        """The same records with the names of their files; `learned` as for `heads`, what is there is not read again."""
        for name in self.heads(problems, learned):
            try:
                record = (learned or {}).pop(name, None) or self._index.read(name)
            except CorruptRecord as error:  # since it was looked at
                if problems is None:
                    raise
                problems.append(str(error))
            else:
                yield name, record


def _trusted(path: Path | str, data: bytes) -> Record:
    """The record of bytes that were verified before."""
    with translate_faults(path):
        record = migrate(parse(data))
    return without_halves(record) if _HALF.search(data) else record
