"""Joules of the processor through the kernel's powercap interface (RAPL of Intel and AMD)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.meters.energy.backend import Scope, Unavailable
from bench.meters.energy.counter import Counter, CounterBackend

FOLDER = "sys/class/powercap"
_REMEDY = "as root: chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj /sys/class/powercap/intel-rapl:*:*/energy_uj"


def find(root: Path = Path("/")) -> CounterBackend | Unavailable:
    """The widest scope that can be read without counting a joule twice.

    A package holds its core and uncore domains, which are left out; memory is apart and added where it has a counter;
    `psys` (the whole platform) holds all of these and stands alone.

    Args:
        root: where `/sys` is looked for.
    """
    folder = root / FOLDER
    zones = {path: _name(path) for path in sorted(folder.glob("intel-rapl:*")) if _name(path)}
    if not zones:
        return Unavailable(
            "no RAPL counters (/sys/class/powercap holds none)",
            "virtual machines hide them; on bare metal load the module intel_rapl_common",
        )
    scope, chosen = choose_domains(zones)
    if not chosen:
        return Unavailable(f"RAPL shows no package or platform domain, only {', '.join(sorted(set(zones.values())))}")
    counters = {}
    for path in chosen:
        try:
            span = int((path / "max_energy_range_uj").read_text(encoding="utf-8")) + 1
            int((path / "energy_uj").read_text(encoding="utf-8"))
        except PermissionError:
            return Unavailable(f"{FOLDER}/{path.name}/energy_uj is readable by root only", _REMEDY)
        except (OSError, ValueError) as error:
            return Unavailable(f"{FOLDER}/{path.name} cannot be read: {error}")
        counters[f"{zones[path]} ({path.name})"] = Counter(_reader(path), 1e-6, float(span))
    return CounterBackend("rapl", scope, counters, f"RAPL through powercap: {', '.join(counters)}")


def choose_domains(zones: dict[Path, str]) -> tuple[Scope, list[Path]]:
    """The scope, and the zones whose sum covers it with no joule twice."""
    platform = [path for path, name in zones.items() if name == "psys"]
    if platform:
        return "soc", platform[:1]
    packages = [path for path, name in zones.items() if name.startswith("package")]
    memory = [path for path, name in zones.items() if name == "dram"]
    return ("cpu_package+dram" if memory and packages else "cpu_package"), packages + (memory if packages else [])


def _name(path: Path) -> str:
    try:
        return (path / "name").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _reader(path: Path) -> Callable[[], float]:
    return lambda: int((path / "energy_uj").read_text(encoding="utf-8"))
