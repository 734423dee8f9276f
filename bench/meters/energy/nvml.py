"""Joules of an NVIDIA board: the driver's cumulative counter where there is one, sampled power otherwise."""

from __future__ import annotations

from typing import Any

from bench.host.gpu_clocks import board_now
from bench.host.visible_gpus import Gpu, locate, others_on
from bench.meters.energy.backend import Unavailable
from bench.meters.energy.counter import Counter, CounterBackend
from bench.meters.energy.power import PowerBackend

_NO_DRIVER = "needs an NVIDIA GPU, its driver and nvidia-ml-py"


class Board:
    """One GPU board as NVML tells of it."""

    def __init__(self, lib: Any, gpu: Gpu):
        self.lib, self.gpu, self.handle = lib, gpu, gpu.board

    def millijoules(self) -> int:
        """The cumulative counter, since the driver was loaded."""
        return int(self.lib.nvmlDeviceGetTotalEnergyConsumption(self.handle))

    def watts(self) -> float:
        """The board's power as the driver reports it: an average or a sample, by generation."""
        return float(self.lib.nvmlDeviceGetPowerUsage(self.handle)) / 1e3

    def foreign(self) -> str | None:
        """Processes of others on the board, in words; or None."""
        others = others_on(self.lib, self.gpu)
        return f"{others} other process(es) on the GPU" if others else None

    def conditions(self) -> dict[str, Any]:
        """Power limit, clocks, temperature, power and throttle reasons; what NVML refuses is None."""
        try:
            limit = self.lib.nvmlDeviceGetEnforcedPowerLimit(self.handle) / 1e3
        except self.lib.NVMLError:
            limit = None
        return {"power_limit_w": limit, **board_now(self.lib, self.handle)}


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
        gpu = locate(lib, device)
    except Exception as error:  # pynvml raises its own classes, and may be missing or without a driver
        return Unavailable(f"NVML is not available: {error}", _NO_DRIVER)
    if gpu.divided:
        why = "the GPU is divided by MIG and its counter is the board's: it holds the energy of all instances"
        return Unavailable(why, "use a GPU without MIG", shared=True)
    board = Board(lib, gpu)
    foreign = board.foreign()
    if foreign:
        return Unavailable(f"shared: {foreign}", "wait until the GPU is free", shared=True)
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
