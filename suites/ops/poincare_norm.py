"""Batch normalisation in the Poincare ball, its mean alone, and the maps that it is made of, as operators.

The norm takes the points to the tangent space at their mean, moves it by parallel transport to the learned mean, scales
by sqrt(learned variance / Frechet variance), and goes back to the ball. The variance is the mean squared distance to
the mean.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.operators import Operator
from suites.ops import poincare, poincare_gradients

EPS = 1e-6


def poincare_mean(
    *,
    form: Literal["midpoint", "klein", "frechet", "euclidean"] = "midpoint",
    length: PositiveInt = 8192,
    width: PositiveInt = 16,
    curvature: Positive = 1.0,
    backward: bool = False,
) -> Mean:
    """A mean of `length` points of the ball in `width` dimensions, as an operator on [length, width].

    Args:
        form: the gyromidpoint, the same through Klein coordinates, the iterative Frechet mean, or the arithmetic mean.
        length: points: batch x height x width of a feature map.
        width: dimensions: its channels.
        curvature: c; the ball has radius 1 / sqrt(c).
        backward: a run also takes the gradients.
    """
    return Mean(form, length, width, curvature, backward).eval()


def poincare_norm(
    *,
    form: Literal["midpoint", "klein", "frechet", "euclidean"] = "midpoint",
    gradients: Literal["autograd", "manual"] = "autograd",
    length: PositiveInt = 8192,
    width: PositiveInt = 16,
    curvature: Positive = 1.0,
    backward: bool = False,
) -> NormOperator:
    """The whole batch norm of `length` points in `width` dimensions, as an operator on [length, width].

    Args:
        form: whose mean; euclidean is torch's batch norm.
        gradients: of distance and exponential map, by autograd or written out.
        length: points.
        width: dimensions.
        curvature: c.
        backward: a run also takes the gradients.

    Raises:
        ValueError: written-out gradients of a norm that has no such maps.
    """
    if form == "euclidean" and gradients == "manual":
        raise ValueError("gradients='manual' are those of distance and exponential map: form='euclidean' has none")
    return NormOperator(form, gradients, length, width, curvature, backward).eval()


def poincare_map(
    *,
    of: Literal["distance", "exponential"] = "distance",
    gradients: Literal["autograd", "manual"] = "autograd",
    length: PositiveInt = 8192,
    width: PositiveInt = 16,
    curvature: Positive = 1.0,
    backward: bool = True,
) -> MapOperator:
    """Distances or exponential maps of pairs of points, as an operator on two tensors [length, width].

    Args:
        of: which map.
        gradients: by autograd or written out.
        length: pairs.
        width: dimensions.
        curvature: c.
        backward: a run also takes the gradients, which is what this row is for.
    """
    return MapOperator(of, gradients, length, width, curvature, backward).eval()


class BallOperator(Operator):
    """A function of points in the ball."""

    tolerance_fp32 = 1e-4

    def __init__(self, form: str, length: int, width: int, curvature: float, backward: bool):
        super().__init__(form=form, backward=backward)
        self.length, self.width, self.c = length, width, curvature

    def points(self, length: int, generator: torch.Generator | None = None) -> Tensor:
        """Random points of the ball, none near the rim."""
        drawn = torch.randn(length, self.width, generator=generator)
        apart = 0.2 + 0.6 * torch.rand(length, 1, generator=generator)
        return (drawn / drawn.norm(dim=-1, keepdim=True).clamp(min=1e-6) * apart / self.c**0.5).to(self.like)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random points."""
        return (self.points(self.length * batch),)

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """At most 64 points."""
        return (self.points(min(64, self.length), torch.Generator().manual_seed(seed)),)


class Mean(BallOperator):
    """The mean."""

    def function(self, x: Tensor) -> Tensor:
        """The mean [width]."""
        return mean_of(self.form, x, self.c)

    def definition(self, x: Tensor) -> Tensor:
        """The Klein mean for the midpoint; for the Frechet mean one that has come to rest further."""
        if self.form == "frechet":
            return poincare.frechet(x, self.c, 1e-12)[0]
        return x.mean(0) if self.form == "euclidean" else poincare.klein(x, self.c)

    def costs(self, x: Tensor) -> dict[str, float | str]:
        """Steps of the iteration on these points."""
        return {"iterations": _steps(self.form, x, self.c)}


def _steps(form: str, x: Tensor, c: float) -> float | str:
    if form != "frechet":
        return "this form has a closed form"
    return "meta tensors have no values" if x.is_meta else float(poincare.frechet(x, c)[1])


def mean_of(form: str, x: Tensor, c: float) -> Tensor:
    """The mean [d] of points [n, d] by name."""
    if form == "frechet":
        return poincare.frechet(x, c)[0]
    return {"midpoint": poincare.midpoint, "klein": poincare.klein}[form](x, c) if form != "euclidean" else x.mean(0)


class BallNorm(nn.Module):
    """The norm: a learned mean (as a tangent vector at the origin) and a learned variance, with running statistics."""

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, width: int, curvature: float, form: str, gradients: str = "autograd", momentum: float = 0.1):
        super().__init__()
        self.c, self.form, self.gradients, self.momentum = curvature, form, gradients, momentum
        self.mean = nn.Parameter(torch.zeros(width))
        self.variance = nn.Parameter(torch.ones(()))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Points [n, width], by the batch's statistics in training and by the running ones in evaluation."""
        if not self.training:
            return self.moved(x, self.running_mean, self.running_variance)
        mean = mean_of(self.form, x, self.c)
        variance = self.spread(x, mean)
        with torch.no_grad():
            both = torch.stack([self.running_mean, mean.detach().to(self.running_mean)])
            share = torch.tensor([1 - self.momentum, self.momentum], device=x.device, dtype=both.dtype)
            self.running_mean.copy_(poincare.midpoint(both, self.c, share))
            self.running_variance.lerp_(variance.detach().to(self.running_variance), self.momentum)
        return self.moved(x, mean, variance)

    def spread(self, x: Tensor, mean: Tensor) -> Tensor:
        """Frechet variance."""
        apart = poincare_gradients.distance if self.gradients == "manual" else poincare.distance
        return apart(x, mean, self.c).square().mean()

    def moved(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Points around the learned mean, with the learned variance."""
        target = poincare.exp_zero(self.mean, self.c)
        tangent = poincare.transported(poincare.log_at(mean, x, self.c), mean, target, self.c)
        back = poincare_gradients.exp_at if self.gradients == "manual" else poincare.exp_at
        return poincare.clamped(back(target, tangent * (self.variance / (variance + EPS)).sqrt(), self.c), self.c)


class NormOperator(BallOperator):
    """The norm in training: statistics of the batch, and no running ones, so that a run is like the next."""

    def __init__(self, form: str, gradients: str, length: int, width: int, curvature: float, backward: bool):
        super().__init__(form, length, width, curvature, backward)
        self.norm = BallNorm(width, curvature, "midpoint" if form == "euclidean" else form, gradients)
        with torch.no_grad():
            self.norm.mean.copy_(0.1 * torch.randn(width))

    def function(self, x: Tensor) -> Tensor:
        """Points [length, width]."""
        if self.form == "euclidean":
            return F.batch_norm(x, None, None, self.norm.variance.repeat(x.shape[1]), self.norm.mean, training=True)
        mean = mean_of(self.form, x, self.c)
        return self.norm.moved(x, mean, self.norm.spread(x, mean))

    def definition(self, x: Tensor) -> Tensor:
        """The same with maps from their definitions: vectors are carried along by gyrations made of additions."""
        if self.form == "euclidean":
            return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() * self.norm.variance + self.norm.mean
        add, c = poincare.mobius_add, self.c
        if self.form == "frechet":
            mean = poincare.frechet(x, c, 1e-12)[0]
        else:  # either closed form by the other
            mean = poincare.midpoint(x, c) if self.form == "klein" else poincare.klein(x, c)
        apart = add(-mean, x, c)
        norm = apart.norm(dim=-1, keepdim=True)
        tangent = (1 - c * mean.square().sum()) / c**0.5 * torch.atanh(c**0.5 * norm) * apart / norm
        variance = (2 / c**0.5 * torch.atanh(c**0.5 * norm)).square().mean()
        target = torch.tanh(c**0.5 * self.norm.mean.norm()) * self.norm.mean / (c**0.5 * self.norm.mean.norm())
        small = tangent / tangent.norm(dim=-1, keepdim=True) / 2 / c**0.5  # a gyration turns: any length does
        turned = add(-add(target, -mean, c), add(target, add(-mean, small, c), c), c)
        carried = turned / small.norm(dim=-1, keepdim=True) * tangent.norm(dim=-1, keepdim=True)
        carried = carried * (1 - c * target.square().sum()) / (1 - c * mean.square().sum())
        step = carried * (self.norm.variance / (variance + EPS)).sqrt() / (1 - c * target.square().sum())
        length = step.norm(dim=-1, keepdim=True)
        return add(target, torch.tanh(c**0.5 * length) * step / (c**0.5 * length), c)

    def costs(self, x: Tensor) -> dict[str, float | str]:
        """Steps of the iteration on these points."""
        return {"iterations": _steps(self.form, x, self.c)}


class MapOperator(BallOperator):
    """Distances of pairs, or the points that tangent vectors lead to."""

    def __init__(self, of: str, gradients: str, length: int, width: int, curvature: float, backward: bool):
        super().__init__(gradients, length, width, curvature, backward)
        self.of = of

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Pairs of points."""
        return self.points(self.length * batch), self.points(self.length * batch)

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """At most 64 pairs."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(self.points(min(64, self.length), generator) for _ in range(2))

    def function(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances [length], or points [length, width]."""
        if self.form == "manual":
            chosen = poincare_gradients.distance if self.of == "distance" else poincare_gradients.exp_at
        else:
            chosen = poincare.distance if self.of == "distance" else poincare.exp_at
        return chosen(x, y, self.c)

    def definition(self, x: Tensor, y: Tensor) -> Tensor:
        """By the other formula of the same map: atanh of the difference for the distance, autograd's for the map."""
        if self.of == "distance":
            return 2 / self.c**0.5 * torch.atanh(self.c**0.5 * poincare.mobius_add(-x, y, self.c).norm(dim=-1))
        step = y / (1 - self.c * x.square().sum(-1, keepdim=True))
        length = step.norm(dim=-1, keepdim=True)
        return poincare.mobius_add(x, torch.tanh(self.c**0.5 * length) * step / (self.c**0.5 * length), self.c)
