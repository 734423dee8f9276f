"""SSVI: a Bayesian network that is sparse all along; weights leave by their signal-to-noise and grow by gradient.

Source: Li et al. 2024, "Training Bayesian Neural Networks with Sparse Subspace Variational Inference",
arXiv:2402.11025, sections 3 and 4. Every weight has a mean and a deviation; while it learns, outputs are drawn and not
weights: conv(x, mu) + sqrt(conv(x^2, sigma^2)) eps, two products. The first layer is dense. An answer is that of the
means, or the mean of K networks whose weights are drawn, one product each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, Positive
from suites.common.training import classification
from suites.pruning.layers import prunable, swap
from suites.pruning.learning import BATCH, Pace, fit, fresh, once, task_of
from suites.pruning.rounding import exact

PRIOR = 0.005
EVERY = 100
DROP = 0.3
#: Training samples that the divergence is shared out over: those of digits; a task does not tell its own number.
TRAINING_SAMPLES = 1200
#: Products of convolutions by how many axes their places have.
CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def mean_size(mu: Tensor, sigma: Tensor) -> Tensor:
    """E|w| of a normal weight: mu erf(mu / (sigma sqrt 2)) + sigma sqrt(2 / pi) exp(-mu^2 / (2 sigma^2))."""
    ratio = mu / sigma
    return mu * torch.erf(ratio / math.sqrt(2)) + sigma * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio**2)


def signal_to_noise(mu: Tensor, sigma: Tensor) -> Tensor:
    """E|w| / sqrt(sigma^2 + mu^2 - (E|w|)^2)."""
    size = mean_size(mu, sigma)
    return size / (sigma**2 + mu**2 - size**2).clamp(min=1e-20).sqrt()


def counts_of(weights: int, kept: int) -> dict[str, int]:
    """What a layer tells of its products: all are executed, those of weights that are there count, backwards as well.

    The mask multiplies means and deviations before a product, so that a trace sees no zeros of its own.
    """
    return {"dense": weights, "nonzero": kept, "executed": weights, "trained": kept, "returned": kept}


class Variational(nn.Module):
    """A linear or convolutional layer whose weights are normal, under a mask.

    Attributes:
        sampling: whether an answer is that of drawn weights; else the mean network runs. Either is one product.
        watched: whether the means of weights that are not there receive a gradient as well.
    """

    mask: Tensor
    how: Any

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, mask: Tensor, sigma: float = 0.01):
        super().__init__()
        self.mean = nn.Parameter(layer.weight.detach() * mask)
        self.raw = nn.Parameter(torch.full_like(layer.weight, math.log(math.expm1(sigma))))
        self.bias = layer.bias
        self.how, self.edges = None, list[int]()  # edges: what F.pad adds around a map where it is no zeros
        if not isinstance(layer, nn.Linear):
            padding: Any = layer.padding
            self.mode = layer.padding_mode
            if self.mode != "zeros":
                self.edges, padding = list(layer._reversed_padding_repeated_twice), 0
            self.how = (layer.stride, padding, layer.dilation, layer.groups)
        self.register_buffer("mask", mask.clone())
        self.sampling = self.watched = False
        kept = int(mask.numel()) if mask.is_meta else int(mask.sum())
        self.weight_counts = counts_of(mask.numel(), kept)

    @property
    def weight(self) -> Tensor:
        """The means."""
        return self.mean

    def sigma(self) -> Tensor:
        """Deviations of the weights that are there."""
        return F.softplus(self.raw) * self.mask

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.how is None:
            return F.linear(x, weight, bias)
        x = F.pad(x, self.edges, mode=self.mode) if self.edges else x
        return CONVOLUTIONS[weight.ndim - 2](x, weight, bias, *self.how)

    def there(self) -> Tensor:
        """Means of the weights that are there, zero elsewhere."""
        kept = self.mean * self.mask
        absent = self.mean - kept
        return kept + (absent - absent.detach()) if self.watched else kept

    def forward(self, x: Tensor) -> Tensor:
        """Outputs: drawn while learning, else of the means or, where it samples, of drawn weights."""
        if self.sampling and not self.training:
            drawn = self.there() + self.sigma() * torch.randn_like(self.mean)
            return self._product(x, drawn, self.bias)
        out = self._product(x, self.there(), self.bias)
        if not self.training:
            return out
        variance = self._product(x.square(), self.sigma().square(), None)
        return out + (variance + 1e-12).sqrt() * torch.randn_like(out)

    def divergence(self) -> Tensor:
        """KL of the weights that are there to N(0, 0.005^2)."""
        sigma = F.softplus(self.raw)
        each = math.log(PRIOR) - sigma.log() + (sigma**2 + self.mean**2) / (2 * PRIOR**2) - 0.5
        return (each * self.mask).sum()


class Ensemble(nn.Module):
    """The mean of K drawn networks' probabilities as logarithms, or the network of the means.

    The draws are seeded anew at each forward, so that a run gives the same answer twice.
    """

    def __init__(self, network: nn.Module, samples: int):
        super().__init__()
        self.network, self.samples = network, samples
        for name in ("resolution", "channels", "classes", "task"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Those of the network."""
        return tuple(self.network.example_inputs(batch))  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of mean probabilities, [batch, classes]."""
        with torch.random.fork_rng(enabled=not x.is_meta):
            torch.manual_seed(0)
            drawn = [self.network(x).log_softmax(-1) for _ in range(self.samples)]
        return torch.stack(drawn).logsumexp(0) - math.log(self.samples)


def ssvi(
    model: nn.Module,
    *,
    density: KeepRate = 0.1,
    samples: Count = 0,
    steps: Count = 0,
    sigma: Positive = 0.01,
    prior_weight: Positive = 0.01,
    fixed: bool = False,
) -> nn.Module:
    """A network of normal weights under one shared mask, learned from nothing; two numbers are stored per weight.

    Args:
        model: any network with linear or convolutional layers.
        density: share of the weights of every layer but the first that is there.
        samples: networks drawn for an answer, K, at K times the products; 0 runs the means alone.
        steps: batches of learning on the model's task; 0 leaves its own weights as means.
        sigma: first deviation.
        prior_weight: of the divergence from the prior, over the 1,200 training samples of digits. The paper's 0.01 is
            of 50,000; with 1,200 it weighs forty times as much a sample, and 0.0003 is about the same.
        fixed: the mask never changes: a static random mask; False drops by signal-to-noise and grows by gradient.

    Raises:
        ValueError: no such layers, or steps without a task.
    """
    layers = prunable(model, "ssvi")
    if steps:
        fresh(model, 0)
    generator = torch.Generator().manual_seed(0)
    for at, (name, layer) in enumerate(layers.items()):
        weight: Tensor = layer.weight  # type: ignore[assignment]
        mask = torch.ones_like(weight, dtype=torch.bool)
        keep = kept_count(weight.numel(), density)
        if at and not weight.is_meta:
            order = torch.randperm(weight.numel(), generator=generator)
            mask.view(-1)[order[keep:]] = 0
        normal = Variational(layer, mask, sigma)  # type: ignore[arg-type]
        if at and weight.is_meta:
            normal.weight_counts = counts_of(mask.numel(), keep)
        swap(model, name, normal)
    if steps:
        key = {"density": density, "steps": steps, "sigma": sigma, "prior": prior_weight, "fixed": fixed}
        model.load_state_dict(once(model, ssvi, key, lambda cost: _learn(model, steps, prior_weight, fixed, cost)))
    model.eval()
    parts = [part for part in model.modules() if isinstance(part, Variational)]
    if samples:
        for part in parts:
            part.sampling = True
        model = Ensemble(model, samples)
    model.kernel = "mask"  # type: ignore[assignment]
    return model


def kept_count(weights: int, density: float) -> int:
    """How many weights are there: n - int((1 - density) n), one at least."""
    return max(1, weights - int((1 - exact(density)) * weights))


def _learn(model: nn.Module, steps: int, prior_weight: float, fixed: bool, cost: costs.Cost) -> dict[str, Tensor]:
    task, plain = task_of(model, "ssvi(steps)"), classification(model)
    parts = [part for part in model.modules() if isinstance(part, Variational)]
    done = 0

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal done
        if done and done % EVERY == 0 and not fixed:
            share = DROP * (1 + math.cos(math.pi * done / steps)) / 2
            watch(parts, lambda: plain(inputs, labels))
            for part in parts[1:]:
                regrow(part, share)
        done += 1
        warm = min(1.0, 2 * done / steps)
        divergence = torch.stack([part.divergence() for part in parts]).sum()
        return plain(inputs, labels) + warm * prior_weight / TRAINING_SAMPLES * divergence

    cost.samples += steps * BATCH
    fit(model, task.training_batches(BATCH, steps, 0), loss, Pace(steps, 3e-3, weight_decay=0.0))
    return model.state_dict()


def watch(parts: Sequence[Variational], loss: Callable[[], Tensor]) -> None:
    """Leave on every mean its gradient of the loss, those of weights that are not there included: `regrow` reads it."""
    for part in parts:
        part.watched = True
    gradients = torch.autograd.grad(loss(), [part.mean for part in parts])
    for part, gradient in zip(parts, gradients, strict=True):
        part.watched, part.mean.grad = False, gradient


@torch.no_grad()
def regrow(part: Variational, share: float) -> int:
    """Drop a share of the weights by signal-to-noise, grow as many by the gradient of their mean; how many.

    New means are 0 and new deviations the mean of the layer's.
    """
    there = part.mask.bool()
    count = int(share * int(there.sum()))
    gradient = part.mean.grad
    free = int((~there).sum())
    count = min(count, free)
    if not count or gradient is None:
        return 0
    sigma = F.softplus(part.raw)
    noise = torch.where(there, signal_to_noise(part.mean, sigma), torch.inf)
    gone = noise.flatten().topk(count, largest=False).indices
    wanted = torch.where(there, -torch.inf, gradient.abs())
    new = wanted.flatten().topk(count).indices
    typical = float(sigma[there].mean())
    flat = part.mask.view(-1)
    flat[gone] = 0
    flat[new] = 1
    part.mean.view(-1)[gone] = 0
    part.mean.view(-1)[new] = 0
    part.raw.view(-1)[new] = math.log(math.expm1(typical))
    return count
