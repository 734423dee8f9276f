"""Subjects of the simulated pool: quick ones, and with the machine's or the subject's own slowness."""

from __future__ import annotations

import os
import time

from torch import nn

from bench.sweep.pool.node import NODE

#: Machines whose name begins so take longer for everything; seconds for one subject.
SLOW, SLOW_S = "slow", 0.05


class Layer(nn.Module):
    """One layer on one vector."""

    def __init__(self, width: int):
        super().__init__()
        self.layer = nn.Linear(8, width)

    def example_inputs(self, batch: int):  # type: ignore[no-untyped-def]
        """Zeros, [batch, 8]."""
        import torch

        return (torch.zeros(batch, 8),)

    def forward(self, values):  # type: ignore[no-untyped-def]
        """The layer's answer."""
        return self.layer(values)


def short(*, width: int, wait: float = 0.0) -> nn.Module:
    """A subject that is counted in a moment.

    Args:
        width: of its layer, which tells it from the others.
        wait: seconds that building it takes; with one it is a straggler.
    """
    time.sleep(wait + (SLOW_S if os.environ.get(NODE, "").startswith(SLOW) else 0.0))
    return Layer(width)
