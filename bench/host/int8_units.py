"""Which units for int8 products a processor has: without them x86 kernels add pairs of products in 16 bits.

Two products of 8-bit numbers reach 2 x 255 x 127 = 64 770, above 32 767, so the instruction that adds them saturates
(Intel SDM, VPMADDUBSW). With VNNI or AMX four products are added in 32 bits. Arm's dot products add in 32 bits as well.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from bench.flags import Flag, flag
from bench.labels import REAL_INT

UNITS = ("avx512_vnni", "avx_vnni", "amx_int8")


@cache
def int8_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...] | None:
    """The units that this processor has, in the order of `UNITS`; None where it is not told."""
    if not cpuinfo.is_file():
        return None
    lines = [line for line in cpuinfo.read_text(errors="replace").splitlines() if line.startswith("flags")]
    if not lines:
        return None
    words = set(lines[0].split(":", 1)[-1].split())
    return tuple(unit for unit in UNITS if unit in words)


def flags_of(execution: str | None, device: str, units: tuple[str, ...] | None, machine: str) -> list[Flag]:
    """What a reader has to know of a row whose products are whole numbers on this processor.

    Args:
        execution: the label of the row.
        device: it ran on.
        units: of `int8_units`.
        machine: of `platform.machine()`.
    """
    if execution != REAL_INT or device != "cpu" or machine.lower() not in ("x86_64", "amd64"):
        return []
    if units:
        return [flag("int8_units", "info", f"int8 products in {', '.join(units)}")]
    lack = "whether this processor has VNNI or AMX is not known" if units is None else "no VNNI and no AMX here"
    text = f"{lack}: library kernels of 8-bit activations may saturate pairs of products, so results differ by machine"
    return [flag("int8_saturates", "warn", text)]


def flags_here(execution: str | None, device: str) -> list[Flag]:
    """`flags_of` on this machine."""
    return flags_of(execution, device, int8_units(), platform.machine())
