"""The GPUs of this machine as NVML tells them, without CUDA or torch: names, limits, clocks and modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.host.gpu_clocks import SLOWDOWNS, event_reasons
from bench.host.visible_gpus import Gpu, as_text, computing_on, drawing_on, locate, nvml, visible

#: NVML's compute modes in words, in the order of its enumeration.
COMPUTE_MODES = ("default", "exclusive thread", "prohibited", "exclusive process")


def read_gpus(*, private: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any], str | None]:
    """The GPUs, the driver they share, and why there are none (or `None`).

    Args:
        private: also give the boards' UUIDs, which identify them.
    """
    try:
        with nvml() as lib:
            driver = {
                "nvidia": as_text(lib.nvmlSystemGetDriverVersion()),
                "cuda_supported": _cuda_version(lib.nvmlSystemGetCudaDriverVersion_v2()),
            }
            gpus = [_describe(lib, index, private) for index in range(lib.nvmlDeviceGetCount())]
            _name_visible(lib, gpus)
    except Exception as error:
        return [], {}, str(error)
    return gpus, driver, None if gpus else "NVML reports no GPU"


def _name_visible(lib: Any, gpus: list[dict[str, Any]]) -> None:
    """Add to each GPU its CUDA name in this process, and the MIG instance that this means; None where hidden."""
    for gpu in gpus:
        gpu.update(visible_as=None, visible_instance=None)
    try:
        seen = [(int(lib.nvmlDeviceGetIndex(found.board)), _instance_name(lib, found)) for found in visible(lib)]
    except Exception as error:
        for gpu in gpus:
            gpu["unreadable"]["visible_as"] = str(error)
        return
    by_index = {gpu["index"]: gpu for gpu in gpus}
    for number, (index, instance) in enumerate(seen):
        by_index[index].update(visible_as=f"cuda:{number}", visible_instance=instance)


def _instance_name(lib: Any, gpu: Gpu) -> str | None:
    return None if gpu.instance is None else as_text(lib.nvmlDeviceGetName(gpu.instance))


def _describe(lib: Any, index: int, private: bool) -> dict[str, Any]:
    """One GPU; what NVML refuses is `None` with a reason under `unreadable`, a whole board's under `board`."""
    unreadable: dict[str, str] = {}
    gpu: dict[str, Any] = {"index": index}
    handle = None
    try:
        handle = lib.nvmlDeviceGetHandleByIndex(index)
    except Exception as error:  # of another tenant: the other boards can be told all the same
        unreadable["board"] = str(error)
    for name, read in _questions(lib, handle, private).items():
        gpu[name] = None
        if "board" in unreadable:
            continue
        try:
            gpu[name] = read()
        except Exception as error:
            unreadable[name] = str(error)
    return {**gpu, "unreadable": unreadable}


def _questions(lib: Any, handle: Any, private: bool) -> dict[str, Callable[[], Any]]:
    """What to ask about a GPU: name of the answer to the call that gives it."""
    identity: dict[str, Callable[[], Any]] = {"uuid": lambda: as_text(lib.nvmlDeviceGetUUID(handle))} if private else {}
    return {
        "name": lambda: as_text(lib.nvmlDeviceGetName(handle)),
        "memory_bytes": lambda: int(lib.nvmlDeviceGetMemoryInfo(handle).total),
        "compute_capability": lambda: ".".join(map(str, lib.nvmlDeviceGetCudaComputeCapability(handle))),
        "vbios": lambda: as_text(lib.nvmlDeviceGetVbiosVersion(handle)),
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
        **identity,
    }


def _mig_names(lib: Any, handle: Any) -> list[str]:
    """Names of the MIG devices of a GPU, empty where MIG is off or unknown."""
    names = []
    try:
        for index in range(lib.nvmlDeviceGetMaxMigDeviceCount(handle)):
            names.append(as_text(lib.nvmlDeviceGetName(lib.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))))
    except lib.NVMLError:
        return names
    return names


def count_visible() -> tuple[int, str]:
    """How many GPUs CUDA will see in this process, and why there are none (empty if there are)."""
    try:
        with nvml() as lib:
            boards, count = lib.nvmlDeviceGetCount(), len(visible(lib))
    except Exception as error:
        return 0, str(error)
    if count:
        return count, ""
    return 0, "CUDA_VISIBLE_DEVICES hides every GPU" if boards else "the NVIDIA driver reports no GPU"


def free_memory(device: str) -> int | None:
    """Bytes that are free on a CUDA device now, by the driver; None where it does not tell."""
    try:
        with nvml() as lib:
            return int(lib.nvmlDeviceGetMemoryInfo(locate(lib, device).own).free)
    except Exception:
        return None


def gpu_state(device: str = "cuda") -> dict[str, Any]:
    """Who else computes on a CUDA device and what holds its clocks back; empty without NVML.

    A process that only draws does not count: a desktop is always there, and nobody can wait for it to go.

    Args:
        device: `cuda` or `cuda:1`; other GPUs of the machine do not matter.
    """
    try:
        with nvml() as lib:
            gpu = locate(lib, device)
            reasons = event_reasons(lib, gpu.board)
            slowed = None if reasons is None else reasons & SLOWDOWNS
            return {"foreign_processes": computing_on(lib, gpu), "throttle_reasons": slowed}
    except Exception:
        return {}


def is_drawn_on(device: str) -> bool:
    """Whether processes that are none of ours draw on a CUDA device; on a CPU and without NVML nobody does."""
    if device == "cpu":
        return False
    try:
        with nvml() as lib:
            return drawing_on(lib, locate(lib, device)) > 0
    except Exception:
        return False


def _cuda_version(number: int) -> str:
    """NVML's 12040 as `12.4`."""
    return f"{number // 1000}.{number % 1000 // 10}"
