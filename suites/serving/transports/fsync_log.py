"""A log on disk as a durable broker keeps one: every message is appended and forced to disk before it counts as sent.

A model of what durability costs, not of a broker: one file, one writer, `fsync` after every message; who reads is told
where a message stands and reads it from the file, which the page cache usually still holds.
"""

from __future__ import annotations

import os
import select
import tempfile
from pathlib import Path
from struct import Struct

from suites.serving.transports.channel import PATIENCE, TransportFailed

#: Bytes after which the log begins again at its start: what was read is not kept.
SEGMENT = 64 * 2**20
_PLACE = Struct("<QQ")


class Log:
    """One direction: append with fsync, and read what was appended."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the log; it has no name to remove
        self._told, self._tell = os.pipe()
        self._end = 0

    def append(self, message: bytes) -> None:
        """Write at the end, wait until it is on disk, then tell where it stands."""
        if self._end + len(message) > SEGMENT:
            self._end = 0
        place = self._end
        written = 0
        while written < len(message):
            written += os.pwrite(self._file.fileno(), memoryview(message)[written:], place + written)
        os.fsync(self._file.fileno())
        self._end += len(message)
        os.write(self._tell, _PLACE.pack(place, len(message)))

    def next(self) -> bytes:
        """The next message.

        Raises:
            TransportFailed: none was appended.
        """
        if not select.select([self._told], [], [], PATIENCE)[0]:
            raise TransportFailed(f"nothing was appended to the log for {PATIENCE:g} s")
        place, length = _PLACE.unpack(os.read(self._told, _PLACE.size))
        parts, missing = list[bytes](), length
        while missing:
            part = os.pread(self._file.fileno(), missing, place + length - missing)
            if not part:
                raise TransportFailed(f"{missing} of {length} bytes are not in the log")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close file and pipe, if they are open."""
        if self._file.closed:
            return
        self._file.close()
        os.close(self._told)
        os.close(self._tell)


class FsyncLogChannel:
    """A log each way."""

    answered_at_once = False

    def __init__(self) -> None:
        self._requests, self._answers = Log(), Log()

    def begin_client(self) -> None:
        """Nothing: the files are open."""

    def begin_server(self) -> None:
        """Nothing: the files are open."""

    def send(self, request: bytes) -> None:
        """Append and force to disk."""
        self._requests.append(request)

    def take(self) -> bytes:
        """Read what was appended."""
        return self._answers.next()

    def receive(self) -> bytes:
        """Read what was appended."""
        return self._requests.next()

    def give(self, answer: bytes) -> None:
        """Append and force to disk."""
        self._answers.append(answer)

    def close(self) -> None:
        """Close both."""
        self._requests.close()
        self._answers.close()


def file_system() -> str:
    """The type of the file system that logs are written to: on one in memory, forcing to disk costs nothing."""
    folder = Path(tempfile.gettempdir()).resolve()
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, kind, *_ = line.split()
        if folder.is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]
