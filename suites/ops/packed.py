"""Transforms of real numbers by complex ones of half the size: even places are the real part, odd ones the imaginary.

With Z the transform of z[t] = x[2t] + i x[2t + 1] over m = n / 2 points, X[k] = (Z[k] + Z*[m - k]) / 2 - i W_n^k
(Z[k] - Z*[m - k]) / 2 for k = 0 .. m, where Z[m] is Z[0]. The spectrum stands in the layout of the factors, so that
m - k is looked up.

Sources: Sorensen et al. 1987, Real-valued fast Fourier transform algorithms, IEEE Trans. ASSP 35(6), section II; sizes
512 and 2048 of Fu et al. 2023, FlashFFTConv (arXiv 2311.05908), section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suites.ops import monarch


class Packed:
    """A transform of n = 2 m real numbers by one of m complex ones; a spectrum is pairs [..., 2, m + 1], X[m] last."""

    def __init__(self, transform: monarch.Transform, like: Tensor):
        """Prepare what unpacks.

        Args:
            transform: of half as many points, all of its rows kept.
            like: gives dtype and device.
        """
        self.transform = transform
        half = transform.size
        stands = frequencies(transform.factors)  # which frequency stands where
        where = stands.argsort()  # where a frequency stands
        self.mirror = where[(half - stands) % half].to(like.device)
        # behind the product X[m] is there itself, and zero's mirror image is it
        self.mirror_of_all = torch.where(stands == 0, half, self.mirror.cpu()).to(like.device)
        angles = -math.pi * stands.double() / half
        self.turns = monarch.as_pair(torch.polar(torch.ones_like(angles), angles), like)

    def forward(self, x: Tensor) -> Tensor:
        """The spectrum of real numbers [..., n], over the square root of m."""
        z = self.transform.forward(x.unflatten(-1, (-1, 2)).transpose(-2, -1)).flatten(x.dim())
        even, odd = self._apart(z, z[..., self.mirror])
        # -i (a + b i) = b - a i
        turned = torch.stack([odd.select(-2, 1), -odd.select(-2, 0)], -2)
        whole = even + monarch.products(turned, self.turns, -2)
        first = z[..., :1]
        last = torch.stack([first[..., 0, :] - first[..., 1, :], torch.zeros_like(first[..., 0, :])], -2)
        return torch.cat([whole, last], -1)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Real numbers [..., n] of what `forward` gives, or of a product of it with a spectrum."""
        own, mirror = spectrum[..., :-1], spectrum[..., self.mirror_of_all]
        even, odd = self._apart(own, mirror)
        back = torch.stack([self.turns[0], -self.turns[1]])
        odd = monarch.products(odd, back, -2)
        z = even + torch.stack([-odd.select(-2, 1), odd.select(-2, 0)], -2)
        return self.transform.inverse(z.unflatten(-1, self.transform.factors)).transpose(-2, -1).flatten(-2)

    @staticmethod
    def _apart(own: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
        """(X[k] + X*[m - k]) / 2 and (X[k] - X*[m - k]) / 2 of pairs [..., 2, m]."""
        conjugate = torch.stack([mirror.select(-2, 0), -mirror.select(-2, 1)], -2)
        return (own + conjugate) / 2, (own - conjugate) / 2


def frequencies(factors: tuple[int, ...]) -> Tensor:
    """The frequency k1 + f1 k2 + f1 f2 k3 ... at each place [k1, k2, ...] of the layout, flattened."""
    found, step = torch.zeros(1, dtype=torch.long), 1
    for factor in factors:
        found = (found[:, None] + step * torch.arange(factor)).flatten()
        step *= factor
    return found
