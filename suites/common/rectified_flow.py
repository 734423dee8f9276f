"""Sampling by rectified flow, as the workload `sample` asks for it: a plan of Euler steps from noise to pictures.

A picture x and noise e meet on the straight line x_t = (1 - t) x + t e, and the network predicts its velocity e - x
(Liu et al. 2022, "Flow Straight and Fast", section 2). Guidance is that of Ho and Salimans 2022, formula 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Steps where the shape names none.
STEPS = 20
#: Numbers of a digit as it was scanned, 8 x 8: a sample of more of them says the same several times.
DIGIT = 64
#: Share of the times to learn at that are drawn evenly.
EVEN = 0.2


#: Velocities from pictures, times and classes.
Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class Course:
    """Another way from noise to pictures than plain Euler steps. What lives from step to step is in the state alone."""

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """Its steps where the plain sampler would make `count`."""
        return model.euler(count)

    def start(self, model: FlowModel, state: dict[str, Any]) -> dict[str, Any]:
        """The state before the first step, from the plain one."""
        return state

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """The state after step `index` of the plan."""
        now = model.steps_planned[index]
        return {**state, "x": state["x"] - now["dt"] * model.guided(state["x"], now["t"], state["classes"])}


class FlowModel(nn.Module):
    """A network of velocities with its sampler. A subclass defines `velocity` and the attributes below it.

    Attributes:
        resolution: side of the square picture.
        channels: of the picture, whose values are about -1..1.
        classes: that pictures may be asked for; class number `classes` is the empty one.
        scale: of the plan that was asked for last, as are `steps_planned`.
        guidance: scale where the shape names none; None runs the conditional branch alone.
        shift: of the time grid, t' = s t / (1 + (s - 1) t).
        course: how it is sampled where that is not the plain way (`Course`); set by methods.
        shifted_times: whether it learns at the times that `learned_times` shifts; those of a sample of 64 numbers else.
    """

    resolution: int
    channels: int
    classes: int
    guidance: float | None = None
    shift: float = 1.0
    scale: float | None = None
    course: Course | None = None
    shifted_times = False
    steps_planned: list[dict[str, Any]]

    def velocity(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """Velocities of pictures [batch, channels, side, side] at times [batch] in 0..1 for classes [batch]."""
        raise NotImplementedError(f"{type(self).__name__} does not define velocity")

    def forward(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """One evaluation of the network: the velocities."""
        return self.velocity(x, t, classes)

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random pictures, times and classes."""
        like = next(self.parameters())
        times = torch.rand(batch).to(like)
        return self.example_noise(batch, 0).to(like), times, self.example_cond(batch).to(like.device)

    # ------------------------------------------------------------------------------------------ the sampler

    def plan(self, shape: dict[str, Any]) -> list[dict[str, Any]]:
        """The steps: index, time, length, and how many evaluations each is (two with guidance)."""
        count = int(shape.get("steps") or STEPS)
        given = shape.get("guidance")
        self.scale = self.guidance if given is None else float(given)
        self.steps_planned = self.euler(count) if self.course is None else self.course.plan(self, count)
        return self.steps_planned

    @property
    def branches(self) -> int:
        """Evaluations of the network that a step makes: two with guidance."""
        return 1 if self.scale is None else 2

    def euler(self, count: int) -> list[dict[str, Any]]:
        """`count` plain steps from noise to pictures on the model's own grid of times."""
        grid = [self.shifted(1 - place / count) for place in range(count + 1)]
        return [self.planned(place, grid[place], grid[place + 1]) for place in range(count)]

    def planned(self, index: int, t: float, until: float, side: int | None = None, **more: Any) -> dict[str, Any]:
        """One step of a plan at a side in pixels, its MACs per image among it where the network can tell them."""
        side = side or self.resolution
        macs = self.evaluation_macs(side)
        known = {} if macs is None else {"macs": self.branches * macs}
        step = {"index": index, "t": t, "dt": t - until, "side": side, "evaluations": self.branches}
        return {**step, **known, **more}

    def evaluation_macs(self, side: int) -> int | None:
        """MACs of one evaluation for one picture of that side; None where the network has no closed form."""
        return None

    def shifted(self, t: float) -> float:
        """A time of the evenly spaced grid on the model's own one."""
        return self.shift * t / (1 + (self.shift - 1) * t)

    def start(self, noise: Tensor, cond: Tensor) -> dict[str, Any]:
        """The state before the first step: the noise and the classes."""
        state = {"x": noise.to(next(self.parameters())), "classes": cond}
        return state if self.course is None else self.course.start(self, state)

    def step(self, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """The state after step `index` of the plan; a plain one is an Euler step."""
        if self.course is not None:
            return self.course.step(self, index, state)
        return Course().step(self, index, state)

    def guided(self, x: Tensor, t: float, classes: Tensor, network: Network | None = None) -> Tensor:
        """The velocity of a step: of the branch that knows the class, or pushed away from that which does not.

        `network` is evaluated instead of the model's own velocity; with guidance its batch holds both branches, the
        one that knows the class first.
        """
        network = network or self.velocity
        times = torch.full((len(x),), t, device=x.device, dtype=x.dtype)
        if self.scale is None:
            return network(x, times, classes)
        empty = torch.full_like(classes, self.classes)
        both = network(torch.cat([x, x]), torch.cat([times, times]), torch.cat([classes, empty]))
        aware, unaware = both.chunk(2)
        return unaware + self.scale * (aware - unaware)

    def finish(self, state: dict[str, Any]) -> Tensor:
        """The pictures."""
        return state["x"]

    def example_noise(self, batch: int, seed: int) -> Tensor:
        """Noise that depends on the seed and each picture's index alone, [batch, channels, side, side]."""
        return noise(range(batch), seed, (self.channels, self.resolution, self.resolution))

    def example_cond(self, batch: int) -> Tensor:
        """The classes in turn, [batch]."""
        return torch.arange(batch) % self.classes


def noise(indices: range, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise, one picture per index, the same whatever the batch it is made in, on the CPU."""
    made = []
    for index in indices:
        generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + index)
        made.append(torch.randn(shape, generator=generator))
    return torch.stack(made)


def learned_times(count: int, numbers: int, generator: torch.Generator, evenly: float = EVEN) -> Tensor:
    """Times to learn at, [count]: more of the middle, and nearer to noise for samples that repeat themselves.

    The logit is normal (Esser et al. 2024, arXiv 2403.03206, section 3.1) about log sqrt(numbers / 64): what is shown
    several times is seen through more noise, and the noise hides it only later (section 5.3.2 there).

    Args:
        count: of times.
        numbers: of a sample.
        generator: that draws.
        evenly: share of the times that are drawn evenly from 0 to 1, so that none is unknown.
    """
    t = torch.sigmoid(0.5 * math.log(numbers / DIGIT) + torch.randn(count, generator=generator))
    if not evenly:
        return t
    even = torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < evenly, even, t)


def flow_loss(model: FlowModel, generator: torch.Generator, dropped: float = 0.1) -> Any:
    """The mean squared error of the velocity at random times, as a loss of pictures and classes.

    Args:
        model: what is trained.
        generator: of times, noise, and of which classes are hidden.
        dropped: share of the classes that are replaced by the empty one, so that guidance has its other branch.
    """

    def loss(pictures: Tensor, classes: Tensor) -> Tensor:
        shifted = getattr(model, "shifted_times", False)
        numbers = pictures[0].numel() if shifted else DIGIT
        t = learned_times(len(pictures), numbers, generator, EVEN if shifted else 0.0)
        e = torch.randn(pictures.shape, generator=generator)
        hidden = torch.rand(len(pictures), generator=generator) < dropped
        seen = torch.where(hidden, torch.full_like(classes, model.classes), classes)
        place = t.view(-1, *[1] * (pictures.dim() - 1))
        return F.mse_loss(model((1 - place) * pictures + place * e, t, seen), e - pictures)

    return loss


def time_features(t: Tensor, width: int) -> Tensor:
    """Cosines and sines of times in 0..1 at `width` / 2 frequencies, [batch, width] (Ho et al. 2020, as in DiT)."""
    half = width // 2
    frequencies = torch.exp(-torch.arange(half, device=t.device, dtype=torch.float32) * (9.210340371976184 / half))
    angles = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).to(t.dtype)
