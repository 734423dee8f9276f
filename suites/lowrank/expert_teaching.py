"""A changed Switch transformer learns from data and from the full one's answers (arXiv 2310.01334, section 4)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.from_scratch import learned
from suites.common.training import Pace, divergence, fit
from suites.lowrank.switch import Switch

TEMPERATURE, TEACHING, RATE = 2.0, 0.2, 5e-4


def as_switch(model: nn.Module, method: str) -> Switch:
    """The model, if it is a Switch transformer.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(model, Switch):
        raise ValueError(f"{method} merges the experts of a Switch transformer, not of {type(model).__name__}")
    return model


def taught(
    model: Switch, plain: Switch, teacher: Switch | None, method: Any, settings: dict[str, Any], steps: int
) -> Switch:
    """The changed model after steps of data and of the full model's answers at temperature 2, weight 0.2.

    Args:
        model: the changed one.
        plain: what was loaded by a task.
        teacher: the full model; None where there are no steps.
        method: its public function, which stands for the weights.
        settings: what else they depend on.
        steps: batches of 16; 0 leaves the model as it is.
    """

    def loop(module: nn.Module, batches: Any, steps: int) -> list[float]:
        def loss(ids: Tensor, labels: Tensor) -> Tensor:
            said = module(ids).flatten(0, -2)
            assert teacher is not None
            with torch.no_grad():
                wanted = teacher(ids).flatten(0, -2)
            apart = divergence(said / TEMPERATURE, wanted / TEMPERATURE)
            return F.cross_entropy(said, labels.flatten()) + TEACHING * TEMPERATURE**2 * apart

        return fit(module, batches, loss, Pace(steps, RATE))

    before = getattr(model, "method_cost", None)
    found = learned(model, plain, method, settings, steps, loop, from_start=False)
    if before is not None and steps:
        found.method_cost = {  # type: ignore[assignment]
            name: value + (before.get(name) or 0)
            for name, value in found.method_cost.items()  # type: ignore[operator, union-attr]
            if name != "peak_bytes"
        }
    return as_switch(found, method.__name__).eval()
