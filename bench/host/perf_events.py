"""Counters of the processor by `perf_event_open`: cycles, instructions and last-level cache misses of this process.

Written against the kernel's interface (man 2 perf_event_open), through ctypes: nothing is installed. Every thread that
is there is followed, and those that it starts. Only user code counts, which the kernel allows without a privilege up to
`kernel.perf_event_paranoid` 2.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Name -> (type, configuration): generic events of the hardware, and of the kernel, which every machine has.
HARDWARE = {"cycles": (0, 0), "instructions": (0, 1), "llc_misses": (0, 3)}
SOFTWARE = {"task_clock_ns": (1, 1), "page_faults": (1, 2)}
_SYSCALL = {"x86_64": 298, "aarch64": 241}
_ENABLE, _DISABLE, _RESET = 0x2400, 0x2401, 0x2403
_DISABLED, _INHERIT, _NO_KERNEL, _NO_HYPERVISOR = 1 << 0, 1 << 1, 1 << 5, 1 << 6
_TIMES = 1 | 2  # time enabled and time running come with the value
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
_OLDEST_FORM = 64  # bytes of the attributes in their first version, which every kernel reads


class CountersUnavailable(Exception):
    """The counters cannot be read here; the message says why and what helps."""


@dataclass(frozen=True)
class Count:
    """What a counter says of a stretch: its value, scaled by `share` where it ran only part of the time."""

    value: float
    share: float


def _attributes(kind: int, configuration: int) -> bytes:
    flags = _DISABLED | _INHERIT | _NO_KERNEL | _NO_HYPERVISOR
    packed = struct.pack("=IIQQQQQ", kind, _OLDEST_FORM, configuration, 0, 0, _TIMES, flags)
    return packed.ljust(_OLDEST_FORM, b"\0")


def open_event(kind: int, configuration: int, thread: int) -> int:
    """A file descriptor that counts an event of a thread on whatever core it runs.

    Raises:
        CountersUnavailable: this system has no such call, or the kernel refuses it.
    """
    number = _SYSCALL.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None:
        raise CountersUnavailable(f"{platform.system()} on {platform.machine()} has no perf_event_open that we know")
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(_attributes(kind, configuration), _OLDEST_FORM)
    found: int = libc.syscall(number, attributes, thread, -1, -1, 0)
    if found < 0:
        raise CountersUnavailable(_why(ctypes.get_errno()))
    os.set_inheritable(found, False)
    return found


def _why(code: int) -> str:
    if code in (errno.EACCES, errno.EPERM):
        return (
            f"the kernel forbids it (kernel.perf_event_paranoid is {_paranoid()}); set it to 2 or lower, or in a "
            "container allow perf_event_open (--cap-add PERFMON)"
        )
    if code in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
        return "this machine shows no hardware counters to its system, as most virtual machines"
    return f"perf_event_open failed: {os.strerror(code)}"


def _paranoid() -> str:
    try:
        return _PARANOID.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


class Counters:
    """Events of all threads of this process, opened once, counted from `start` to `stop`."""

    def __init__(self, events: Mapping[str, tuple[int, int]]) -> None:
        self._descriptors: dict[str, list[int]] = {}
        try:
            for name, (kind, configuration) in events.items():
                self._descriptors[name] = [open_event(kind, configuration, thread) for thread in _threads()]
        except CountersUnavailable:
            self.close()
            raise

    def start(self) -> None:
        """Set the counters to zero and let them run."""
        for descriptor in self._all():
            fcntl.ioctl(descriptor, _RESET, 0)
        for descriptor in self._all():
            fcntl.ioctl(descriptor, _ENABLE, 0)

    def stop(self) -> dict[str, Count]:
        """Stop them; the count of each event over all threads.

        Raises:
            CountersUnavailable: a counter never ran, because others had the hardware's.
        """
        for descriptor in self._all():
            fcntl.ioctl(descriptor, _DISABLE, 0)
        return {name: _total(name, descriptors) for name, descriptors in self._descriptors.items()}

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._all():
            os.close(descriptor)
        self._descriptors = {}

    def _all(self) -> Iterator[int]:
        for descriptors in self._descriptors.values():
            yield from descriptors


def _threads() -> list[int]:
    return sorted(int(path.name) for path in Path("/proc/self/task").iterdir())


def _total(name: str, descriptors: Iterable[int]) -> Count:
    values, enabled, running = 0.0, 0, 0
    for descriptor in descriptors:
        value, was_enabled, ran = struct.unpack("=QQQ", os.read(descriptor, 24))
        values += value * (was_enabled / ran) if ran else 0.0
        enabled, running = enabled + was_enabled, running + ran
    if not running:
        raise CountersUnavailable(f"the counter of {name} never ran: other programs hold the hardware's counters")
    return Count(values, running / enabled)


@contextmanager
def counting(events: Mapping[str, tuple[int, int]]) -> Iterator[Counters]:
    """Opened counters, closed again at the end.

    Raises:
        CountersUnavailable: they cannot be opened here.
    """
    counters = Counters(events)
    try:
        yield counters
    finally:
        counters.close()
