"""Many small functions measured in one case: a call makes all of them, and each has a span of its own.

A table of a hundred rows is not a hundred cases: a process pays its warm-up once. Rows and networks alternate, so that
what the machine does in between falls on all of them, and every one is measured in several fresh processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suites.common.folding import fold_batch_norms

Span = Callable[[str], AbstractContextManager[None]]

#: The form whose maps have their channels last in memory.
CHANNELS_LAST = "channels_last"
#: Where Linux says how large the last cache is, and how large one is taken for where it does not.
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
UNKNOWN_CACHE = 2**25
#: Times the last cache that are written before a call that is to find its inputs in memory.
EVICTED = 2


class Cohort(nn.Module):
    """Entries by name, each with an input of its own [batch, ...]; a forward calls all of them in order."""

    def __init__(self, entries: Mapping[str, tuple[nn.Module, tuple[int, ...]]], inputs: str, form: str = "plain"):
        """Entries are put into an order that is always the same, where neighbours of a network seldom stand together.

        Args:
            entries: modules with the shapes of their inputs without the batch.
            inputs: `warm`: an entry has just run when it is timed; `cold`: the caches have just been written over.
            form: `channels_last`: maps are given with their channels last in memory, as inside a network of that form.
        """
        super().__init__()
        names = sorted(entries)
        random.Random(0).shuffle(names)
        self.shapes = {name: entries[name][1] for name in names}
        self.entries = nn.ModuleDict({name: entries[name][0] for name in names})
        self.inputs = inputs
        self.form = form

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What every entry makes of its input, in the entries' order."""
        return tuple(entry(x) for entry, x in zip(self.entries.values(), given, strict=True))

    def call_in_spans(self, span: Span, *given: Tensor) -> Tensor:
        """What the last entry makes; each runs in a span of its name, after a run of its own or with cold caches."""
        answer = given[0]
        for (name, entry), x in zip(self.entries.items(), given, strict=True):
            if self.inputs == "warm":
                entry(x)
            else:
                evict()
            with span(name):
                answer = entry(x)
        return answer

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """A random input for every entry, maps in the layout of the cohort's form."""
        like = next(self.parameters())
        given = (torch.randn(batch, *shape, device=like.device, dtype=like.dtype) for shape in self.shapes.values())
        if self.form != CHANNELS_LAST:
            return tuple(given)
        return tuple(x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in given)


def evict() -> None:
    """Write over a buffer of twice the last cache, so that what it held is gone."""
    _buffer().add_(1.0)


@cache
def _buffer() -> Tensor:
    return torch.zeros(EVICTED * last_cache_bytes() // 4)


def last_cache_bytes(file: Path = CACHE) -> int:
    """Bytes of the last cache as the kernel has them, `32768K`; a guess where it does not say."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return UNKNOWN_CACHE
    factor = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    digits = text.rstrip("KMG")
    return int(digits) * factor if digits.isdigit() else UNKNOWN_CACHE


def in_form(module: nn.Module, form: str) -> nn.Module:
    """The module as another backend runs it: norms folded into the layers before them, or kernels for channels last."""
    module.eval()
    if form == "folded":
        fold_batch_norms(module)
    if form == CHANNELS_LAST:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def settled(modules: Mapping[str, tuple[nn.Module, tuple[int, ...]]], form: str, inputs: str) -> Any:
    """A cohort of these in that form, in evaluation mode."""
    made = {name: (in_form(module, form), shape) for name, (module, shape) in modules.items()}
    return Cohort(made, inputs, form).eval()
