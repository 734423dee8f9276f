"""Which source of joules to read for a device, and why the others are not read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.host.hostwatch import HostWatch
from bench.meters.energy import estimate, external, meter, nvml, rapl, zeus
from bench.meters.energy.backend import Backend, EnergyError, Unavailable
from bench.meters.energy.meter import EnergyResult

ROOT = Path("/")


def choose(device: str = "cpu", *, root: Path = ROOT) -> Backend | Unavailable:
    """The best source on this machine: the device's own counter, else zeus; never a wall meter or an estimate unasked.

    Args:
        device: `cpu`, `cuda` or `cuda:1`.
        root: where `/sys` is looked for.
    """
    reasons = []
    for name in ("nvml" if device.startswith("cuda") else "rapl", "zeus"):
        found = named(name, device, root=root)
        if not isinstance(found, Unavailable):
            return found
        reasons.append(found)
        if found.shared:  # zeus would read the same meter and not say so
            break
    return Unavailable("; ".join(r.reason for r in reasons), next((r.remedy for r in reasons if r.remedy), ""))


def named(
    name: str, device: str, *, csv: str | None = None, watts: float | None = None, root: Path = ROOT
) -> Backend | Unavailable:
    """The source with a name as `protocol.energy.backend` spells it, for a device.

    Args:
        name: of the source.
        device: `cpu`, `cuda` or `cuda:1`.
        csv: the wall meter's log, for `external`.
        watts: the device's full-load power, for `estimate`.
        root: where `/sys` is looked for.

    Raises:
        ValueError: there is no such source.
    """
    if name == "auto":
        return choose(device, root=root)
    if name == "off":
        return Unavailable("energy was switched off (protocol.energy.backend=off)")
    on_gpu = device.startswith("cuda")
    if (name == "nvml" and not on_gpu) or (name == "rapl" and on_gpu):
        return Unavailable(f"{name} does not measure {device}")
    finders: dict[str, Callable[[], Any]] = {
        "nvml": lambda: nvml.find(device),
        "rapl": lambda: rapl.find(root),
        "zeus": lambda: _by_zeus(device),
        "external": lambda: external.find(csv),
        "estimate": lambda: estimate.find(device, watts),
    }
    if name not in finders:
        raise ValueError(f'energy backend "{name}" does not exist (available: auto, {", ".join(finders)}, off)')
    found: Backend | Unavailable = finders[name]()
    return found


def _by_zeus(device: str) -> Any:
    """Zeus, unless it would read the meter of an NVIDIA board that others draw from as well."""
    if device.startswith("cuda"):
        board = nvml.find(device)
        if isinstance(board, Unavailable) and board.shared:
            return board
    return zeus.find(device)


def survey(root: Path = ROOT) -> list[tuple[str, Backend | Unavailable]]:
    """Every source in words with what became of it, for people who ask what this machine can measure."""
    return [
        ("energy of the CPU (RAPL)", rapl.find(root)),
        ("energy of the GPU (NVML)", nvml.find("cuda")),
        ("energy of other devices (zeus)", zeus.find("cpu")),
        ("energy at the wall (external meter)", external.find()),
        ("energy estimate (only when asked for)", estimate.find("cpu")),
    ]


def measure_for(
    step: Callable[[], Any],
    batch: int,
    device: str,
    protocol: dict[str, Any],
    *,
    synchronise: Callable[[], None] = lambda: None,
) -> EnergyResult | Unavailable:
    """The energy of a step by the protocol's `energy` part, or why there is none; both have readings and a dict.

    Args:
        step: one inference of the whole batch.
        batch: samples per inference.
        device: `cpu`, `cuda` or `cuda:1`.
        protocol: `backend`, `windows`, `window_s`, `csv` and `watts`.
        synchronise: waits for what `step` launched.
    """
    backend = named(protocol.get("backend", "auto"), device, csv=protocol.get("csv"), watts=protocol.get("watts"))
    if isinstance(backend, Unavailable):
        return backend
    try:
        return meter.measure(
            step,
            batch,
            backend,
            windows=protocol.get("windows", 3),
            min_window_s=protocol.get("window_s", 10.0),
            synchronise=synchronise,
            watch=HostWatch(device),
            seed=time.time_ns(),
        )
    except EnergyError as error:
        return Unavailable(str(error))
