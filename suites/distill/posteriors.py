"""What a prior-data fitted network replaces: posteriors that are computed or sampled anew for every data set.

- `gp_exact`: a Gaussian process of known kernel by Cholesky, O(n^3);
- `gp_sampled`: the same with its three kernel parameters sampled by Metropolis steps, one chain a data set;
- `bnn_hmc`: a small Bayesian perceptron sampled by Hamiltonian dynamics (Neal 2011, section 5.2).

All take (x [batch, n, features], y [batch, n], queries [batch, q, features]) and give normals, mean and variance
[batch, draws, q, 2]. Random numbers of a chain are the same for every data set and every run, so that a data set's
answer depends on nothing else.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common import gaussian_process as gp


class Posterior(nn.Module):
    """A posterior without weights."""

    like: Tensor

    def __init__(self, points: int, queries: int, features: int):
        super().__init__()
        self.shape_of, self.features = [points, queries], features
        self.register_buffer("like", torch.tensor(gp.CENTRE))

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random training points, what they give, and queries."""
        known, asked = self.shape_of
        x = torch.rand(batch, known + asked, self.features).to(self.like)
        return x[:, :known], torch.randn(batch, known).to(self.like), x[:, known:]

    def log_density(self, answer: Tensor, y: Tensor) -> Tensor:
        """Log density of y [batch, q] under the mixture of normals, [batch, q]."""
        return gp.mixture_density(answer, y)


class GpExact(Posterior):
    """The Gaussian process of known kernel."""

    def forward(self, x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        """Mean and variance of each query, [batch, 1, q, 2]."""
        return gp.posterior(x, y, asked, self.like.expand(len(x), 3))[:, None]


class GpSampled(Posterior):
    """The Gaussian process whose kernel parameters are sampled from their posterior."""

    noise: Tensor
    luck: Tensor
    spread: Tensor

    def __init__(self, points: int, queries: int, features: int, steps: int, kept: int, reach: float):
        super().__init__(points, queries, features)
        self.kept, self.reach = kept, reach
        random = np.random.default_rng(0)
        draws = {
            "noise": random.standard_normal((steps, 3)),
            "luck": np.log(random.uniform(size=steps)),
            "spread": gp.SPREAD,
        }
        for name, value in draws.items():
            self.register_buffer(name, torch.tensor(np.asarray(value, dtype=np.float32)), persistent=False)

    def chances(self, x: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
        """Log density of parameters [batch, 3] and observations, up to a constant, [batch]."""
        prior = -0.5 * ((parameters - self.like) / self.spread).square().sum(-1)
        return prior + gp.log_evidence(x, y, parameters)

    def chain(self, x: Tensor, y: Tensor) -> Tensor:
        """Parameters after each step, [steps, batch, 3]."""
        at = self.like.expand(len(x), 3)
        chance, found = self.chances(x, y, at), list[Tensor]()
        for noise, luck in zip(self.noise, self.luck, strict=True):
            proposed = at + self.reach * self.spread * noise
            other = self.chances(x, y, proposed)
            taken = luck < other - chance
            at, chance = torch.where(taken[:, None], proposed, at), torch.where(taken, other, chance)
            found.append(at)
        return torch.stack(found)

    def forward(self, x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        """Mean and variance of each query under evenly spaced draws of the chain's second half, [batch, kept, q, 2]."""
        chain = self.chain(x, y)
        steps = len(chain)
        places = [steps // 2 + (steps - steps // 2) * number // self.kept for number in range(self.kept)]
        parameters = torch.stack([chain[place] for place in places], 1)
        x, y, asked = (side[:, None].expand(-1, self.kept, *side.shape[1:]) for side in (x, y, asked))
        return gp.posterior(x, y, asked, parameters)


class BnnHmc(Posterior):
    """A Bayesian perceptron of one hidden layer, weights N(0, 1) over the root of what they add up, noise known."""

    momentum: Tensor
    luck: Tensor
    begin: Tensor

    def __init__(
        self, points: int, queries: int, features: int, hidden: int, burn: int, kept: int, leaps: int, step: float
    ):
        super().__init__(points, queries, features)
        self.hidden, self.burn, self.leaps, self.step = hidden, burn, leaps, step
        self.sizes = [features * hidden, hidden, hidden, 1]
        count, random = sum(self.sizes), np.random.default_rng(0)
        draws = {
            "momentum": random.standard_normal((burn + kept, count)),
            "luck": np.log(random.uniform(size=burn + kept)), "begin": 0.5 * random.standard_normal(count),
        }  # fmt: skip
        for name, value in draws.items():
            self.register_buffer(name, torch.tensor(np.asarray(value, dtype=np.float32)), persistent=False)

    def function(self, weights: Tensor, x: Tensor) -> Tensor:
        """Values [batch, n] of networks [batch, weights] at points [batch, n, features]."""
        first, bias, last, shift = weights.split(self.sizes, -1)
        inner = x @ first.unflatten(-1, (self.features, self.hidden)) * 5  # functions bend within the unit interval
        return ((inner + 3 * bias[:, None]).tanh() @ last[..., None])[..., 0] / math.sqrt(self.hidden) * 2 + shift

    def potential(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Negative log density of weights and observations, up to a constant, [batch]."""
        noise = self.like[2].exp()
        misfit = ((self.function(weights, x) - y) / noise).square().sum(-1)
        return 0.5 * (misfit + weights.square().sum(-1))

    def slope(self, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the potential, [batch, weights]."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf, given, told = (side.detach().clone() for side in (weights, x, y))
            value = self.potential(leaf.requires_grad_(), given, told).sum()
            return torch.autograd.grad(value, leaf)[0]

    def forward(self, x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        """Mean and variance of each query under each draw, [batch, kept, q, 2]."""
        at, kept = self.begin.expand(len(x), -1), list[Tensor]()
        for number, (momentum, luck) in enumerate(zip(self.momentum, self.luck, strict=True)):
            at = self._leap(at, momentum, luck, x, y)
            if number >= self.burn:
                kept.append(self.function(at, asked))
        mean = torch.stack(kept, 1)
        return torch.stack([mean, self.like[2].exp().square().expand_as(mean)], -1)

    def _leap(self, at: Tensor, momentum: Tensor, luck: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Weights after one trajectory of leapfrog steps, or as they were where it is refused."""
        place, speed = at, momentum.expand(len(x), -1)
        before = self.potential(at, x, y) + 0.5 * speed.square().sum(-1)
        speed = speed - 0.5 * self.step * self.slope(place, x, y)
        for leap in range(self.leaps):
            place = place + self.step * speed
            share = 0.5 if leap == self.leaps - 1 else 1.0
            speed = speed - share * self.step * self.slope(place, x, y)
        after = self.potential(place, x, y) + 0.5 * speed.square().sum(-1)
        return torch.where((luck < before - after)[:, None], place, at)


def gp_exact(*, points: PositiveInt = 50, queries: PositiveInt = 10, features: PositiveInt = 1) -> GpExact:
    """The exact posterior of a Gaussian process whose kernel is known.

    Args:
        points: n of the example inputs.
        queries: q of the example inputs.
        features: of a point.
    """
    return GpExact(points, queries, features).eval()


def gp_sampled(
    *,
    points: PositiveInt = 50,
    queries: PositiveInt = 10,
    features: PositiveInt = 1,
    steps: PositiveInt = 200,
    kept: PositiveInt = 20,
    reach: Positive = 0.5,
) -> GpSampled:
    """The posterior of a Gaussian process whose three kernel parameters are sampled.

    Args:
        points: n of the example inputs.
        queries: q of the example inputs.
        features: of a point.
        steps: Metropolis steps.
        kept: draws of the second half that answer.
        reach: of a step, over the spread of the parameters' prior.

    Raises:
        ValueError: more draws than the second half has steps.
    """
    if kept > steps - steps // 2:
        raise ValueError(f"kept={kept} draws are more than the second half of steps={steps}")
    return GpSampled(points, queries, features, steps, kept, reach).eval()


def bnn_hmc(
    *,
    points: PositiveInt = 50,
    queries: PositiveInt = 10,
    features: PositiveInt = 1,
    hidden: PositiveInt = 20,
    burn: Count = 60,
    kept: PositiveInt = 40,
    leaps: PositiveInt = 30,
    step: Positive = 0.004,
) -> BnnHmc:
    """The posterior of a small Bayesian perceptron, sampled by Hamiltonian dynamics.

    Args:
        points: n of the example inputs.
        queries: q of the example inputs.
        features: of a point.
        hidden: units.
        burn: trajectories that are thrown away.
        kept: trajectories that answer.
        leaps: leapfrog steps of a trajectory.
        step: of time.
    """
    return BnnHmc(points, queries, features, hidden, burn, kept, leaps, step).eval()
