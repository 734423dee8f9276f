"""Whether something else disturbed a measurement: what the host did during a window, as numbers and labels.

Two snapshots of counters, before and after, and nothing in between: no thread runs beside what is being timed.
"""

from __future__ import annotations

import functools
import operator
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.host.gpus import gpu_state
from bench.host.topology import cpu_list

PROC = Path("/proc")
#: Variable with the processors that are ours alone on a machine that others measure on too (`0-7`): only they count.
CORES = "WATERLINE_CORES"

#: The kernel counts processor time in ticks of 10 ms, so that less than three ticks say nothing about a short window.
MINIMUM_S = 0.03
#: Seconds of the first look whether the host is quiet: enough to see a third of a core.
FIRST_LOOK_S = 0.1


@dataclass(frozen=True)
class Limits:
    """Limits above which a window is labelled: cores of other processes, shares of its length, switches a second."""

    busy_cores: float = 0.25
    pressure_share: float = 0.05
    steal_share: float = 0.01
    switches_per_s: float = 25.0


LIMITS = Limits()


@dataclass(frozen=True)
class Snapshot:
    """Counters at one moment, all growing; `None` where the host does not tell. Times in seconds."""

    clock_s: float
    host_busy_s: float
    host_steal_s: float | None
    own_cpu_s: float
    pressure_s: float | None
    involuntary_switches: int
    minor_faults: int
    major_faults: int
    throttle_events: int | None
    load_1min: float
    cores: int
    gpu: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HostReport:
    """What happened on the host during a window, and the labels that follow from it (empty: nothing to object to).

    `other_cores` is how many cores' worth of time processes used that are neither this one nor started by it,
    `pressure_share` the part of the window in which some runnable task waited for a processor, `steal_share` the part
    of all processors' time that the hypervisor gave to others. Switches and faults are this process's own.
    """

    seconds: float
    other_cores: float
    pressure_share: float | None
    steal_share: float | None
    load_1min: float
    involuntary_switches: int
    involuntary_switches_per_s: float
    minor_faults: int
    major_faults: int
    throttle_events: int | None
    foreign_gpu_processes: int | None
    gpu_throttle_reasons: int | None
    labels: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {**asdict(self), "labels": list(self.labels)}


@dataclass(frozen=True)
class Quiet:
    """How waiting for a quiet host ended: whether it became quiet, after how long, and what disturbed last."""

    quiet: bool
    waited_s: float
    labels: tuple[str, ...]


class HostWatch:
    """A window on the host; leave it and `report` says what happened inside.

    Args:
        device: `cuda` also looks for foreign GPU processes and throttled GPU clocks.
        read: gives the snapshot; replaced in tests.
        limits: above which the window is labelled.
    """

    def __init__(self, device: str = "cpu", read: Callable[[str], Snapshot] | None = None, limits: Limits = LIMITS):
        self._device, self._limits = device, limits
        self._read = read or snapshot
        self._before: Snapshot | None = None
        self.report: HostReport | None = None

    def __enter__(self) -> HostWatch:
        self._before = self._read(self._device)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._before is not None
        self.report = compare(self._before, self._read(self._device), self._limits)


def wait_until_quiet(
    cap_s: float,
    *,
    device: str = "cpu",
    window_s: float = 1.0,
    limits: Limits = LIMITS,
    read: Callable[[str], Snapshot] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Quiet:
    """Wait until one window passes in which nobody else computes, but never longer than `cap_s` seconds.

    The first look lasts a tenth of a second: on a quiet host a process should not pay for more.

    Args:
        cap_s: give up after so many seconds; 0 looks once.
        device: see `HostWatch`.
        window_s: length of the windows after the first look.
        limits: above which a window is not quiet.
        read: gives the snapshot; replaced in tests.
        sleep: how to wait; replaced in tests.
    """
    take = read or snapshot
    first = before = take(device)
    window = FIRST_LOOK_S
    while True:
        sleep(window)
        after = take(device)
        labels = tuple(label for label in compare(before, after, limits).labels if label in FOREIGN_LABELS)
        waited = after.clock_s - first.clock_s
        if not labels or waited >= cap_s:
            return Quiet(not labels, waited, labels)
        before, window = after, max(min(window_s, cap_s - waited), FIRST_LOOK_S)


#: Labels that speak of others, not of this process; only these are worth waiting for.
FOREIGN_LABELS = frozenset({"host busy", "stolen time", "throttled", "foreign GPU process"})


def compare(before: Snapshot, after: Snapshot, limits: Limits = LIMITS) -> HostReport:
    """The report of the window between two snapshots; a clock that stood still makes a window of a microsecond."""
    seconds = max(after.clock_s - before.clock_s, 1e-6)
    others = (after.host_busy_s - before.host_busy_s) - (after.own_cpu_s - before.own_cpu_s)
    switches = after.involuntary_switches - before.involuntary_switches
    steal = _delta(before.host_steal_s, after.host_steal_s)
    pressure = _delta(before.pressure_s, after.pressure_s)
    numbers = {
        "seconds": seconds,
        "other_cores": max(others, 0.0) / seconds,
        "pressure_share": None if pressure is None else pressure / seconds,
        "steal_share": None if steal is None else steal / (seconds * max(after.cores, 1)),
        "load_1min": after.load_1min,
        "involuntary_switches": switches,
        "involuntary_switches_per_s": switches / seconds,
        "minor_faults": after.minor_faults - before.minor_faults,
        "major_faults": after.major_faults - before.major_faults,
        "throttle_events": _delta(before.throttle_events, after.throttle_events),
        "foreign_gpu_processes": after.gpu.get("foreign_processes"),
        "gpu_throttle_reasons": _either(before.gpu.get("throttle_reasons"), after.gpu.get("throttle_reasons")),
    }
    return HostReport(**numbers, labels=_labels(numbers, limits))


def _labels(numbers: dict[str, Any], limits: Limits) -> tuple[str, ...]:
    """Short names of what disturbed the window."""
    table = (
        ("host busy", "other_cores", limits.busy_cores),
        ("pressure stall", "pressure_share", limits.pressure_share),
        ("stolen time", "steal_share", limits.steal_share),
        ("involuntary switches", "involuntary_switches_per_s", limits.switches_per_s),
        ("paging", "major_faults", 0),
        ("throttled", "throttle_events", 0),
        ("foreign GPU process", "foreign_gpu_processes", 0),
        ("GPU throttled", "gpu_throttle_reasons", 0),
    )
    seconds = numbers["seconds"]
    enough = {
        "other_cores": numbers["other_cores"] * seconds >= MINIMUM_S,
        "steal_share": (numbers["steal_share"] or 0) * seconds >= MINIMUM_S,
    }
    return tuple(name for name, key, limit in table if (numbers[key] or 0) > limit and enough.get(key, True))


def snapshot(device: str = "cpu") -> Snapshot:
    """The host's and this process's counters now; a few milliseconds, more with a GPU or thousands of processes."""
    ours = cpu_list(os.environ.get(CORES, ""))
    times = _times_of(ours) if ours else psutil.cpu_times()
    own = resource.getrusage(resource.RUSAGE_SELF)
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    gpu = gpu_state(device) if device.startswith("cuda") else {}
    return Snapshot(
        clock_s=time.monotonic(),
        host_busy_s=busy,
        host_steal_s=getattr(times, "steal", None),
        own_cpu_s=own.ru_utime + own.ru_stime + _cpu_s_of_children(),
        pressure_s=None if ours else _pressure(PROC / "pressure/cpu"),  # the kernel tells it of all processors alone
        involuntary_switches=own.ru_nivcsw,
        minor_faults=own.ru_minflt,
        major_faults=own.ru_majflt,
        throttle_events=_throttle_events(),
        load_1min=os.getloadavg()[0],
        cores=len(ours) or psutil.cpu_count(logical=True) or 1,
        gpu=gpu,
    )


def _times_of(cpus: list[int]) -> Any:
    """The times of these processors together, as `psutil.cpu_times` has those of all."""
    each = psutil.cpu_times(percpu=True)
    own = [each[cpu] for cpu in cpus if cpu < len(each)]
    return type(own[0])(*(sum(values) for values in zip(*own, strict=True))) if own else psutil.cpu_times()


def _cpu_s_of_children() -> float:
    """Processor time of all that this process started, which is its own work: a client that sends it requests, say.

    The kernel adds a child to its parent's sum when the parent waits for it. Until then, running or ended, its time
    (with that of its own ended children) stands in its own line alone.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:  # it ended meanwhile and was waited for, or the system tells nothing of it
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return float(total)


def _pressure(path: Path) -> float | None:
    """Seconds in which some task waited for a processor since boot, from the kernel's pressure file."""
    try:
        some = path.read_text(encoding="utf-8").splitlines()[0]
        return int(some.rsplit("total=", 1)[1]) / 1e6
    except (OSError, IndexError, ValueError):
        return None


def _throttle_events() -> int | None:
    """Times that any core was slowed for heat since boot; `None` where the kernel does not count it."""
    counts = []
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
        try:
            counts.append(int(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return sum(counts) if counts else None


def _either(before: int | None, after: int | None) -> int | None:
    """The bits seen at one end of the window or the other; what happened inside is for `bench.host.gpu_clocks`."""
    known = [bits for bits in (before, after) if bits is not None]
    return functools.reduce(operator.or_, known) if known else None


def _delta(before: Any, after: Any) -> Any:
    return None if before is None or after is None else after - before
