"""What of a machine a piece of work has to itself while it measures: the machine, or a GPU with the cores near it.

On a CPU a piece has the whole machine. On a GPU it has that board or MIG instance and an equal share of the cores, so
that the other GPUs can measure at the same time. A wall meter sees the whole machine, so who reads one has the machine.
Locks lie in the machine's folder of temporary files and hold between all drivers, pools and users of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.schema import Config
from bench.errors import ResultsError
from bench.host import topology
from bench.host.hostwatch import CORES
from bench.host.visible_gpus import VISIBLE, as_text, locate, nvml

#: Names a machine of a pool that is simulated on one host, so that each has its own locks and calibrations.
NODE = "WATERLINE_NODE"
#: Makes CUDA count boards as NVML does, which matters where they are unlike.
ORDER = "CUDA_DEVICE_ORDER"
_MACHINE = "machine"


@dataclass(frozen=True)
class Place:
    """What a piece of work has to itself.

    Attributes:
        locks: names of what it holds and whether alone; all hold the machine, and alone who measures on its CPU.
        cpus: the processors that it runs on; empty for all that it may.
        of: how many places of this kind the machine has.
        title: in words, for the journal.
    """

    locks: tuple[tuple[str, bool], ...]
    cpus: tuple[int, ...] = ()
    of: int = 1
    title: str = "the whole machine"


def place_for(config: Config) -> Place:
    """The place that a sweep of this configuration needs on this machine.

    The cores of a job of SLURM that shares its node are those that SLURM gave it.
    """
    device = config.device.name
    if device == "cpu" or config.protocol.energy.backend == "external":
        return Place(((_MACHINE, True),))
    try:
        with nvml() as lib:
            return _of_gpu(lib, device, share_out=config.executor.affinity == "near" and config.executor.exclusive)
    except (RuntimeError, LookupError) as error:
        shown = os.environ.get(VISIBLE) or "all"
        return Place(((_MACHINE, False), (f"gpu {shown}", True)), title=f"GPU {shown} ({error})")


def _of_gpu(lib: Any, device: str, *, share_out: bool) -> Place:
    """The board, which no other may hold; of a divided one the instance, beside others of the board."""
    gpu = locate(lib, device)
    board = as_text(lib.nvmlDeviceGetUUID(gpu.board))
    locks: tuple[tuple[str, bool], ...] = ((_MACHINE, False), (f"gpu {board}", gpu.instance is None))
    title = f"GPU {lib.nvmlDeviceGetIndex(gpu.board)} ({as_text(lib.nvmlDeviceGetName(gpu.own))})"
    if gpu.instance is not None:
        locks += ((f"gpu {topology.identity(lib, gpu)}", True),)
    if not share_out or not hasattr(os, "sched_getaffinity"):
        return Place(locks, (), 1, title)
    found = topology.share(lib, gpu, os.sched_getaffinity(0))
    said = f"processors {topology.as_list(found.cpus)}" if found.cpus else "all processors"
    return Place(locks, found.cpus, found.of, f"{title}, {said}" + (f": {found.reason}" if found.reason else ""))


@contextlib.contextmanager
def held(place: Place) -> Iterator[None]:
    """The place to ourselves; waits until it is free.

    Who wants something alone keeps his turn, so that those who share it cannot pass him for ever.

    Raises:
        ResultsError: the locks cannot be made.
    """
    folder = _lock_folder()
    with contextlib.ExitStack() as stack:
        for name, alone in place.locks:
            with _opened(folder, f"{name} turn") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                lock = stack.enter_context(_opened(folder, name))
                fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def settle(place: Place) -> None:
    """Keep this process, and all that it starts, on the place's processors, and count boards as NVML does."""
    os.environ.setdefault(ORDER, "PCI_BUS_ID")
    if place.cpus:
        os.sched_setaffinity(0, place.cpus)
        os.environ[CORES] = topology.as_list(place.cpus)


def keep_folder() -> Path:
    """What a machine keeps between pieces of work of a user: its calibrations."""
    return Path(tempfile.gettempdir()) / _plain(f"waterline-{getpass.getuser()}-{os.environ.get(NODE, 'node')}")


def _lock_folder() -> Path:
    """The folder of the locks, in which every user may make one and nobody can remove another's."""
    folder = Path(tempfile.gettempdir()) / _plain(f"waterline-locks-{os.environ.get(NODE, 'node')}")
    try:
        folder.mkdir(exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o1777)
    except OSError as error:
        raise ResultsError(f"{folder}: the machine's locks cannot be kept there ({error.strerror})") from error
    return folder


@contextlib.contextmanager
def _opened(folder: Path, name: str) -> Iterator[int]:
    """The file of a lock, made where it is missing; no link is followed and nothing is written to it."""
    path = folder / f"{_plain(name)}.lock"
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = "is a link" if error.errno == errno.ELOOP else error.strerror
        raise ResultsError(f"{path}: the lock cannot be opened ({why}); remove it") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ResultsError(f"{path}: the lock is no file; remove it")
        yield handle
    finally:
        os.close(handle)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
