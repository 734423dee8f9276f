"""Joules of an NVIDIA board: the driver's cumulative counter where there is one, sampled power otherwise."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from bench.meters.energy.backend import Unavailable
from bench.meters.energy.counter import Counter, CounterBackend
from bench.meters.energy.power import PowerBackend

_NO_DRIVER = "needs an NVIDIA GPU, its driver and nvidia-ml-py"


class Board:
    """One GPU board as NVML tells of it."""

    def __init__(self, lib: Any, handle: Any):
        self.lib, self.handle = lib, handle

    def millijoules(self) -> int:
        """The cumulative counter, since the driver was loaded."""
        return int(self.lib.nvmlDeviceGetTotalEnergyConsumption(self.handle))

    def watts(self) -> float:
        """The board's power as the driver reports it: an average or a sample, by generation."""
        return float(self.lib.nvmlDeviceGetPowerUsage(self.handle)) / 1e3

    def foreign(self) -> str | None:
        """Processes of others on the board, in words; or None.

        In a container NVML gives the host's process numbers: one unknown process on a board where ours is not listed
        is taken to be ours.
        """
        listed: set[int] = set()
        for ask in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            with contextlib.suppress(self.lib.NVMLError):
                listed |= {process.pid for process in getattr(self.lib, ask)(self.handle)}
        others = listed - {os.getpid()}
        if os.getpid() not in listed and len(others) == 1:
            others = set()
        return f"{len(others)} other process(es) on the GPU" if others else None

    def mig(self) -> bool:
        """Whether the board is divided into instances."""
        try:
            return bool(self.lib.nvmlDeviceGetMigMode(self.handle)[0])
        except self.lib.NVMLError:
            return False

    def conditions(self) -> dict[str, Any]:
        """Power limit, clocks, temperature and throttle reasons; what NVML refuses is None."""
        lib, handle = self.lib, self.handle
        questions: dict[str, Callable[[], Any]] = {
            "power_limit_w": lambda: lib.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
            "sm_mhz": lambda: lib.nvmlDeviceGetClockInfo(handle, lib.NVML_CLOCK_SM),
            "memory_mhz": lambda: lib.nvmlDeviceGetClockInfo(handle, lib.NVML_CLOCK_MEM),
            "temperature_c": lambda: lib.nvmlDeviceGetTemperature(handle, lib.NVML_TEMPERATURE_GPU),
            "throttle_reasons": lambda: lib.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        }
        found: dict[str, Any] = {}
        for name, ask in questions.items():
            try:
                found[name] = ask()
            except lib.NVMLError:
                found[name] = None
        return found


class NvmlCounter(CounterBackend):
    """The board's cumulative counter; sampled power beside it as a cross-check."""

    sampled = True  # the driver adds up samples of the board's sensor, on some boards of a part of the time only

    def __init__(self, board: Board):
        super().__init__("nvml", "gpu_board", {"board": Counter(board.millijoules, 1e-3)}, "NVML cumulative counter")
        self.board = board
        self.check = NvmlPower(board)

    def conditions(self) -> dict[str, Any]:
        """The board's clocks, limit and temperature."""
        return {**super().conditions(), **self.board.conditions()}

    def shared_with(self) -> str | None:
        """Other processes on the board."""
        return self.board.foreign()


class NvmlPower(PowerBackend):
    """The board's power, sampled."""

    def __init__(self, board: Board):
        super().__init__("nvml_power", "gpu_board", board.watts, method_note="NVML power, sampled and integrated")
        self.board = board

    def conditions(self) -> dict[str, Any]:
        """The board's clocks, limit and temperature."""
        return {**super().conditions(), **self.board.conditions()}

    def shared_with(self) -> str | None:
        """Other processes on the board."""
        return self.board.foreign()


def find(device: str = "cuda", lib: Any = None) -> NvmlCounter | NvmlPower | Unavailable:
    """The board behind a CUDA device by its counter, or by its power where it has none.

    Args:
        device: `cuda` or `cuda:1`, as torch counts visible devices.
        lib: the pynvml module; replaced in tests.
    """
    try:
        lib = lib or _pynvml()
        lib.nvmlInit()
        board = Board(lib, _handle(lib, device))
    except Exception as error:  # pynvml raises its own classes, and may be missing or without a driver
        return Unavailable(f"NVML is not available: {error}", _NO_DRIVER)
    if board.mig():
        return Unavailable("the GPU is divided by MIG: its energy is that of all instances", "use a GPU without MIG")
    foreign = board.foreign()
    if foreign:
        return Unavailable(f"shared: {foreign}", "wait until the GPU is free")
    return _best(board)


def _best(board: Board) -> NvmlCounter | NvmlPower | Unavailable:
    try:
        board.millijoules()
        return NvmlCounter(board)
    except board.lib.NVMLError as no_counter:
        try:
            board.watts()
            return NvmlPower(board)
        except board.lib.NVMLError as no_power:
            return Unavailable(f"the board tells neither energy ({no_counter}) nor power ({no_power})")


def _pynvml() -> Any:
    import pynvml

    return pynvml


def _handle(lib: Any, device: str) -> Any:
    """NVML's handle of a device that torch counts, found by its UUID: visible devices may be renumbered."""
    import torch

    index = int(device.partition(":")[2] or 0)
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None) if torch.cuda.is_available() else None
    if uuid is None:
        return lib.nvmlDeviceGetHandleByIndex(index)
    return lib.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
