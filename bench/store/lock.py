"""One driver per results folder: a lock that names its holder and dies with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from bench.canonical import digest
from bench.errors import ResultsError
from bench.foreign_files import read_regular
from bench.foreign_text import escape_controls
from bench.moment import utc_millisecond
from bench.store.foreign import parse

NAME = ".driver.lock"
#: Bytes of what a holder says about itself.
MOST_BYTES = 4096

#: Folders that this process holds: the kernel's record locks do not exclude a process from itself.
_HELD: set[Path] = set()


class Locked(ResultsError):
    """Another driver works on the results folder."""


class ResultsLock:
    """The sole right to write to a results folder, as a context manager.

    A POSIX record lock: the kernel drops it when the process ends, however it ends, and a forked worker that outlives
    the driver does not hold it. The file beside the results stays, so that no two processes ever lock different files.

    Args:
        root: the results folder; made if it is not there.
    """

    def __init__(self, root: Path | str):
        self.path = Path(root) / NAME
        self._handle: int | None = None
        self._owner: int | None = None

    def __enter__(self) -> ResultsLock:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock or refuse at once.

        Raises:
            Locked: another driver has it; the message says which process since when.
            ResultsError: the folder cannot be written, or its file system has no locks.
        """
        key = Path(os.path.realpath(self.path))
        if key in _HELD:
            raise Locked(self._refusal())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ResultsError(
                f"{self.path.parent}: cannot be written ({error.strerror}); choose another results folder or make it "
                "writable"
            ) from error
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise Locked(self._refusal()) from None
            raise ResultsError(
                f"{self.path.parent}: this file system has no locks ({error.strerror}); use a results folder on a "
                "local disk"
            ) from error
        self._handle, self._owner = handle, os.getpid()
        _HELD.add(key)
        self._introduce(handle)

    def release(self) -> None:
        """Give the lock back; does nothing in a forked child or when it is not held."""
        if self._handle is None or self._owner != os.getpid():
            return
        _HELD.discard(Path(os.path.realpath(self.path)))
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
        os.close(self._handle)  # closing any descriptor of the file drops the record lock
        self._handle = self._owner = None

    def _introduce(self, handle: int) -> None:
        """Say in the file who holds the lock; a full disk does not make the lock less valid."""
        text = json.dumps({"pid": os.getpid(), "since": utc_millisecond(), "machine": _machine()})
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)

    def _refusal(self) -> str:
        """The message for the one who comes second."""
        holder = self._holder()
        who = f"process {holder['pid']}" if "pid" in holder else "another process"
        since = f" since {holder['since']}" if "since" in holder else ""
        where = "" if holder.get("machine", _machine()) == _machine() else " on another machine"
        return (
            f"{self.path.parent}: {who}{where} has been measuring into this results folder{since}; "
            "wait for it, stop it, or give this run a results folder of its own"
        )

    def _holder(self) -> dict[str, Any]:
        """What the holder wrote about itself; empty if it has not yet.

        Read through a new descriptor only where this process holds no lock on the file, or closing would drop it.
        """
        if Path(os.path.realpath(self.path)) in _HELD:
            return {"pid": os.getpid()}
        try:
            found = parse(read_regular(self.path, MOST_BYTES))
        except (OSError, ValueError):
            return {}
        known = found if isinstance(found, dict) else {}
        return {name: escape_controls(str(value))[:100] for name, value in known.items()}


def _machine() -> str:
    """A token of this boot of this machine; says nothing about which machine it is."""
    try:
        return digest(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8"))
    except OSError:
        return "unknown"
