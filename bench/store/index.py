"""What a folder of records holds, known without reading again the records that have not changed.

Records are the truth. What is known of a file is believed as long as its size, its two times and its number are those
that it had when it was read and verified; of the two times the system sets one by itself at every change, so that no
copy, edit or exchange keeps all four. A file that was changed a moment before it was read could be changed once more
within the same grain of the clock: it is read again until that moment is past.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from bench.foreign_files import GRAIN_NS, open_regular, read_most
from bench.store.foreign import MOST_JSON_BYTES, CorruptRecord, translate_faults
from bench.store.index_file import IndexFile, Row, Stamp
from bench.store.outline import Head, Record, outline_of

#: Records below which reading them is as quick as an index.
WORTH = 50
#: Files that are read before what was learned of them is saved.
SAVED_TOGETHER = 500
DIGEST_BYTES = 16

#: Stamps that no file has: of what is not believed the next time, and of what cannot be looked at.
_UNKNOWN: Stamp = (-1, -1, -1, -1)
_UNKNOWN_NOW: Stamp = (-2, -2, -2, -2)


def file_digest(data: bytes) -> str:
    """A hash of the bytes of a file."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def read_stamped(path: Path | str) -> tuple[bytes, Stamp]:
    """The bytes of a record's file, and its stamp from before they were read.

    Raises:
        CorruptRecord: it cannot be read, or is longer than any record.
    """
    with translate_faults(path), open_regular(path) as file:
        stamp = _stamp(os.fstat(file.fileno()))
        data = read_most(file, MOST_JSON_BYTES + 1)
        if len(data) > MOST_JSON_BYTES:
            raise OSError(errno.EFBIG, f"it holds more than {MOST_JSON_BYTES} bytes", str(path))
    return data, stamp


class Index:
    """The heads and outlines of the records of a folder.

    Args:
        folder: of the records.
        file: where what is known is kept for the next process; None keeps nothing.
        verify: makes the record of a file's bytes, or raises CorruptRecord.
        parse: the same of bytes that were verified before.
        clock: nanoseconds since 1970; replaced in tests.
    """

    def __init__(
        self,
        folder: Path,
        file: Path | None,
        verify: Callable[[Path, bytes], Record],
        parse: Callable[[Path | str, bytes], Record],
        clock: Callable[[], int] = time.time_ns,
    ):
        self.folder = folder
        self._file = None if file is None else IndexFile(file)
        self._verify, self._parse, self._clock = verify, parse, clock
        self._known: dict[str, tuple[Stamp, Head]] | None = None
        self._faults: dict[str, str] = {}

    def heads(self, problems: list[str] | None = None, learned: dict[str, Record] | None = None) -> dict[str, Head]:
        """The head of every readable record in the folder as it is now, by the name of its file, in order.

        Args:
            problems: gets a line for each file that could not be read; without it the first one raises CorruptRecord.
            learned: gets the whole records that had to be read for it, for who needs them all and has room for them.
        """
        known = self._refreshed(learned)
        for name in sorted(self._faults):
            if problems is None:
                raise CorruptRecord(self._faults[name])
            problems.append(self._faults[name])
        return {name: known[name][1] for name in sorted(known)}

    def head(self, name: str) -> Head:
        """The head of one record, as its file is now.

        Raises:
            CorruptRecord: it cannot be trusted, or is not there.
        """
        known = self._refreshed() if self._known is None else self._known
        path = self.folder / name
        with translate_faults(path):
            stamp = _stamp(os.stat(path))
        if name not in known or known[name][0] != stamp:
            known[name] = self._learned(name)[0]
        return known[name][1]

    def outlines(self, heads: Mapping[str, Head], problems: list[str] | None = None) -> Iterator[tuple[str, Record]]:
        """The outlines of records whose heads were given, in the order of the names of their files.

        Args:
            heads: by name, in order.
            problems: as for `heads`, of files that changed since.
        """
        known = self._known or {}
        stamps = {name: known[name][0] for name in heads if name in known and known[name][0] != _UNKNOWN}
        kept = self._file.outlines(stamps) if self._file is not None and len(heads) >= WORTH else iter(())
        name, packed = next(kept, ("", b""))
        for wanted in heads:
            while name and name < wanted:
                name, packed = next(kept, ("", b""))
            try:
                outline = _unpacked(packed) if name == wanted else outline_of(self.read(wanted))
            except CorruptRecord as error:
                if problems is None:
                    raise
                problems.append(str(error))
            else:
                yield wanted, outline

    def read(self, name: str) -> Record:
        """A whole record; bytes that were verified before are not verified again.

        Raises:
            CorruptRecord: it cannot be trusted.
        """
        path = os.path.join(self.folder, name)  # a text: thousands are read one after another
        data, stamp = read_stamped(path)
        known = (self._known or {}).get(name)
        verified = known is not None and known[0] == stamp and known[1].file_digest == file_digest(data)
        return self._parse(path, data) if verified else self._verify(self.folder / name, data)

    def _refreshed(self, learned: dict[str, Record] | None = None) -> dict[str, tuple[Stamp, Head]]:
        """What is known of the folder as it is now: what has changed is read, and saved in portions."""
        listed = self._listed()
        worth = self._file is not None and len(listed) >= WORTH
        if self._known is None:
            self._known = self._saved() if worth else {}
        known, self._faults = self._known, {}
        gone = [name for name in known if name not in listed]
        stale = iter(sorted(name for name, stamp in listed.items() if name not in known or known[name][0] != stamp))
        for name in gone:
            del known[name]
        while portion := list(islice(stale, SAVED_TOGETHER)):
            before = [name for name in portion if name in known]
            rows = [row for name in portion if (row := self._reread(name, known, learned)) is not None]
            gone += [name for name in before if name not in known]
            if worth and self._file is not None and (rows or gone):
                self._file.save(rows, gone)
                gone = []
        if gone and worth and self._file is not None:
            self._file.save([], gone)
        return known

    def _reread(self, name: str, known: dict[str, tuple[Stamp, Head]], learned: dict[str, Record] | None) -> Row | None:
        """Learn of a record anew; the row to save, or None where it cannot be read, which is noted."""
        try:
            known[name], record = self._learned(name)
        except CorruptRecord as error:
            self._faults[name] = str(error)
            known.pop(name, None)
            return None
        if learned is not None:
            learned[name] = record
        stamp, head = known[name]
        return name, stamp, json.dumps(head.as_list()).encode(), _packed(outline_of(record))

    def _learned(self, name: str) -> tuple[tuple[Stamp, Head], Record]:
        """Stamp and head of a record, and the record, from its file."""
        path, now = self.folder / name, self._clock()
        data, stamp = read_stamped(path)
        record = self._verify(path, data)
        settled = max(stamp[1], stamp[2]) + GRAIN_NS < now
        return (stamp if settled else _UNKNOWN, Head.of(record, file_digest(data))), record

    def _listed(self) -> dict[str, Stamp]:
        """The stamps of the files in the folder; of what cannot be looked at, one that nothing is believed under."""
        listed: dict[str, Stamp] = {}
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    listed[entry.name] = _UNKNOWN_NOW
                    with suppress(OSError):
                        listed[entry.name] = _stamp(entry.stat())
        return listed

    def _saved(self) -> dict[str, tuple[Stamp, Head]]:
        """What another process has left in the file."""
        assert self._file is not None
        found = {}
        for name, (stamp, text) in self._file.heads().items():
            with suppress(ValueError, TypeError):
                found[name] = (stamp, Head.from_list(json.loads(text)))
        return found


def _stamp(found: os.stat_result) -> Stamp:
    number = found.st_ino & (2**63 - 1)  # as large as SQLite's integers are
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, number


def _packed(outline: Record) -> bytes:
    return zlib.compress(json.dumps(outline, separators=(",", ":")).encode(), 1)


def _unpacked(packed: bytes) -> Record:
    outline: Record = json.loads(zlib.decompress(packed))
    return outline
