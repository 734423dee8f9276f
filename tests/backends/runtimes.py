"""What every runtime is held to, written once: its own loop by hand is each test file's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import backends
from bench.backends.backend import Conditions, Converted
from bench.backends.exporting import ARTEFACT


@dataclass(frozen=True)
class Made:
    """A converted network with the eager one, its inputs, and the folder of its files."""

    module: Any
    args: tuple[Any, ...]
    converted: Converted
    files: Path

    def eager(self) -> Any:
        with torch.inference_mode():
            return self.module(*self.args)

    def through(self) -> Any:
        with torch.inference_mode():
            return self.converted.module(*self.args)


def make(name: str, network: Any, folder: Path, *, dtype: str = "fp32", threads: int = 1) -> Made:
    module, args = network()
    conditions = Conditions(dtype=dtype, threads=threads, folder=folder)
    return Made(
        module, args, backends.require(name, conditions).convert(module, args, {}, conditions), folder / ARTEFACT
    )


def bytes_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def weight_bytes(module: Any) -> int:
    return sum(4 * parameter.numel() for parameter in module.parameters())


def threads_of_this_process() -> int:
    return len(os.listdir("/proc/self/task"))
