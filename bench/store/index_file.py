"""The index of a results folder on disk: an SQLite file beside the records, made from them and thrown away at will.

SQLite because it comes with Python, takes one record at a time, answers for one case as well as for all, and lets
several processes read and write at once. Whatever is wrong with the file (another version's, damaged, locked, a folder
that cannot be written) is a line in the log and no error: then there is no index, or a new one.

Every value is sealed with a hash over itself, the name of its record's file and that file's stamp: a damaged row is no
row, nor is one that was made elsewhere, because nobody chooses when the system says that a file was changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from bench.version import __version__

logger = logging.getLogger(__name__)

NAME = "index.sqlite"
#: Seconds to wait for another process that is writing.
PATIENCE_S = 5.0
#: Outlines that are fetched at once, so that no writer waits for a slow reader.
FETCHED = 500
SEAL_BYTES = 16

#: Size, time of change of content, time of change of the file, and number of a file.
Stamp = tuple[int, int, int, int]

_TABLES = {
    "about": "CREATE TABLE about (made_by TEXT)",
    "heads": (
        "CREATE TABLE heads (name TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, inode INTEGER, "
        "head BLOB) WITHOUT ROWID"
    ),
    "outlines": "CREATE TABLE outlines (name TEXT PRIMARY KEY, outline BLOB)",
}
#: Rooms of `bench` whose code decides what a record is and what of it is kept, beside the modules of `bench` itself.
_ROOMS = ("store", "plan", "config", "host", "workloads", "backends", "metrics")
_BENCH = Path(__file__).resolve().parents[1]

T = TypeVar("T")
#: A row as it is written: name, stamp, head, outline.
Row = tuple[str, Stamp, bytes, bytes]


class IndexFile:
    """What is kept of the records of one folder, by the names of their files.

    Args:
        path: the file; it is made with the first row.
    """

    def __init__(self, path: Path):
        self.path = path

    def heads(self) -> dict[str, tuple[Stamp, bytes]]:
        """Stamp and head of every record that is known, by the name of its file."""
        found: dict[str, tuple[Stamp, bytes]] = {}
        for name, size, mtime, ctime, inode, blob in self._rows("SELECT * FROM heads"):
            stamp = (size, mtime, ctime, inode)
            head = _unsealed(blob, name, stamp)
            if head is not None:
                found[name] = (stamp, head)
        return found

    def outlines(self, stamps: Mapping[str, Stamp]) -> Iterator[tuple[str, bytes]]:
        """The outlines that were kept with these stamps, by the name of the record's file, in the order of names."""
        last = ""
        while True:
            rows = self._rows("SELECT * FROM outlines WHERE name > ? ORDER BY name LIMIT ?", (last, FETCHED))
            for name, blob in rows:
                outline = _unsealed(blob, name, stamps[name]) if name in stamps else None
                if outline is not None:
                    yield name, outline
            if len(rows) < FETCHED or not rows[-1][0] > last:
                return
            last = rows[-1][0]

    def save(self, rows: Sequence[Row], gone: Iterable[str]) -> bool:
        """Put rows in the place of what was known, and forget files that are gone; whether that could be written."""
        left = [(name,) for name in gone]
        heads = [(name, *stamp, _sealed(head, name, stamp)) for name, stamp, head, _ in rows]
        outlines = [(name, _sealed(outline, name, stamp)) for name, stamp, _, outline in rows]

        def write(database: sqlite3.Connection) -> bool:
            _make_tables(database)
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany("DELETE FROM heads WHERE name = ?", left)
                database.executemany("DELETE FROM outlines WHERE name = ?", left)
                database.executemany("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?)", heads)
                database.executemany("INSERT OR REPLACE INTO outlines VALUES (?, ?)", outlines)
            return True

        return self._with_database(write, False, mode="rwc")

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        if not self.path.exists():
            return []
        return self._with_database(lambda database: database.execute(query, values).fetchall(), [], mode="rw")

    def _with_database(
        self, work: Callable[[sqlite3.Connection], T], default: T, *, mode: str, again: bool = True
    ) -> T:
        """What `work` makes of the database; the default where it cannot be had.

        Args:
            work: reads or writes.
            default: see above.
            mode: `rw` of a file that is there, `rwc` makes one.
            again: whether a file that is no index of ours is thrown away, and a new one made where `mode` says so.
        """
        address = f"file:{quote(os.fsencode(os.path.abspath(self.path)))}?mode={mode}"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_S, isolation_level=None)) as database:
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("PRAGMA synchronous = OFF")  # what a power cut damages is thrown away
                _check(database)
                return work(database)
        except (sqlite3.OperationalError, OSError) as error:  # locked, no room, not to be written
            logger.info("%s: not used (%s)", self.path, error)
        except (_Unlike, sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            logger.info("%s: %s; it is thrown away and made anew", self.path, error)
            if again and self._throw_away() and mode == "rwc":
                return self._with_database(work, default, mode=mode, again=False)
        return default

    def _throw_away(self) -> bool:
        """Remove the file, its journal first: it would be played into a new one; whether that was possible."""
        try:
            for name in (f"{self.path}-journal", str(self.path)):
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            logger.info("%s: cannot be removed (%s)", self.path, error)
            return False
        return True


class _Unlike(Exception):
    """The file is a database of another version, or of something else."""


def _check(database: sqlite3.Connection) -> None:
    """Raise _Unlike unless the database is empty, or has exactly our tables and was made by this code."""
    found = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_autoindex%'"))
    if not found:
        return
    if found != _TABLES:
        raise _Unlike("no index of records")
    if database.execute("SELECT made_by FROM about").fetchall() != [(made_by(),)]:
        raise _Unlike("of another version of the code")


def _make_tables(database: sqlite3.Connection) -> None:
    with database:
        database.execute("BEGIN IMMEDIATE")
        if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for text in _TABLES.values():
                database.execute(text)
            database.execute("INSERT INTO about VALUES (?)", (made_by(),))


@cache
def made_by() -> str:
    """A hash of the code that decides what a record is and what is kept of it: another one makes another index."""
    made = hashlib.sha256(__version__.encode())
    for path in sorted([*_BENCH.glob("*.py"), *(path for room in _ROOMS for path in (_BENCH / room).rglob("*.py"))]):
        made.update(path.relative_to(_BENCH).as_posix().encode())
        made.update(path.read_bytes())
    return made.hexdigest()


def _sealed(value: bytes, name: str, stamp: Stamp) -> bytes:
    return _seal(value, name, stamp) + value


def _unsealed(blob: object, name: object, stamp: Stamp) -> bytes | None:
    """The value, if it is the one that was kept under this name and stamp."""
    if not isinstance(blob, bytes) or not isinstance(name, str):
        return None
    value = blob[SEAL_BYTES:]
    return value if blob[:SEAL_BYTES] == _seal(value, name, stamp) else None


def _seal(value: bytes, name: str, stamp: Stamp) -> bytes:
    made = hashlib.blake2b(f"{name}\0{stamp}\0".encode("utf-8", "surrogateescape"), digest_size=SEAL_BYTES)
    made.update(value)
    return made.digest()
