"""A run of training that counts its products: forwards and backwards as autograd executes them, and the choosing.

Quality is read against *all* products of a run. A step is counted by the operator trace of a real one, once for every
choice of what trains, and stands for the steps until the next choice: their shapes are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.macs import count_training
from suites.common.from_scratch import RATE
from suites.common.training import Pace, classification

#: Chooses what trains on a batch: (module, optimizer, inputs, labels) -> products that choosing took.
Select = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], float]


class CountedRun:
    """A loop that trains a module in place by an optimizer of one's own, at the pace of plain networks.

    Attributes:
        macs: products of all steps and choices so far.
    """

    def __init__(
        self,
        make: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
        select: Select | None = None,
        every: int = 1,
        after: Callable[[nn.Module, torch.optim.Optimizer, int], None] | None = None,
    ):
        """Nothing has run yet.

        Args:
            make: gives the optimizer; None for AdamW on all parameters, as plain networks learn by.
            select: chooses anew before the first of every so many steps; None where what trains is settled.
            every: steps between two choices.
            after: called with module, optimizer and the number of steps taken, after each.
        """
        self.make, self.select, self.every, self.after, self.macs = make, select, every, after, 0.0

    def __call__(self, module: nn.Module, batches: Any, steps: int) -> list[float]:
        """The loss of each step; the module is in evaluation mode afterwards."""
        optimizer = _adamw(module) if self.make is None else self.make(module)
        pace, loss, losses, step_macs = Pace(steps, 1.0), classification(module), list[float](), 0.0
        rates = [group["lr"] for group in optimizer.param_groups]
        module.train()
        for step, (inputs, labels) in enumerate(batches):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * pace.factor(step)
            chosen = self.select is not None and step % self.every == 0
            if self.select is not None and chosen:
                self.macs += self.select(module, optimizer, inputs, labels)
            if chosen or step == 0:
                step_macs = executed(module, inputs, labels)
            value = loss(inputs, labels)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], pace.clip)
            optimizer.step()  # tensors without a gradient are left out
            self.macs += step_macs
            losses.append(float(value.detach()))
            if self.after is not None:
                self.after(module, optimizer, step + 1)
        module.eval()
        return losses


def _adamw(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.05)


def executed(module: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Products of one forward and backward on this batch; the module is left as it was."""
    forwards = getattr(module, "_forward_hooks", None)
    assert forwards is not None
    kept, module._forward_hooks = module._forward_hooks, type(forwards)()  # the trace is no pass of the method
    try:
        counted = count_training(
            module, (inputs,), loss=lambda said: F.cross_entropy(said.flatten(0, -2), labels.flatten())
        )
    finally:
        module._forward_hooks = kept
    return float(counted.executed_macs)
