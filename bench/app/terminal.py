"""Standard streams that end no job, and lines in which foreign text steers no terminal."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any, TextIO, cast

from bench.foreign_text import escape_controls

#: Seconds that a reader of our output may keep us waiting where its end does not block.
PATIENCE_S = 10.0


def tell(message: str) -> None:
    """A line for the user on standard error; of several lines each is cleared of what would steer a terminal."""
    print("bench: " + "\n".join(map(escape_controls, message.split("\n"))), file=sys.stderr)


class Sink(io.RawIOBase):
    """A descriptor that can be written to; when it cannot, the rest is dropped and `lost` says why.

    What was measured is on disk by then, and a job's exit code is its verdict: neither depends on who reads the output.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.lost: OSError | None = None

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a terminal reads it."""
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """How many bytes are done with; all of them once the stream is lost."""
        if self.lost is None:
            try:
                return self._written(data)
            except OSError as error:
                self.lost = error
        return len(data)

    def _written(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            select.select([], [self._descriptor], [], PATIENCE_S)
            return os.write(self._descriptor, data)


def open_streams() -> list[Sink]:
    """Make standard output and error such that no write to them raises; what became of each.

    A closed one becomes the null device first, or the next file that is opened would get its number and its output.
    What its encoding lacks is spelt out.
    """
    for number in (0, 1, 2):
        _fill(number)
    return [_replace(name, number) for name, number in (("stdout", 1), ("stderr", 2))]


def _fill(number: int) -> None:
    """Put the null device where there is no descriptor."""
    try:
        os.fstat(number)
    except OSError:
        handle = os.open(os.devnull, os.O_RDWR)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)


def _replace(name: str, number: int) -> Sink:
    old: TextIO | None = getattr(sys, name)
    if old is not None:
        with contextlib.suppress(OSError):
            old.flush()
    sink = Sink(number)
    stream = io.TextIOWrapper(
        io.BufferedWriter(cast(Any, sink)),
        encoding=(old.encoding if old is not None else None) or "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or sink.isatty(),
    )
    setattr(sys, name, stream)
    return sink


def close_streams(sinks: list[Sink]) -> bool:
    """Flush; whether everything reached its reader, or the reader left by itself (a closed pipe, as by `head`)."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    lost = sinks[0].lost
    if lost is None or lost.errno == errno.EPIPE:
        return True
    tell(f"standard output cannot be written ({lost.strerror}); what was measured is kept")
    return False


def start_in_utf8() -> None:
    """Start the program again in Python's UTF-8 mode where the locale would not let it spell the names of files.

    Without it such a name is text that no database and no page takes. What is printed keeps its encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    more = {"PYTHONUTF8": "1"}
    if sys.stdout is not None and "PYTHONIOENCODING" not in os.environ:
        more["PYTHONIOENCODING"] = f"{sys.stdout.encoding}:{sys.stdout.errors}"
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **more})
