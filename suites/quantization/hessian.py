"""Curvature of a loss with respect to a layer's weights: top eigenvalue, trace, from Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Loss of the network as it stands, with a graph.
Closure = Callable[[], Tensor]


def hessian_vector(closure: Closure, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    """H v of the loss with respect to the parameters, by a second backward pass."""
    with torch.enable_grad():
        first = torch.autograd.grad(closure(), parameters, create_graph=True)
        inner = sum((g * v).sum() for g, v in zip(first, vectors, strict=True))
        if not isinstance(inner, Tensor) or not inner.requires_grad:
            return [torch.zeros_like(p) for p in parameters]
        found = torch.autograd.grad(inner, parameters, allow_unused=True)
    return [torch.zeros_like(p) if f is None else f for f, p in zip(found, parameters, strict=True)]


def top_eigenvalue(
    closure: Closure, parameters: Sequence[Tensor], *, iterations: int = 20, change: float = 0.01, seed: int = 0
) -> float:
    """The eigenvalue of largest magnitude, by power iteration until it changes by less than `change`."""
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    value = None
    for _ in range(iterations):
        norm = torch.sqrt(sum((v.square().sum() for v in vectors), torch.zeros(())))
        vectors = [v / norm.clamp(min=1e-30) for v in vectors]
        made = hessian_vector(closure, parameters, vectors)
        new = float(sum((m * v).sum() for m, v in zip(made, vectors, strict=True)))
        if value is not None and abs(new - value) <= change * abs(new):
            return new
        value, vectors = new, made
        if all(bool((v == 0).all()) for v in vectors):
            return 0.0
    return float(value or 0.0)


def trace(
    closure: Closure, parameters: Sequence[Tensor], *, samples: int = 50, change: float = 0.01, seed: int = 0
) -> float:
    """Hutchinson's estimate of the trace: the mean of v^T H v over signs v, until it changes by less than `change`."""
    generator = torch.Generator().manual_seed(seed)
    total, mean = 0.0, None
    for count in range(1, samples + 1):
        signs = [2.0 * torch.randint(0, 2, p.shape, generator=generator).to(p.dtype) - 1 for p in parameters]
        made = hessian_vector(closure, parameters, signs)
        total += float(sum((m * v).sum() for m, v in zip(made, signs, strict=True)))
        new = total / count
        if mean is not None and abs(new - mean) < change * (abs(mean) + 1e-6):
            return new
        mean = new
    return float(mean or 0.0)
