"""Files that others may have made, read whole: regular, of bounded size, never a pipe, a device or a growing file."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

#: Nanoseconds between a change of a file and the moment from which a further one shows in its times, on any system.
GRAIN_NS = 2_000_000_000


def read_regular(path: Path | str, most: int) -> bytes:
    """The bytes of a regular file, or of what a link to one names.

    A pipe would keep us waiting and an endless device would take all memory: neither is opened for longer than a look.

    Args:
        path: the file.
        most: bytes that it may hold.

    Raises:
        OSError: there is none, it is no regular file, or it holds more.
    """
    with open_regular(path) as file:
        data = read_most(file, most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it holds more than {most} bytes", str(path))
    return data


def read_most(file: BufferedReader, most: int) -> bytes:
    """The bytes of an open regular file, cut after so many; room is made for those that it has, not for all of these.

    Args:
        file: at its beginning.
        most: bytes that are read.
    """
    wanted = min(os.fstat(file.fileno()).st_size + 1, most)  # the one more tells whether it has grown since
    data = file.read(wanted)
    return data if len(data) < wanted else data + file.read(most - len(data))


def open_regular(path: Path | str) -> BufferedReader:
    """A regular file, open for reading.

    Raises:
        OSError: there is none, or it is a pipe, a device or a folder.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))
