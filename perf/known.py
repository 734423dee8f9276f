"""Modules whose time is known beforehand, or known to be equal: what the instrument is measured with."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive
from suites.common.vit import vit


class BusyWait(nn.Module):
    """Gives its input back after a fixed time, during which it keeps the core busy."""

    def __init__(self, nanoseconds: int):
        super().__init__()
        self.nanoseconds = nanoseconds

    def forward(self, x: Tensor) -> Tensor:
        """The input, [batch, ...], unchanged."""
        end = time.perf_counter_ns() + self.nanoseconds
        while time.perf_counter_ns() < end:
            pass
        return x

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """One number per sample: the time does not depend on it."""
        return (torch.zeros(batch, 1),)


def busy_wait(*, milliseconds: Positive) -> nn.Module:
    """A module whose forward lasts so many milliseconds, and the few hundred nanoseconds that a call takes."""
    return BusyWait(round(milliseconds * 1e6))


def small_vit() -> nn.Module:
    """A third of DeiT-T: 0.42 GMACs on 197 tokens, some ten milliseconds on one core."""
    return vit(width=192, heads=3, depth=4, patch=16, resolution=224)


def same(model: nn.Module, *, number: Count = 0) -> nn.Module:
    """The model as it is; `number` only tells one identical case from another."""
    return model
