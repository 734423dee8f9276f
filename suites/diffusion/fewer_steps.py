"""The plain sampler with fewer steps: what every other method of this suite has to beat at the same cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from bench.config.settings import PositiveInt
from suites.common.rectified_flow import Course, FlowModel
from suites.diffusion.lambda_eclipse import Prior
from suites.diffusion.subjects import as_kind


def fewer_steps(model: nn.Module, *, steps: PositiveInt = 10) -> nn.Module:
    """The model sampled in `steps` plain Euler steps, whatever number the case asks for.

    Args:
        model: that samples along a rectified flow, a diffusion prior, or a network of diffusers, which takes so many
            steps of its own scheduler.
        steps: of its sampler.

    Raises:
        ValueError: the model does not sample so.
    """
    if hasattr(model, "fixed_steps") and not (isinstance(model, Prior) and not model.steps):
        chain: Any = model
        chain.fixed_steps = steps
        return model
    flow = as_kind(model, FlowModel, "fewer_steps", "digit_dit")
    flow.course = FewerSteps(steps)
    return flow


class FewerSteps(Course):
    """A plain plan of another length."""

    def __init__(self, steps: int):
        self.steps = steps

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """`steps` plain steps."""
        return model.euler(self.steps)


def plan_macs(plan: Iterable[dict[str, Any]]) -> int:
    """MACs per image of a whole plan whose steps all tell theirs.

    Raises:
        KeyError: a step does not.
    """
    return sum(step["macs"] for step in plan)


def steps_at_equal_macs(plan: Iterable[dict[str, Any]], plain_step: int) -> int:
    """How many plain steps of `plain_step` MACs cost what a plan costs, rounded up in the plain sampler's favour.

    Rounding up gives the companion at most one step more than the method paid for, never less.
    """
    return max(1, -(-plan_macs(plan) // plain_step))
