"""The plain sampler with fewer steps: what every other method of this suite has to beat at the same cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn

from bench.config.settings import PositiveInt
from suites.common.rectified_flow import Course, FlowModel
from suites.diffusion.lambda_eclipse import Prior
from suites.diffusion.subjects import as_kind


def fewer_steps(model: nn.Module, *, steps: PositiveInt = 10, solver: Literal["euler", "heun"] = "euler") -> nn.Module:
    """The model sampled in `steps` plain steps, whatever number the case asks for.

    Args:
        model: that samples along a rectified flow, a diffusion prior, or a network of diffusers, which takes so many
            steps of its own scheduler.
        steps: of its sampler.
        solver: Euler's, or Heun's, which evaluates the network at both ends of a step; of rectified flows.

    Raises:
        ValueError: the model does not sample so.
    """
    if hasattr(model, "fixed_steps") and not (isinstance(model, Prior) and not model.steps):
        if solver != "euler":
            raise ValueError(f"solver={solver} is one of rectified flows: say scheduler=... of a network of diffusers")
        chain: Any = model
        chain.fixed_steps = steps
        return model
    flow = as_kind(model, FlowModel, "fewer_steps", "digit_dit")
    flow.course = FewerSteps(steps) if solver == "euler" else Heun(steps)
    return flow


class FewerSteps(Course):
    """A plain plan of another length."""

    def __init__(self, steps: int):
        self.steps = steps

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """`steps` plain steps."""
        return model.euler(self.steps)


class Heun(FewerSteps):
    """Steps along the mean of the velocities at both ends: twice the evaluations, an error of second order."""

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """`steps` steps of two evaluations a branch."""
        return [
            {**step, "evaluations": 2 * step["evaluations"], **({"macs": 2 * step["macs"]} if "macs" in step else {})}
            for step in super().plan(model, count)
        ]

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """An Euler step, and the same once more with the velocity at its end averaged in."""
        now, x = model.steps_planned[index], state["x"]
        first = model.guided(x, now["t"], state["classes"])
        second = model.guided(x - now["dt"] * first, now["t"] - now["dt"], state["classes"])
        return {**state, "x": x - 0.5 * now["dt"] * (first + second)}


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
