"""Means in the Poincare ball: a closed-form midpoint in place of an iteration (Poincare ResNet, arXiv 2303.14027).

Points x_i of the ball of curvature -c. With g_i = 1 / (1 - c |x_i|^2) the midpoint is m / (1 + sqrt(1 - c |m|^2)) for m
= sum w_i g_i x_i / sum w_i (g_i - 1/2), which is the same as averaging in Klein coordinates by Lorentz factors. The
Frechet mean minimises the squared distances; its iteration (Lou et al. 2020, arXiv 2003.00335, algorithm 1) starts at
the first point and takes the root of a quadratic each step. The two are one point for two points and different ones for
more.

Points near the rim (1 - c |x|^2 below 1e-7 in fp32) lose all digits: `clamped` keeps them inside.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-6
MOST_STEPS = 1000
#: Largest norm times sqrt(c) in single precision, and in double.
RIM = {torch.float64: 1 - 1e-12}
RIM_OTHERWISE = 1 - 4e-3
#: Dot products of a point with itself and norms are never below this where something is divided by them.
TINY = {torch.float64: 1e-30}
TINY_OTHERWISE = 1e-15


def clamped(x: Tensor, c: float) -> Tensor:
    """Points moved onto the largest radius that the dtype tells from the rim."""
    largest = RIM.get(x.dtype, RIM_OTHERWISE) / c**0.5
    norm = x.norm(dim=-1, keepdim=True)
    return torch.where(norm > largest, x / norm.clamp(min=largest) * largest, x)


def midpoint(x: Tensor, c: float, weights: Tensor | None = None) -> Tensor:
    """The gyromidpoint [d] of points [n, d]."""
    g = 1 / (1 - c * x.square().sum(-1, keepdim=True))
    w = 1.0 if weights is None else weights[:, None]
    total = (w * (g - 0.5)).sum(0)
    m = (w * g * x).sum(0) / total
    return m / (1 + (1 - c * m.square().sum()).clamp(min=0).sqrt())


def klein(x: Tensor, c: float) -> Tensor:
    """The same through Klein coordinates: there and back, a mean weighted by Lorentz factors between."""
    square = c * x.square().sum(-1, keepdim=True)
    inside = 2 * x / (1 + square)
    lorentz = (1 + square) / (1 - square)
    m = (lorentz * inside).sum(0) / lorentz.sum(0)
    return m / (1 + (1 - c * m.square().sum()).clamp(min=0).sqrt())


def frechet(x: Tensor, c: float, tolerance: float = TOLERANCE) -> tuple[Tensor, int]:
    """The Frechet mean [d] of points [n, d], and the steps it took.

    Raises:
        ArithmeticError: it does not come to rest.
    """
    scaled = x * c**0.5
    inner = scaled.square().sum(-1)
    y = scaled[0]
    for step in range(1, MOST_STEPS + 1):
        before = y
        ratio = (scaled - y).square().sum(-1) / ((1 - inner) * (1 - y.square().sum()))
        weight = _pull(ratio) / (1 - inner)
        a, b, d = weight.sum(), (weight[:, None] * scaled).sum(0), (weight * inner).sum()
        # 2 b / (s + sqrt(s^2 - 4 |b|^2)): the usual form divides by |b|^2, which is 0 where the mean is the origin
        s = a + d
        y = 2 * b / (s + (s.square() - 4 * b.square().sum()).clamp(min=0).sqrt())
        if x.is_meta or _at_rest(y.detach(), before.detach(), tolerance):
            return y / c**0.5, step
    raise ArithmeticError(
        f"the Frechet mean did not come to rest in {MOST_STEPS} steps: are points on the rim of the ball or beyond it?"
    )


def _at_rest(y: Tensor, before: Tensor, tolerance: float) -> bool:
    return float((y - before).norm()) <= tolerance  # of the unit ball that points are scaled to


def _pull(ratio: Tensor) -> Tensor:
    """2 arcosh(1 + 2 t) / sqrt(t^2 + t) = 4 arsinh(sqrt t) / sqrt(t (1 + t)), which is 4 at 0."""
    tiny = TINY.get(ratio.dtype, TINY_OTHERWISE)
    root = ratio.clamp(min=tiny).sqrt()
    return 4 * torch.asinh(root) / (root * (1 + ratio).sqrt())


def mobius_add(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Moebius addition x + y in the ball."""
    xy, xx, yy = ((a * b).sum(-1, keepdim=True) for a, b in ((x, y), (x, x), (y, y)))
    top = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    return top / (1 + 2 * c * xy + c**2 * xx * yy)


def gyration(a: Tensor, b: Tensor, v: Tensor, c: float) -> Tensor:
    """gyr[a, b] v, in its closed form without nested additions."""
    aa, bb, ab, av, bv = ((p * q).sum(-1, keepdim=True) for p, q in ((a, a), (b, b), (a, b), (a, v), (b, v)))
    left = -(c**2) * av * bb + c * bv + 2 * c**2 * ab * bv
    right = -(c**2) * bv * aa - c * av
    return v + 2 * (left * a + right * b) / (1 + 2 * c * ab + c**2 * aa * bb)


def conformal(x: Tensor, c: float) -> Tensor:
    """2 / (1 - c |x|^2), [..., 1]."""
    return 2 / (1 - c * x.square().sum(-1, keepdim=True))


def distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Distances [...] of points [..., d]."""
    apart = c * (x - y).square().sum(-1)
    room = (1 - c * x.square().sum(-1)) * (1 - c * y.square().sum(-1))
    return 2 / c**0.5 * torch.asinh((apart / room).clamp(min=TINY.get(x.dtype, TINY_OTHERWISE)).sqrt())


def exp_zero(v: Tensor, c: float) -> Tensor:
    """The point that a tangent vector at the origin leads to."""
    norm = _norm(v)
    return torch.tanh(c**0.5 * norm) * v / (c**0.5 * norm)


def log_zero(x: Tensor, c: float) -> Tensor:
    """The tangent vector at the origin that leads to a point."""
    norm = _norm(x)
    return torch.atanh((c**0.5 * norm).clamp(max=RIM.get(x.dtype, RIM_OTHERWISE))) * x / (c**0.5 * norm)


def exp_at(p: Tensor, v: Tensor, c: float) -> Tensor:
    """The point that a tangent vector at p leads to."""
    return mobius_add(p, exp_zero(v * conformal(p, c) / 2, c), c)


def log_at(p: Tensor, x: Tensor, c: float) -> Tensor:
    """The tangent vector at p that leads to x."""
    return log_zero(mobius_add(-p, x, c), c) * 2 / conformal(p, c)


def transported(v: Tensor, start: Tensor, end: Tensor, c: float) -> Tensor:
    """A tangent vector at `start`, moved along the geodesic to `end`."""
    return gyration(end, -start, v, c) * conformal(start, c) / conformal(end, c)


def _norm(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True).clamp(min=TINY.get(x.dtype, TINY_OTHERWISE)).sqrt()
