"""The driver's folder for the files of its workers: gone with the driver, and if that was killed with the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "bench-"
#: Held by the driver for as long as it lives: the kernel lets go of it however the driver ends.
HELD = ".driver"
#: A folder younger than this may be of a driver that has not yet taken hold of it.
YOUNG_S = 30.0
#: The names that `tempfile.mkdtemp` makes: another empty folder may be somebody's.
_MADE_HERE = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")


class Scratch:
    """A folder of this driver's own, marked as in use; making one removes those of drivers that are no more."""

    def __init__(self) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._handle = os.open(self.folder / HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._handle)


def _remove_abandoned(root: Path) -> None:
    """Remove the folders that a killed driver left; nothing of another user, and nothing that is in use."""
    for folder in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            ours = found.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
            if not ours or time.time() - found.st_mtime <= YOUNG_S:
                continue
            if not (folder / HELD).exists():
                if _MADE_HERE.fullmatch(folder.name):
                    folder.rmdir()  # its driver was killed before it took hold of it; refused where it is not empty
            elif is_abandoned(folder / HELD):
                shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(held: Path, wait_s: float = 0.0) -> bool:
    """Whether no living process holds a driver's mark.

    Args:
        held: the mark, `HELD` in a driver's folder.
        wait_s: how long to ask again for a mark that is still held: a driver with several threads, of which the first
            has been killed, holds it until the last one is gone.

    Raises:
        OSError: there is no mark, and the folder is none of ours.
    """
    last = time.monotonic() + wait_s
    handle = os.open(held, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while not _takes(handle):
            if time.monotonic() >= last:
                return False
            time.sleep(0.01)
    finally:
        os.close(handle)
    return True


def _takes(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
