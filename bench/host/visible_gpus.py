"""Which board, and which MIG instance of it, a CUDA device is: NVML counts all boards, CUDA only the visible ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def nvml() -> Iterator[Any]:
    """The initialised `pynvml` module, shut down afterwards.

    Raises:
        RuntimeError: there is no NVML to talk to; the message says why.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        raise RuntimeError(f"NVML is not available: {error}") from error
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


@dataclass(frozen=True)
class Gpu:
    """A CUDA device in NVML's terms.

    Attributes:
        board: the handle of the whole board, which clocks, power and temperature belong to.
        instance: the handle of the MIG instance that CUDA sees; None on a whole board.
        divided: whether the board is in MIG mode.
    """

    board: Any
    instance: Any = None
    divided: bool = False

    @property
    def own(self) -> Any:
        """The handle of what is ours, which has memory and processes: the MIG instance if any, else the board."""
        return self.board if self.instance is None else self.instance


def index_of(device: str) -> int:
    """The number that CUDA gives a device: 1 for `cuda:1`, 0 for `cuda`."""
    return int(device.partition(":")[2] or 0)


def visible(lib: Any, variables: Mapping[str, str] | None = None) -> list[Gpu]:
    """The CUDA devices of a process with these variables, in the order of `CUDA_VISIBLE_DEVICES`.

    Indices are taken to be NVML's, which is so where all boards are alike or `CUDA_DEVICE_ORDER=PCI_BUS_ID`; `locate`
    asks CUDA itself where it can. As in CUDA, the list ends at the first entry that names nothing, names nothing at all
    if an entry comes twice, and holds one MIG instance at most, which then stands alone (NVIDIA, *CUDA C++ Programming
    Guide*, environment variables; *MIG User Guide*, device enumeration).

    Args:
        lib: the initialised pynvml module.
        variables: the environment; default this process's.
    """
    variables = os.environ if variables is None else variables
    asked = variables.get(VISIBLE)
    if asked is None:
        named = [_named(lib, str(index)) for index in range(lib.nvmlDeviceGetCount())]
        found = [gpu for gpu in named if gpu is not None]  # a board that may not be looked at is none of ours
    else:
        found = _listed(lib, [entry.strip() for entry in asked.split(",")])
    usable = [gpu for gpu in found if gpu.instance is not None or not gpu.divided]
    return next(([gpu] for gpu in usable if gpu.instance is not None), usable)


def _listed(lib: Any, entries: list[str]) -> list[Gpu]:
    """The devices that entries name, up to the first that names none."""
    found: list[Gpu] = []
    if len(set(entries)) < len(entries):
        return found
    for entry in entries:
        gpu = _named(lib, entry)
        if gpu is None:
            break
        found.append(gpu)
    return found


def _named(lib: Any, entry: str) -> Gpu | None:
    try:
        if entry.startswith("MIG-"):
            return _instance(lib, lib.nvmlDeviceGetHandleByUUID(entry))
        if entry.startswith("GPU-"):
            return _whole_or_first(lib, _abbreviated(lib, entry))
        if entry.isdigit() and int(entry) < lib.nvmlDeviceGetCount():
            return _whole_or_first(lib, lib.nvmlDeviceGetHandleByIndex(int(entry)))
    except lib.NVMLError:
        return None
    return None


def _abbreviated(lib: Any, prefix: str) -> Any:
    """The board whose UUID begins so; CUDA takes any beginning that only one board has."""
    fitting = []
    for index in range(lib.nvmlDeviceGetCount()):
        with suppress(lib.NVMLError):  # a board that may not be looked at is none of ours
            handle = lib.nvmlDeviceGetHandleByIndex(index)
            fitting += [handle] if as_text(lib.nvmlDeviceGetUUID(handle)).startswith(prefix) else []
    return fitting[0] if len(fitting) == 1 else lib.nvmlDeviceGetHandleByUUID(prefix)


def _instance(lib: Any, handle: Any) -> Gpu:
    return Gpu(lib.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle), handle, divided=True)


def _whole_or_first(lib: Any, board: Any) -> Gpu:
    """The board, or its first MIG instance where it is divided: that is what CUDA takes."""
    if not is_divided(lib, board):
        return Gpu(board)
    return next(iter(instances_of(lib, board)), Gpu(board, None, divided=True))


def instances_of(lib: Any, board: Any) -> list[Gpu]:
    """The MIG instances of a board in their order; none of one that is not divided."""
    found = []
    for place in range(lib.nvmlDeviceGetMaxMigDeviceCount(board)):
        try:
            found.append(Gpu(board, lib.nvmlDeviceGetMigDeviceHandleByIndex(board, place), divided=True))
        except lib.NVMLError:
            continue
    return found


def is_divided(lib: Any, board: Any) -> bool:
    """Whether a board is in MIG mode."""
    try:
        return bool(lib.nvmlDeviceGetMigMode(board)[0])
    except lib.NVMLError:
        return False


def locate(lib: Any, device: str = "cuda", variables: Mapping[str, str] | None = None) -> Gpu:
    """The board and instance behind a CUDA device: by the UUID that CUDA gives where CUDA runs, else by the variables.

    Args:
        lib: the initialised pynvml module.
        device: `cuda` or `cuda:1`, as CUDA counts visible devices.
        variables: the environment; default this process's.

    Raises:
        LookupError: no such device is visible.
    """
    index, uuid = index_of(device), cuda_uuid(index_of(device))
    if uuid is not None:
        gpu = _by_uuid(lib, uuid, variables)
        if gpu is not None:
            return gpu
    listed = visible(lib, variables)
    if index >= len(listed):
        chosen = (os.environ if variables is None else variables).get(VISIBLE)
        by = "" if chosen is None else f" ({VISIBLE} is set)"
        raise LookupError(f"{device} is not there: {len(listed)} GPU(s) are visible{by}")
    return listed[index]


def _by_uuid(lib: Any, uuid: str, variables: Mapping[str, str] | None) -> Gpu | None:
    """The device with CUDA's UUID, which on a divided board may be the instance's or the board's."""
    for prefix in ("GPU", "MIG"):
        try:
            handle = lib.nvmlDeviceGetHandleByUUID(f"{prefix}-{uuid}")
        except lib.NVMLError:
            continue
        if prefix == "MIG":
            return _instance(lib, handle)
        if not is_divided(lib, handle):
            return Gpu(handle)
        chosen = [gpu for gpu in visible(lib, variables) if gpu.instance is not None and _same(lib, gpu.board, handle)]
        return chosen[0] if chosen else _whole_or_first(lib, handle)
    return None


def _same(lib: Any, one: Any, two: Any) -> bool:
    return as_text(lib.nvmlDeviceGetUUID(one)) == as_text(lib.nvmlDeviceGetUUID(two))


def cuda_uuid(index: int) -> str | None:
    """The UUID of a device by CUDA, where this process already runs CUDA; this never starts it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return None if uuid is None else str(uuid)


def others_on(lib: Any, gpu: Gpu) -> int:
    """How many processes that are none of ours use the device, be it to compute or to draw."""
    return computing_on(lib, gpu) + drawing_on(lib, gpu)


def computing_on(lib: Any, gpu: Gpu) -> int:
    """How many processes that are none of ours compute on the device.

    Ours are this process, its ancestors (a script that handed a module over may hold an idle context) and descendants
    (compilers). In a container NVML gives the host's process numbers, so that our own process looks like a stranger:
    where this process runs CUDA and no number is ours, one is taken to be.
    """
    listed = _listed_by(lib, "nvmlDeviceGetComputeRunningProcesses", gpu)
    if not listed:
        return 0
    strangers = listed - _family()
    hidden = 1 if len(strangers) == len(listed) and runs_cuda() else 0
    return max(len(strangers) - hidden, 0)


def drawing_on(lib: Any, gpu: Gpu) -> int:
    """How many processes of others draw on the device without computing there: mostly an idle desktop."""
    listed = _listed_by(lib, "nvmlDeviceGetGraphicsRunningProcesses", gpu)
    return len(listed - _listed_by(lib, "nvmlDeviceGetComputeRunningProcesses", gpu) - _family()) if listed else 0


def _listed_by(lib: Any, ask: str, gpu: Gpu) -> set[int]:
    """The processes that NVML lists by one of its questions; none where it refuses to tell."""
    try:
        return {int(process.pid) for process in getattr(lib, ask)(gpu.own)}
    except lib.NVMLError:
        return set()


def runs_cuda() -> bool:
    """Whether this process has begun to use CUDA through torch."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _family() -> set[int]:
    """This process, its ancestors and its descendants."""
    me = psutil.Process()
    try:
        relatives = [*me.parents(), *me.children(recursive=True)]
    except psutil.Error:
        relatives = []
    return {me.pid, *(relative.pid for relative in relatives)}


def as_text(value: str | bytes) -> str:
    """NVML's text, which older bindings give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
