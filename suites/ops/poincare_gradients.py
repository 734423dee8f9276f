"""Distance and exponential map of the Poincare ball with their gradients written out (arXiv 2303.14027, section 4.4).

Autograd keeps an intermediate of every small operation; these keep the arguments alone and compute the rest again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suites.ops import poincare


class Distance(torch.autograd.Function):
    """d(x, y) = 2 / sqrt(c) arsinh(sqrt(c) |x - y| / sqrt((1 - c |x|^2)(1 - c |y|^2)))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, c: float) -> Tensor:
        """Distances [...] of points [..., d]."""
        ctx.save_for_backward(x, y)
        ctx.c = c
        return poincare.distance(x, y, c)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of both points.

        With s = |x - y|^2, p = 1 - c |x|^2, q = 1 - c |y|^2, u = c s / (p q), d = 2 / sqrt(c) arsinh(sqrt u):
        d' = du / (sqrt(c) sqrt(u (1 + u))), and du / dx = 2 c (x - y) / (p q) + 2 c u x / p.
        """
        (gradient,) = gradients
        x, y = ctx.saved_tensors
        c = ctx.c
        apart = x - y
        p, q = (1 - c * point.square().sum(-1, keepdim=True) for point in (x, y))
        u = c * apart.square().sum(-1, keepdim=True) / (p * q)
        tiny = poincare.TINY.get(u.dtype, poincare.TINY_OTHERWISE)
        slope = torch.where(u > tiny, 1 / (c**0.5 * (u * (1 + u)).clamp(min=tiny).sqrt()), 0.0) * gradient[..., None]
        own = slope * (2 * c * apart / (p * q) + 2 * c * u * x / p) if ctx.needs_input_grad[0] else None
        other = slope * (-2 * c * apart / (p * q) + 2 * c * u * y / q) if ctx.needs_input_grad[1] else None
        return _summed(own, x), _summed(other, y), None


class ExpZero(torch.autograd.Function):
    """exp_0(v) = tanh(sqrt(c) |v|) v / (sqrt(c) |v|)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, c: float) -> Tensor:
        """Points of tangent vectors [..., d]."""
        ctx.save_for_backward(v)
        ctx.c = c
        return poincare.exp_zero(v, c)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """With r = sqrt(c) |v| and f = tanh(r) / r: f g + (1 - tanh^2 r - f) / |v|^2 (v . g) v."""
        (gradient,) = gradients
        (v,) = ctx.saved_tensors
        square = v.square().sum(-1, keepdim=True).clamp(min=poincare.TINY.get(v.dtype, poincare.TINY_OTHERWISE))
        r = (ctx.c * square).sqrt()
        turn = torch.tanh(r)
        f = turn / r
        along = (v * gradient).sum(-1, keepdim=True)
        return f * gradient + (1 - turn.square() - f) / square * along * v, None


class MobiusAdd(torch.autograd.Function):
    """Moebius addition x + y in the ball."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, c: float) -> Tensor:
        """Sums of points [..., d]."""
        ctx.save_for_backward(x, y)
        ctx.c = c
        return poincare.mobius_add(x, y, c)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of both from (A x + B y) / D, A = 1 + 2c xy + c yy, B = 1 - c xx, D = 1 + 2c xy + c^2 xx yy."""
        (gradient,) = gradients
        x, y = ctx.saved_tensors
        c = ctx.c
        xy, xx, yy = ((a * b).sum(-1, keepdim=True) for a, b in ((x, y), (x, x), (y, y)))
        a, b, d = 1 + 2 * c * xy + c * yy, 1 - c * xx, 1 + 2 * c * xy + c**2 * xx * yy
        g = gradient / d
        of_x, of_y = (g * x).sum(-1, keepdim=True), (g * y).sum(-1, keepdim=True)
        whole = (a * of_x + b * of_y) / d  # g . (A x + B y) / D: what a change of D takes away
        own = a * g + of_x * 2 * c * y - of_y * 2 * c * x - whole * (2 * c * y + 2 * c**2 * yy * x)
        other = b * g + of_x * (2 * c * x + 2 * c * y) - whole * (2 * c * x + 2 * c**2 * xx * y)
        return _summed(own, x), _summed(other, y), None


def _summed(gradient: Tensor | None, like: Tensor) -> Tensor | None:
    """A gradient summed over the axes along which its tensor was repeated."""
    return None if gradient is None else gradient.sum_to_size(like.shape)


def distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Distances with the gradient written out."""
    return Distance.apply(x, y, c)


def exp_at(p: Tensor, v: Tensor, c: float) -> Tensor:
    """The point that a tangent vector at p leads to, with the gradients written out."""
    return MobiusAdd.apply(p, ExpZero.apply(v * poincare.conformal(p, c) / 2, c), c)
