"""What happened, in order: an append-only file of one JSON object per line that survives kills and full disks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import ResultsError
from bench.foreign_files import read_regular
from bench.moment import utc_millisecond
from bench.store.foreign import parse

Entry = dict[str, Any]

#: Bytes of a journal, a million entries; and of one entry, the longest of which names the cases of a group.
MOST_BYTES = 256 * 2**20
MOST_LINE_BYTES = 2**20


@dataclass(frozen=True)
class CorruptLine:
    """A line that is no journal entry; `number` counts from 1."""

    number: int
    reason: str


@dataclass(frozen=True)
class Contents:
    """A journal as read: its entries in order, the lines that could not be read, and whether the last one is torn."""

    entries: tuple[Entry, ...]
    corrupt: tuple[CorruptLine, ...]
    torn: bool

    def events(self, event: str) -> list[Entry]:
        """The entries of one kind, in order."""
        return [entry for entry in self.entries if entry["event"] == event]


class Journal:
    """The journal of a results folder; the order of its lines is the order of events, whatever the clock did.

    Args:
        path: the file; it and its folder are made with the first entry.
        clock: gives the text under `at`.
    """

    def __init__(self, path: Path | str, clock: Callable[[], str] = utc_millisecond):
        self.path = Path(path)
        self._clock = clock

    def append(self, event: str, **data: Any) -> Entry:
        """The entry, written in one piece and synced to disk before this returns.

        Args:
            event: its kind.
            data: plain JSON values; `event` and `at` are taken.

        Raises:
            ValueError: the data is not plain JSON, or has a reserved name.
            ResultsError: the file cannot be written (full disk, read-only folder).
        """
        if "at" in data:
            raise ValueError("the journal writes 'at' itself")
        entry = {"event": event, "at": self._clock(), **data}
        try:
            line = json.dumps(entry, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        except TypeError as error:
            raise ValueError(f"journal entry {event!r} is not plain JSON: {error}") from error
        try:
            self._write(line)
        except OSError as error:
            raise ResultsError(
                f"{self.path}: the journal cannot be written ({error.strerror}); free space or choose another "
                "results folder. What was measured before is kept"
            ) from error
        return entry

    def _write(self, line: bytes) -> None:
        """One write at the end; a torn line that a killed writer left is closed first, so that it stays alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(handle, line) != len(line):
                raise OSError(28, "the disk took only part of a line")
            os.fsync(handle)
        finally:
            os.close(handle)
        if new:
            _sync_folder(self.path.parent)

    def read(self) -> Contents:
        """Every entry; a torn last line is left out, any other unreadable line is reported, none stops the reading.

        Raises:
            ResultsError: the file is there but is no regular file of bounded size that can be read.
        """
        try:
            data = read_regular(self.path, MOST_BYTES)
        except FileNotFoundError:
            return Contents((), (), False)
        except OSError as error:
            raise ResultsError(f"{self.path}: the journal cannot be read ({error.strerror})") from error
        lines = data.split(b"\n")
        entries: list[Entry] = []
        corrupt: list[CorruptLine] = []
        torn = False
        for number, line in enumerate(lines, start=1):
            last = number == len(lines)
            if not line:  # the end, or a newline too many by a writer that saw half of another's line
                continue
            entry, reason = _parse(line)
            if entry is not None:
                entries.append(entry)
            elif last:
                torn = True
            else:
                corrupt.append(CorruptLine(number, reason))
        return Contents(tuple(entries), tuple(corrupt), torn)


def _parse(line: bytes) -> tuple[Entry | None, str]:
    """The entry of a line, or `None` and what is wrong with it."""
    try:
        value = parse(line, MOST_LINE_BYTES)
    except ValueError as error:
        return None, f"not complete JSON ({error.__class__.__name__})"
    if not isinstance(value, dict) or not isinstance(value.get("event"), str) or not isinstance(value.get("at"), str):
        return None, "not a journal entry"
    return value, ""


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
