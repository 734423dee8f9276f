"""A simulated NVML: boards, MIG instances, processes, clocks and reasons; setting anything fails the test."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class Instance:
    """A MIG instance."""

    uuid: str
    pids: tuple[int, ...] = ()
    drawing: tuple[int, ...] = ()
    board: Any = None


@dataclass
class Board:
    """A board with its answers; of `sm_mhz` and `reasons` each question takes the next; `locked` refuses to open."""

    uuid: str
    pids: tuple[int, ...] = ()
    drawing: tuple[int, ...] = ()
    divided: bool = False
    instances: list[Instance] = field(default_factory=list)
    sm_mhz: list[int] = field(default_factory=lambda: [1980])
    reasons: list[int] = field(default_factory=lambda: [0])
    free: int = 70 << 30
    locked: bool = False
    bus: str = ""
    name: str = "NVIDIA H100"

    def __post_init__(self) -> None:
        for instance in self.instances:
            instance.board = self


def _next(values: list[Any]) -> Any:
    return values.pop(0) if len(values) > 1 else values[0]


class Nvml:
    """Enough of pynvml; `cost` is called at every question, to make questions take time."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        """What NVML raises."""

    def __init__(self, *boards: Board, old: bool = False, cost: Any = lambda: None):
        self.boards, self.old, self.cost, self.asked = list(boards), old, cost, 0

    def __getattr__(self, name: str) -> Any:
        assert "Set" not in name and "Reset" not in name, f"{name}: nothing may change the card's settings"

        def refuse(*_: Any) -> None:
            raise self.NVMLError("Not Supported")

        return refuse

    def _tick(self) -> None:
        self.asked += 1
        self.cost()

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 13000

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        if self.boards[index].locked:
            raise self.NVMLError("Insufficient Permissions")
        return self.boards[index]

    def nvmlDeviceGetIndex(self, handle: Board) -> int:
        return self.boards.index(handle)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        for board in self.boards:
            for handle in (board, *board.instances):
                if handle.uuid == uuid:
                    return handle
        raise self.NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return handle.name if isinstance(handle, Board) else f"{handle.board.name} MIG 1g.10gb"

    def nvmlDeviceGetPciInfo(self, handle: Board) -> Any:
        if not handle.bus:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(busId=handle.bus)

    def nvmlDeviceGetMigMode(self, handle: Board) -> list[int]:
        return [int(handle.divided), int(handle.divided)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Board) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Board, place: int) -> Instance:
        if place >= len(handle.instances):
            raise self.NVMLError("Not Found")
        return handle.instances[place]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Instance) -> Board:
        return handle.board

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=1 << 20) for pid in handle.pids]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Any) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=1 << 20) for pid in handle.drawing]

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        return SimpleNamespace(total=80 << 30, free=handle.free)

    def nvmlDeviceGetClockInfo(self, handle: Board, kind: int) -> int:
        self._tick()
        return _next(handle.sm_mhz) if kind == self.NVML_CLOCK_SM else 2619

    def nvmlDeviceGetTemperature(self, handle: Board, kind: int) -> int:
        self._tick()
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetPowerUsage(self, handle: Board) -> int:
        self._tick()
        return 312_500

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Board) -> int:
        return 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Board) -> int:
        return 5_000

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Board) -> int:
        self._tick()
        if self.old:
            raise self.NVMLError("Function Not Found")
        return _next(handle.reasons)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Board) -> int:
        return _next(handle.reasons)

    @contextmanager
    def session(self) -> Any:
        """Stands for `bench.host.visible_gpus.nvml`."""
        yield self
