"""The largest network whose training step stays under a budget of bytes: what a claim "with fixed memory" asks for.

The peak is that of live tensors in a forward and a backward, gradients included, weights and the batch apart; no
optimizer, which is the same for both sides. It is deterministic, so that a search needs no repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from bench.meters.live import record

Size = TypeVar("Size")


class _Step(nn.Module):
    """A forward and a backward of the mean square of what a network gives."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> None:
        """Nothing; gradients are left on the weights."""
        with torch.inference_mode(False), torch.enable_grad():
            self.net(*inputs).square().mean().backward()


def step_peak(net: nn.Module, *inputs: Tensor) -> int:
    """Largest sum of bytes that a forward and a backward have alive beside weights and inputs.

    Args:
        net: in training mode; its gradients are cleared before and after.
        inputs: of its forward.
    """
    net.train()
    net.zero_grad(set_to_none=True)
    known = {part.untyped_storage()._cdata for part in [*net.parameters(), *net.buffers(), *inputs]}
    step = _Step(net)
    try:
        step(*inputs)  # what a first run imports and keeps is no part of a step
        net.zero_grad(set_to_none=True)
        return record(step, inputs, {}, known).peak({}).total
    finally:
        net.zero_grad(set_to_none=True)


def largest(sizes: Iterable[Size], peak: Callable[[Size], int], budget: int) -> Size | None:
    """The last of the growing sizes whose peak is within the budget; None where the first is above it.

    Args:
        sizes: from small to large; the search ends with the first that does not fit.
        peak: bytes of a size.
        budget: bytes.
    """
    found = None
    for size in sizes:
        if peak(size) > budget:
            break
        found = size
    return found
