"""Joules of other devices (AMD, Apple, Jetson and what else zeus knows), where the extra `zeus` is installed."""

from __future__ import annotations

from typing import Any

from bench.meters.energy.backend import Backend, EnergyError, Scope, Unavailable
from bench.reading import Provenance

_WINDOW = "waterline"
#: Where zeus puts its joules, and what each covers. One is read, never their sum: some overlap.
_FIELDS: dict[str, tuple[tuple[str, Scope], ...]] = {
    "cuda": (("gpu_energy", "gpu_board"), ("soc_energy", "soc")),
    "cpu": (("cpu_energy", "cpu_package"), ("soc_energy", "soc")),
}


class ZeusBackend:
    """A backend over zeus's monitor, which keeps one window open and is read at its ends."""

    name = "zeus"
    sampled = True
    has_idle = True
    provenance: Provenance = "measured"

    def __init__(self, monitor: Any, field: str, scope: Scope):
        self.scope: Scope = scope
        self.method_note = f"zeus, {field}"
        self.check: Backend | None = None
        self._monitor, self._field = monitor, field
        self._total = 0.0
        self._open = False

    def start(self) -> None:
        """Open the first window."""
        self._monitor.begin_window(_WINDOW)
        self._open = True

    def stop(self) -> None:
        """Close the last window."""
        if self._open:
            self._monitor.end_window(_WINDOW)
            self._open = False

    def mark(self) -> float:
        """Joules since the start: closes the open window and opens the next."""
        found = joules_of(self._monitor.end_window(_WINDOW), self._field)
        self._monitor.begin_window(_WINDOW)
        if found is None:
            raise EnergyError(f"zeus gave no {self._field}")
        self._total += found
        return self._total

    def joules(self, begin: float, end: float) -> float:
        """What was added between two marks."""
        return end - begin

    def poll(self) -> None:
        """Zeus looks by itself."""

    def raw(self) -> float | None:
        """There is no raw number to watch."""
        return None

    def conditions(self) -> dict[str, Any]:
        """The field that is read."""
        return {"zeus_field": self._field}

    def shared_with(self) -> str | None:
        """Zeus cannot tell."""
        return None


#: Parts of a chip whose millijoules add up to the chip, where zeus gives no total; the others are parts of these.
_CHIP_PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "ane_mj", "dram_mj")


def joules_of(measurement: Any, field: str) -> float | None:
    """The joules of one field of a measurement, or None where zeus has no reading and says zero."""
    value = getattr(measurement, field, None)
    joules = float(sum(value.values())) if isinstance(value, dict) else 1e-3 * _chip_millijoules(value)
    return joules or None


def _chip_millijoules(chip: Any) -> float:
    """A chip's total in millijoules (0: nothing known): the total where there is one, else the sum of its parts."""
    total = getattr(chip, "total_energy_mj", None)
    return total if total is not None else sum(getattr(chip, name, None) or 0.0 for name in _CHIP_PARTS)


def find(device: str, module: Any = None) -> ZeusBackend | Unavailable:
    """The first field that zeus fills for this device within a fifth of a second of looking.

    Args:
        device: `cpu` or `cuda:N`.
        module: `zeus.monitor`; replaced in tests.
    """
    import time

    try:
        if module is None:
            import zeus.monitor as module  # type: ignore[no-redef]
        gpu = device.startswith("cuda")
        monitor = module.ZeusMonitor(gpu_indices=[int(device.partition(":")[2] or 0)] if gpu else [])
        monitor.begin_window(_WINDOW)
        time.sleep(0.2)
        found = monitor.end_window(_WINDOW)
    except ImportError:
        return Unavailable("zeus is not installed", "install the extra named zeus")
    except Exception as error:  # zeus raises its own classes where it finds no device
        return Unavailable(f"zeus finds nothing to read: {error}")
    for field, scope in _FIELDS["cuda" if gpu else "cpu"]:
        if joules_of(found, field):
            return ZeusBackend(monitor, field, scope)
    return Unavailable("zeus reads no energy on this machine (it answers 0, which is not a measurement)")
