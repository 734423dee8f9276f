"""The GPUs of this machine as NVML tells them, without CUDA or torch: names, limits, clocks and modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: NVML's compute modes in words, in the order of its enumeration.
COMPUTE_MODES = ("default", "exclusive thread", "prohibited", "exclusive process")


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


def read_gpus(*, private: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any], str | None]:
    """The GPUs, the driver they share, and why there are none (or `None`).

    Args:
        private: also give the boards' UUIDs, which identify them.
    """
    try:
        with nvml() as lib:
            driver = {
                "nvidia": _text(lib.nvmlSystemGetDriverVersion()),
                "cuda_supported": _cuda_version(lib.nvmlSystemGetCudaDriverVersion_v2()),
            }
            handles = [lib.nvmlDeviceGetHandleByIndex(i) for i in range(lib.nvmlDeviceGetCount())]
            gpus = [_describe(lib, handle, index, private) for index, handle in enumerate(handles)]
    except Exception as error:
        return [], {}, str(error)
    return gpus, driver, None if gpus else "NVML reports no GPU"


def _describe(lib: Any, handle: Any, index: int, private: bool) -> dict[str, Any]:
    """One GPU; what NVML refuses to tell is `None` with the reason under `unreadable`."""
    unreadable: dict[str, str] = {}
    gpu: dict[str, Any] = {"index": index}
    for name, read in _questions(lib, handle).items():
        try:
            gpu[name] = read()
        except Exception as error:
            gpu[name] = None
            unreadable[name] = str(error)
    if private:
        gpu["uuid"] = _text(lib.nvmlDeviceGetUUID(handle))
    return {**gpu, "unreadable": unreadable}


def _questions(lib: Any, handle: Any) -> dict[str, Callable[[], Any]]:
    """What to ask about a GPU: name of the answer to the call that gives it."""
    return {
        "name": lambda: _text(lib.nvmlDeviceGetName(handle)),
        "memory_bytes": lambda: int(lib.nvmlDeviceGetMemoryInfo(handle).total),
        "compute_capability": lambda: ".".join(map(str, lib.nvmlDeviceGetCudaComputeCapability(handle))),
        "vbios": lambda: _text(lib.nvmlDeviceGetVbiosVersion(handle)),
        "power_limit_w": lambda: lib.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        "power_limit_default_w": lambda: lib.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000,
        "max_sm_mhz": lambda: int(lib.nvmlDeviceGetMaxClockInfo(handle, lib.NVML_CLOCK_SM)),
        "max_memory_mhz": lambda: int(lib.nvmlDeviceGetMaxClockInfo(handle, lib.NVML_CLOCK_MEM)),
        "application_sm_mhz": lambda: int(lib.nvmlDeviceGetApplicationsClock(handle, lib.NVML_CLOCK_SM)),
        "ecc": lambda: bool(lib.nvmlDeviceGetEccMode(handle)[0]),
        "mig": lambda: bool(lib.nvmlDeviceGetMigMode(handle)[0]),
        "mig_devices": lambda: _mig_names(lib, handle),
        "compute_mode": lambda: COMPUTE_MODES[lib.nvmlDeviceGetComputeMode(handle)],
        "persistence": lambda: bool(lib.nvmlDeviceGetPersistenceMode(handle)),
        "pcie_generation_max": lambda: int(lib.nvmlDeviceGetMaxPcieLinkGeneration(handle)),
        "pcie_width_max": lambda: int(lib.nvmlDeviceGetMaxPcieLinkWidth(handle)),
    }


def _mig_names(lib: Any, handle: Any) -> list[str]:
    """Names of the MIG devices of a GPU, empty where MIG is off or unknown."""
    names = []
    try:
        for index in range(lib.nvmlDeviceGetMaxMigDeviceCount(handle)):
            names.append(_text(lib.nvmlDeviceGetName(lib.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))))
    except lib.NVMLError:
        return names
    return names


def gpu_state(own_pids: frozenset[int] = frozenset()) -> dict[str, Any]:
    """Who else computes on the GPUs and what holds their clocks back, over all GPUs; empty without NVML.

    A process whose number is not ours counts as foreign. In a container NVML gives numbers of the host, so that our
    own process may look foreign: a single process on a GPU where ours is not listed is taken to be ours.

    Args:
        own_pids: process numbers that belong to this measurement.
    """
    foreign, reasons = 0, 0
    try:
        with nvml() as lib:
            for index in range(lib.nvmlDeviceGetCount()):
                handle = lib.nvmlDeviceGetHandleByIndex(index)
                pids = {process.pid for process in lib.nvmlDeviceGetComputeRunningProcesses(handle)}
                unlisted = 0 if pids & own_pids else 1
                foreign += max(len(pids - own_pids) - unlisted, 0)
                reasons |= int(lib.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) & _slowdowns(lib)
    except Exception:
        return {}
    return {"foreign_processes": foreign, "throttle_reasons": reasons}


def _slowdowns(lib: Any) -> int:
    """The bits of NVML's clock reasons that mean the hardware is held back; idle and user settings are not among them."""
    return int(
        lib.nvmlClocksThrottleReasonSwPowerCap
        | lib.nvmlClocksThrottleReasonHwSlowdown
        | lib.nvmlClocksThrottleReasonSwThermalSlowdown
        | lib.nvmlClocksThrottleReasonHwThermalSlowdown
        | lib.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
    )


def _cuda_version(number: int) -> str:
    """NVML's 12040 as `12.4`."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
