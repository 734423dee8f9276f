"""Gaussian processes in one or more dimensions: draws from the prior, and the exact posterior by Cholesky.

The kernel is s^2 exp(-|x - x'|^2 / (2 l^2)), observations have noise of standard deviation e; parameters are log l, log
s, log e. Formulas: Rasmussen and Williams 2006, section 2.2, algorithm 2.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: log of length, amplitude and noise: what is known, and how far it wanders where it is drawn for each data set.
CENTRE = (math.log(0.2), 0.0, math.log(0.1))
SPREAD = (0.5, 0.3, 0.5)


def kernel(x: Tensor, z: Tensor, parameters: Tensor) -> Tensor:
    """Covariances [..., n, m] of points [..., n, features] and [..., m, features]; parameters [..., 3]."""
    length, amplitude, _ = parameters.exp()[..., None, None].unbind(-3)
    apart = (x[..., :, None, :] - z[..., None, :, :]).square().sum(-1)
    return amplitude.square() * (-0.5 * apart / length.square()).exp()


def factor(x: Tensor, parameters: Tensor) -> Tensor:
    """Cholesky factor [..., n, n] of the covariance of observations at points [..., n, features]."""
    noise = parameters[..., 2].exp().square() + 1e-6
    return torch.linalg.cholesky(kernel(x, x, parameters) + noise[..., None, None] * torch.eye(x.shape[-2]).to(x))


def posterior(x: Tensor, y: Tensor, asked: Tensor, parameters: Tensor) -> Tensor:
    """Mean and variance of an observation at each query, [..., q, 2].

    Args:
        x: training points, [..., n, features].
        y: observations, [..., n].
        asked: queries, [..., q, features].
        parameters: log l, log s, log e, [..., 3].
    """
    lower = factor(x, parameters)
    across = torch.linalg.solve_triangular(lower, kernel(x, asked, parameters), upper=False)
    white = torch.linalg.solve_triangular(lower, y[..., None], upper=False)
    mean = (across.transpose(-1, -2) @ white)[..., 0]
    _, amplitude, noise = parameters.exp().square().unbind(-1)
    variance = (amplitude + noise)[..., None] + 1e-6 - across.square().sum(-2)
    return torch.stack([mean, variance.clamp_min(1e-9)], -1)


def log_evidence(x: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
    """Log density of all observations together, [...]."""
    lower = factor(x, parameters)
    white = torch.linalg.solve_triangular(lower, y[..., None], upper=False)[..., 0]
    logs = lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * white.square().sum(-1) - logs - 0.5 * x.shape[-2] * math.log(2 * math.pi)


def mixture_density(answer: Tensor, y: Tensor) -> Tensor:
    """Log density of y [batch, q] under an even mixture of normals, mean and variance [batch, draws, q, 2]."""
    mean, variance = answer.unbind(-1)
    each = -0.5 * ((y[:, None] - mean).square() / variance + variance.log() + math.log(2 * math.pi))
    return each.logsumexp(1) - math.log(answer.shape[1])


def parameters_of(count: int, *, drawn: bool, generator: torch.Generator) -> Tensor:
    """Parameters of data sets, [count, 3]: the known ones, or each data set's own."""
    centre = torch.tensor(CENTRE).expand(count, 3)
    return centre + torch.tensor(SPREAD) * torch.randn(count, 3, generator=generator) if drawn else centre


def data_sets(
    count: int, points: int, *, drawn: bool, generator: torch.Generator, features: int = 1
) -> tuple[Tensor, Tensor]:
    """Points in 0..1 [count, points, features] and observations [count, points] of functions from the prior."""
    x = torch.rand(count, points, features, generator=generator)
    lower = factor(x.double(), parameters_of(count, drawn=drawn, generator=generator).double())
    white = torch.randn(count, points, 1, generator=generator)
    return x, (lower @ white.double())[..., 0].float()
