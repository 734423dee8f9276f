"""Closed forms of this suite's networks as cards name them: settings of a builder to products of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from suites.attention import nat as nat_file
from suites.attention import slab as slab_file
from suites.attention import slab_swin as swin_file
from suites.attention import vir as vir_file


def slab(model: Mapping[str, Any], method: Mapping[str, Any]) -> int:
    """Products of SLAB-DeiT with folded norms, which is also what unfolded ones take."""
    names = ("width", "heads", "depth", "patch", "resolution", "classes", "channels")
    chosen = {name: value for name, value in model.items() if name in names}
    return slab_file.macs(**chosen, linear=model.get("variant", "slab") in ("slab", "sla"))


def vir(model: Mapping[str, Any], method: Mapping[str, Any]) -> int:
    """Products of vision retention in the form that `chunk` says, over patches once or twice."""
    names = ("width", "heads", "depth", "patch", "resolution", "classes", "channels", "chunk", "bidirectional")
    return vir_file.macs(**{name: value for name, value in model.items() if name in names})


def nat(model: Mapping[str, Any], method: Mapping[str, Any]) -> int:
    """Products of a neighborhood attention network, whatever its dilation."""
    chosen = nat_file.SIZES[model.get("size", "mini")]
    size = replace(chosen, width=model.get("width", chosen.width), depths=tuple(model.get("depths", chosen.depths)))
    names = ("kernel", "resolution", "classes", "channels")
    return nat_file.macs(size, **{name: value for name, value in model.items() if name in names})[0]


def slab_swin(model: Mapping[str, Any], method: Mapping[str, Any]) -> int:
    """Products of SLAB-Swin or plain Swin, norms free."""
    names = ("width", "depths", "heads", "window", "resolution", "classes", "channels")
    chosen = {name: value for name, value in model.items() if name in names and value is not None}
    linear = model.get("variant", "slab") in ("slab", "sla")
    return swin_file.macs(**chosen, linear=linear)
