"""Bottleneck Sampling: high, low and high resolution along one chain; Tian et al. 2025, arXiv 2503.18940.

At a switch the picture is predicted (x0 = x - t v), brought to the next stage's resolution, and noised again to a
time somewhat above where the stage before it ended, whatever its shift; each stage has its own shift of the grid of
times (`suites.diffusion.stages`).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from bench.config.settings import Blocks, KeepRate, Positive, Rate
from suites.common.rectified_flow import Course, FlowModel
from suites.diffusion.stages import Stage, fresh_noise, grids, resized
from suites.diffusion.subjects import as_kind, is_of_diffusers


def bottleneck(
    model: nn.Module,
    *,
    scales: list[KeepRate] = [1.0, 0.75, 1.0],  # noqa: B006
    steps: Blocks = [6, 18, 9],  # noqa: B006
    strengths: list[Rate] = [0.0, 0.1, 0.1],  # noqa: B006
    shifts: list[Positive] = [1.0, 1.0, 1.0],  # noqa: B006
) -> nn.Module:
    """The model sampled in stages of their own resolution; nothing is trained.

    Args:
        model: that samples along a rectified flow and knows every resolution that a stage has; of this house or of
            diffusers.
        scales: of each stage, over the full side.
        steps: of each stage; the defaults are the x2 plan (33 in all).
        strengths: of each switch into a stage: 0 begins where the stage before ended, 1 at pure noise.
        shifts: of each stage's grid of times.

    Raises:
        ValueError: lists of different lengths, a last stage that is not at full size, a side that the network cannot
            take, or a shift by which a stage would end above where it begins.
    """
    lengths = {len(each) for each in (scales, steps, strengths, shifts)}
    if len(lengths) > 1:
        raise ValueError(
            f"scales, steps, strengths and shifts say {len(scales)}, {len(steps)}, {len(strengths)} and {len(shifts)} "
            "stages: give as many of each"
        )
    if scales[-1] != 1:
        raise ValueError(f"the last stage makes the picture and has to be at scale 1, not {scales[-1]:g}")
    stages = [Stage(*each) for each in zip(scales, steps, strengths, shifts, strict=True)]
    if is_of_diffusers(model, "bottleneck"):
        from suites.diffusion.bottleneck_diffusers import in_stages

        return in_stages(model, stages)  # type: ignore[arg-type]
    flow = as_kind(model, FlowModel, "bottleneck", "digit_dit")
    for stage in stages:
        _side(flow, stage.scale)
    grids(stages, flow.shift)
    flow.course = Bottleneck(stages)
    return flow


def _side(model: FlowModel, scale: float) -> int:
    """Side of a stage in pixels.

    Raises:
        ValueError: it is no whole number of the network's patches.
    """
    side = round(model.resolution * scale)
    patch = getattr(model, "patch", 2)
    if abs(side - model.resolution * scale) > 1e-6 or side % patch:
        raise ValueError(
            f"scale {scale:g} of {model.resolution} px is {model.resolution * scale:g} px, no multiple of the patch "
            f"{patch}"
        )
    return side


class Bottleneck(Course):
    """Stages, and what happens between two of them."""

    def __init__(self, stages: list[Stage]):
        self.stages = stages

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """Every stage covers its share of the evenly spaced chain on its own grid; `count` is not asked."""
        steps = list[dict[str, Any]]()
        for stage, times in zip(self.stages, grids(self.stages, model.shift), strict=True):
            side = _side(model, stage.scale)
            if steps:
                steps[-1] |= self._switch(steps[-1], side, times[0], len(steps))
            steps += [
                model.planned(len(steps) + place, times[place], times[place + 1], side) for place in range(stage.steps)
            ]
        first = _side(model, self.stages[0].scale)
        steps[0]["begins_at"] = first
        return steps

    @staticmethod
    def _switch(last: dict[str, Any], side: int, t: float, seed: int) -> dict[str, Any]:
        """What the last step of a stage hands over; nothing where the next one goes on at the same place."""
        same = side == last["side"] and abs(t - (last["t"] - last["dt"])) < 1e-12
        return {} if same else {"next_side": side, "next_t": t, "noise_seed": seed}

    def start(self, model: FlowModel, state: dict[str, Any]) -> dict[str, Any]:
        """The noise, of which a chain that begins small takes a part."""
        x, side = state["x"], model.steps_planned[0]["begins_at"]
        return {**state, "noise": x, "x": x if side == x.shape[-1] else fresh_noise(x, side, 0)}

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """An Euler step; the last one of a stage predicts the picture, resizes it and puts noise back."""
        now, x = model.steps_planned[index], state["x"]
        velocity = model.guided(x, now["t"], state["classes"])
        if "next_t" not in now:
            return {**state, "x": x - now["dt"] * velocity}
        picture = resized(x - now["t"] * velocity, now["next_side"])
        noise = fresh_noise(state["noise"], now["next_side"], now["noise_seed"])
        return {**state, "x": (1 - now["next_t"]) * picture + now["next_t"] * noise}
