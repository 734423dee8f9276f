"""What this machine lets us measure, what not, and what would help: the rows of `job=doctor`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path("/")


@dataclass(frozen=True)
class Capability:
    """One thing to measure: how it is done here, or why not and what would help."""

    what: str
    available: bool
    how: str | None = None
    why_not: str | None = None
    remedy: str | None = None


def capabilities(root: Path = ROOT) -> list[dict[str, Any]]:
    """One row per capability: `what`, `available`, `how`, `why_not`, `remedy`.

    Args:
        root: where `/proc` and `/sys` are looked for.
    """
    rows: list[Capability] = []
    for look in _LOOKS:
        try:
            rows += look(root)
        except OSError as error:
            rows.append(Capability(look.__name__.strip("_").replace("_", " "), False, why_not=str(error)))
    return [asdict(row) for row in rows]


def _yes(what: str, how: str, remedy: str | None = None) -> list[Capability]:
    return [Capability(what, True, how=how, remedy=remedy)]


def _no(what: str, why_not: str, remedy: str) -> list[Capability]:
    return [Capability(what, False, why_not=why_not, remedy=remedy)]


def _cores(root: Path) -> list[Capability]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    how = f"{usable} usable, torch uses {torch.get_num_threads()} unless told otherwise"
    return _yes("cores", how, "few cores: keep threads at 1" if usable <= 4 else None)


def _dtypes(root: Path) -> list[Capability]:
    """Which reduced precisions the processor multiplies natively; the others are slow, not wrong."""
    text = _read(root / "proc/cpuinfo") or ""
    flags = set(next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), []))
    kinds = {
        "bf16": {"avx512_bf16", "amx_bf16"},
        "fp16": {"avx512_fp16", "amx_fp16"},
        "int8": {"avx512_vnni", "avx_vnni", "amx_int8"},
    }
    rows = []
    for dtype, names in kinds.items():
        found = sorted(names & flags)
        rows += (
            _yes(f"native {dtype} arithmetic (CPU)", ", ".join(found))
            if found
            else _no(
                f"native {dtype} arithmetic (CPU)",
                "the processor has no such instructions",
                f"{dtype} rows run here, but say little about processors that have them",
            )
        )
    return rows


def _gpu(root: Path) -> list[Capability]:
    if torch.cuda.is_available():
        return _yes("GPU", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
    why = "this torch is built without CUDA" if torch.version.cuda is None else "CUDA finds no device"
    return _no("GPU", why, "run on a machine with a GPU and a CUDA build of torch")


def _gpu_clocks(root: Path) -> list[Capability]:
    from bench.host.gpus import read_gpus

    gpus, driver, why = read_gpus()
    if why is not None:
        return _no("GPU clocks and throttle reasons", why, "needs an NVIDIA driver")
    return _yes("GPU clocks and throttle reasons", f"NVML, driver {driver.get('nvidia')}, {len(gpus)} GPU(s)")


def _energy(root: Path) -> list[Capability]:
    """Each energy backend on its own, so that the reason for every one that fails is seen."""
    from bench.meters import energy

    rows = []
    for what, found in energy.survey(root):
        rows += (
            _no(what, found.reason, found.remedy)
            if isinstance(found, energy.Unavailable)
            else _yes(what, f"{found.name}, scope {found.scope}")
        )
    return rows


def _cpu_clock(root: Path) -> list[Capability]:
    folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
    governor = _read(folder / "scaling_governor")
    if governor is None:
        return _no("CPU clock", "no cpufreq interface", "virtual machines hide it; use bare metal to watch the clock")
    remedy = None if governor == "performance" else "the governor 'performance' makes times steadier"
    return _yes("CPU clock", f"cpufreq, governor {governor}", remedy)


def _pressure(root: Path) -> list[Capability]:
    if _read(root / "proc/pressure/cpu") is not None:
        return _yes("pressure stall information", "/proc/pressure")
    return _no("pressure stall information", "no /proc/pressure", "a kernel of 4.20 or later, booted with psi=1")


def _stolen_time(root: Path) -> list[Capability]:
    line = (_read(root / "proc/stat") or "").splitlines()
    fields = line[0].split() if line else []
    if len(fields) > 8:
        return _yes("stolen time", "/proc/stat")
    return _no("stolen time", "no such column in /proc/stat", "needs Linux")


def _perf_counters(root: Path) -> list[Capability]:
    if not (root / "sys/bus/event_source/devices/cpu").exists():
        why, remedy = "the kernel shows no hardware counters", "virtual machines hide them; use bare metal"
        return _no("hardware performance counters", why, remedy)
    level = int(_read(root / "proc/sys/kernel/perf_event_paranoid") or 4)
    if level > 2 and os.geteuid() != 0:
        remedy = "as root: sysctl kernel.perf_event_paranoid=2"
        return _no("hardware performance counters", f"perf_event_paranoid is {level}", remedy)
    return _yes("hardware performance counters", f"perf events, paranoid level {level}")


def _resident_peak(root: Path) -> list[Capability]:
    import platform

    if platform.libc_ver()[0] != "glibc":
        return _no("steady allocator", "not glibc: its thresholds cannot be pinned", "use a glibc-based system")
    if not os.access(root / "proc/self/clear_refs", os.W_OK):
        why = "/proc/self/clear_refs cannot be written, so the peak cannot be reset"
        return _no("resident memory peak", why, "a kernel with CONFIG_PROC_PAGE_MONITOR")
    return _yes("resident memory peak", "VmHWM with pinned allocator thresholds")


def _quiet_host(root: Path) -> list[Capability]:
    from bench.host.hostwatch import wait_until_quiet

    found = wait_until_quiet(1.0, window_s=0.5)
    if found.quiet:
        return _yes("quiet host", "nobody else computed for half a second")
    remedy = "stop other work; rows are labelled as long as it goes on"
    return _no("quiet host", ", ".join(found.labels), remedy)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


_LOOKS: tuple[Callable[[Path], list[Capability]], ...] = (
    _cores,
    _dtypes,
    _gpu,
    _gpu_clocks,
    _energy,
    _cpu_clock,
    _pressure,
    _stolen_time,
    _perf_counters,
    _resident_peak,
    _quiet_host,
)
