"""The slots that a machine can offer a pool: its CPU, or each GPU and MIG instance, by class."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.host import topology
from bench.host.topology import ROOT
from bench.host.visible_gpus import as_text


@dataclass(frozen=True)
class Slot:
    """A GPU or MIG instance that can measure by itself.

    Attributes:
        name: of the board or instance.
        label: its class as a pool's label: `h100`, `h100_1g_10gb`.
        uuid: what `CUDA_VISIBLE_DEVICES` calls it by.
        share: its processors.
    """

    name: str
    label: str
    uuid: str
    share: topology.Share


def slots(lib: Any, allowed: Iterable[int], root: Path = ROOT) -> list[Slot]:
    """The GPUs and MIG instances of this machine, by address.

    Args:
        lib: the initialised pynvml module.
        allowed: processors that pieces of work may use.
        root: where `/sys` is looked for.
    """
    usable = list(allowed)
    found = []
    for gpu in topology.devices(lib):
        name = as_text(lib.nvmlDeviceGetName(gpu.own))
        found.append(Slot(name, label_of(name), topology.identity(lib, gpu), topology.share(lib, gpu, usable, root)))
    return found


def label_of(name: str) -> str:
    """A GPU's name as a label of a pool: without the maker, in small letters, `_` for what no label may hold."""
    kept = re.sub(r"^(NVIDIA|Tesla)\s+", "", re.sub(r"^NVIDIA\s+", "", name.strip()))
    text = re.sub(r"[^a-z0-9]+", "_", kept.lower().replace(" mig ", " ")).strip("_")
    return text if text[:1].isalpha() else f"gpu_{text}"
