"""Which processors are near a GPU, and how a machine's processors are shared out among its GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.host.visible_gpus import Gpu, as_text, instances_of, is_divided

ROOT = Path("/")


@dataclass(frozen=True)
class Share:
    """The processors that are a GPU's own among all that measure on the machine; or none, and why.

    Attributes:
        cpus: logical processors by number, whole cores; empty where they cannot be shared out.
        of: how many GPUs or MIG instances of the machine may measure at once.
        reason: why there are none, or why they are not those near the GPU; empty where they are.
    """

    cpus: tuple[int, ...]
    of: int
    reason: str = ""


def share(lib: Any, gpu: Gpu, allowed: Iterable[int], root: Path = ROOT) -> Share:
    """The processors for one of a machine's GPUs, no two GPUs with one in common.

    GPUs that hang on one side of the machine (PCI's `local_cpulist`: a NUMA node) share its cores in equal parts, in
    the order of their addresses; a MIG instance counts as a GPU. Parts are equal all over the machine, so that rows of
    all its slots are of one kind of machine, and hold whole cores with all their threads.

    Args:
        lib: the initialised pynvml module.
        gpu: whose share it is.
        allowed: processors that this process may use.
        root: where `/sys` is looked for.
    """
    usable, own = frozenset(allowed), identity(lib, gpu)
    near = {identity(lib, device): near_processors(lib, device, root) & usable for device in devices(lib)}
    if own not in near:
        return Share((), len(near), "NVML does not list the GPU among the machine's")
    told = _part_it(near.values())
    sides: dict[frozenset[int], list[str]] = {}
    for name, processors in near.items():
        sides.setdefault(processors if told else usable, []).append(name)
    each = min(len(cores(side, root)) // len(names) for side, names in sides.items())
    if each == 0:
        return Share((), len(near), f"{len(cores(usable, root))} cores cannot be shared out among {len(near)} GPUs")
    side, names = next(item for item in sides.items() if own in item[1])
    place = names.index(own) * each
    chosen = sorted(cpu for core in cores(side, root)[place : place + each] for cpu in core)
    return Share(tuple(chosen), len(near), "" if told else "the kernel does not say which processors are near each GPU")


def _part_it(sides: Iterable[frozenset[int]]) -> bool:
    """Whether these are sides of a machine: none empty, and any two the same or without one processor in common."""
    known = set(sides)
    return all(known) and sum(map(len, known)) == len(frozenset().union(*known))


def devices(lib: Any) -> list[Gpu]:
    """Every device that can measure by itself, by address: whole boards, and the instances of divided ones."""
    boards = []
    for index in range(lib.nvmlDeviceGetCount()):
        try:
            board = lib.nvmlDeviceGetHandleByIndex(index)
        except lib.NVMLError:  # of another tenant
            continue
        boards.append((address(lib, board) or "", index, board))
    found: list[Gpu] = []
    for _, _, board in sorted(boards, key=lambda item: item[:2]):
        found += instances_of(lib, board) if is_divided(lib, board) else [Gpu(board)]
    return found


def identity(lib: Any, gpu: Gpu) -> str:
    """What tells a device from all others of the machine: its UUID, or its index where it has none."""
    try:
        return as_text(lib.nvmlDeviceGetUUID(gpu.own))
    except lib.NVMLError:
        return f"index {lib.nvmlDeviceGetIndex(gpu.board)}"


def address(lib: Any, board: Any) -> str | None:
    """The board's address on the PCI bus as the kernel spells it, `0000:3b:00.0`; None where NVML does not tell."""
    try:
        text = as_text(lib.nvmlDeviceGetPciInfo(board).busId)
    except lib.NVMLError:
        return None
    match = re.fullmatch(r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])", text)
    return f"{match[1][-4:]}:{match[2]}".lower() if match else None


def near_processors(lib: Any, gpu: Gpu, root: Path = ROOT) -> frozenset[int]:
    """The logical processors near a GPU by the kernel; none where it does not say."""
    where = address(lib, gpu.board)
    if where is None:
        return frozenset()
    return frozenset(cpu_list(_read(root / "sys/bus/pci/devices" / where / "local_cpulist")))


def cores(cpus: Iterable[int], root: Path = ROOT) -> list[tuple[int, ...]]:
    """The processors by physical core, threads of one core together, in order of their first."""
    wanted = set(cpus)
    found: dict[int, tuple[int, ...]] = {}
    for cpu in sorted(wanted):
        text = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings = tuple(sorted(set(cpu_list(text)) & wanted)) or (cpu,)
        found.setdefault(siblings[0], siblings)
    return [found[first] for first in sorted(found)]


def cpu_list(text: str) -> list[int]:
    """The numbers of a kernel list such as `0-3,8`; none of a text that is no such list."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return []
    ends = [part.split("-") for part in text.split(",")]
    return [number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)]


def as_list(cpus: Sequence[int]) -> str:
    """Numbers as a kernel list: `0-3,8`."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
