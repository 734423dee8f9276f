"""Random features whose dot products stand for a function of w . x, y = Phi(x) . Psi(w) (arXiv 2310.13225, section 3).

- `relu`: phi(z) = relu(G z) / sqrt(m), G normal: the expected product is the first-order arc-cosine kernel
  |x| |w| (sin t + (pi - t) cos t) / (2 pi) at angle t (Cho & Saul 2009), which is not relu(w . x).
- universal features: with f(u) = integral of tau(xi) exp(2 pi i xi u) and xi drawn from p,
  A exp(a g . z - a^2 |z|^2 / 2) / sqrt(m), a = sqrt(2 pi i xi), where A is tau / p on the side of the weights and 1 on
  the other: the expected product is exp(a^2 w . x) tau / p. `cos` and `sin` have the two frequencies +-1/(2 pi) of
  weight 1/2 and -+i/2; `gauss`, exp(-u^2/2), has xi normal of deviation 1/(2 pi) and tau = p. The real part alone is
  formed: a complex feature is two real ones. The variance grows like exp(|z|^2), so norms must be small.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["relu", "cos", "sin", "gauss"]
COMPLEX = ("cos", "sin", "gauss")


class Features(nn.Module):
    """A fixed projection G [m, d] and the features of inputs and of weights; stored and never trained.

    Attributes:
        size: real numbers of a feature vector: m, or 2 m where features are complex.
    """

    projection: Tensor
    frequencies: Tensor

    def __init__(self, inner: int, m: int, kind: Kind = "relu", orthogonal: bool = False):
        super().__init__()
        self.kind, self.m = kind, m
        self.size = 2 * m if kind in COMPLEX else m
        self.register_buffer("projection", orthogonal_rows(m, inner) if orthogonal else torch.randn(m, inner))
        self.register_buffer("frequencies", _frequencies(kind, m))

    def of_inputs(self, z: Tensor) -> Tensor:
        """Phi of inputs [..., d], [..., size]."""
        if self.kind == "relu":
            return F.relu(F.linear(z, self.projection)) / math.sqrt(self.m)
        real, imaginary = self._exponentials(z)
        return torch.cat([real, -imaginary], dim=-1) / math.sqrt(self.m)

    def of_weights(self, z: Tensor) -> Tensor:
        """Psi of weights [l, d], [l, size], so that the real part of the product is a plain dot product."""
        if self.kind == "relu":
            return self.of_inputs(z)
        real, imaginary = self._exponentials(z)
        if self.kind == "sin":  # times tau / p = -i sign(xi): turns (re, im) into sign (im, -re)
            sign = torch.sign(self.frequencies)
            real, imaginary = sign * imaginary, -sign * real
        return torch.cat([real, imaginary], dim=-1) / math.sqrt(self.m)

    def _exponentials(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of exp(a g . z - a^2 |z|^2 / 2), both [..., m].

        With 2 pi xi = s c^2 (s the sign, c >= 0), a = c (1 + s i) / sqrt(2) and a^2 = s i c^2.
        """
        turn = 2 * math.pi * self.frequencies
        root = turn.abs().sqrt() / math.sqrt(2)
        reach = F.linear(z, self.projection) * root
        angle = torch.sign(turn) * reach - turn * z.square().sum(dim=-1, keepdim=True) / 2
        size = torch.exp(reach)
        return size * torch.cos(angle), size * torch.sin(angle)

    def extra_repr(self) -> str:
        """What they are features of."""
        return f"{self.kind}, m={self.m}"


def _frequencies(kind: Kind, m: int) -> Tensor:
    """The xi of every feature; zeros where there are none."""
    if kind == "gauss":
        return torch.randn(m) / (2 * math.pi)
    if kind in COMPLEX:
        return (1 - 2 * (torch.arange(m) % 2)).float() / (2 * math.pi)
    return torch.zeros(m)


def orthogonal_rows(m: int, inner: int) -> Tensor:
    """Rows [m, d] that are orthogonal within each block of d, of the lengths of normal ones."""
    parts = []
    for start in range(0, m, inner):
        q, _ = torch.linalg.qr(torch.randn(inner, inner))
        parts.append(q[: min(inner, m - start)])
    rows = torch.cat(parts)
    return rows * torch.randn(m, inner).norm(dim=1, keepdim=True)


def arc_cosine(x: Tensor, w: Tensor) -> Tensor:
    """What the product of ReLU features tends to: |x| |w| (sin t + (pi - t) cos t) / (2 pi), over the last axis."""
    sizes = x.norm(dim=-1) * w.norm(dim=-1)
    cosine = ((x * w).sum(dim=-1) / sizes.clamp(min=1e-12)).clamp(-1, 1)
    angle = torch.acos(cosine)
    return sizes * (torch.sin(angle) + (math.pi - angle) * cosine) / (2 * math.pi)


def snnk_macs(inner: int, outer: int, m: int, kind: Kind = "relu") -> int:
    """Products of one token of a layer: m d + m l, or m d + 2 m l with complex features."""
    return m * inner + (2 if kind in COMPLEX else 1) * m * outer


def snnk_parameters(inner: int, outer: int, m: int, kind: Kind = "relu") -> dict[str, int]:
    """The three counts of a layer: `trainable` m l + l, `stored` with the projection m d, `dense` d l + l.

    Stored leaves out the m frequencies of complex features.
    """
    trainable = (2 if kind in COMPLEX else 1) * m * outer + outer
    return {"trainable": trainable, "stored": trainable + m * inner, "dense": inner * outer + outer}


def break_even_m(inner: int, outer: int) -> float:
    """m* = d l / (d + l), below which a layer of real features makes fewer products than the dense one."""
    return inner * outer / (inner + outer)
