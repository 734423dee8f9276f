"""A mean and a deviation of every number of a latent, made of a second, smaller latent that is sent along.

Source: Minnen et al. 2018, "Joint Autoregressive and Hierarchical Priors for Learned Image Compression", arXiv
1809.02736, without the autoregressive part, in the shape of the SC2 benchmark (arXiv 2203.08875, MIT, read): 16
channels by default. Numbers are rounded to whole ones, whatever their mean (ours): what is decoded is the rounded
latent.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.serving import range_coding
from suites.serving.factorised_prior import LEAST, FactorisedPrior
from suites.serving.payloads import header, without_header

#: Smallest deviation.
NARROW = 0.11


class HyperPrior(nn.Module):
    """Gaussians of a latent's numbers; its own latent is coded by a factorised prior.

    Attributes:
        analysis: latent to second latent, on the device.
        synthesis: second latent to deviations and means, on both sides.
    """

    def __init__(self, channels: int, latent: int):
        super().__init__()
        wide = latent * 3 // 2
        self.prior = FactorisedPrior(latent)
        self.analysis = nn.Sequential(
            nn.Conv2d(channels, latent, 5, 2, 1, bias=False),
            nn.LeakyReLU(),
            nn.Conv2d(latent, latent, 5, 2, 2, bias=False),
        )
        self.synthesis = nn.Sequential(
            nn.ConvTranspose2d(latent, latent, 5, 2, 1, bias=False),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(latent, wide, 5, 2, 1, bias=False),
            nn.LeakyReLU(),
            nn.Conv2d(wide, 2 * channels, 5, bias=False),
        )

    def gaussians(self, second: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Means and deviations of the latent's numbers, both of its shape.

        Raises:
            ValueError: the second latent does not lead back to the latent's sides.
        """
        deviations, means = self.synthesis(second).chunk(2, 1)
        if means.shape[-2:] != like.shape[-2:]:
            raise ValueError(
                f"a latent of {tuple(like.shape[-2:])} comes back as {tuple(means.shape[-2:])} from its hyper-prior: "
                "take a resolution that is a multiple of 16, or hyper=0"
            )
        return means, F.softplus(deviations).clamp_min(NARROW)

    def bits(self, latent: Tensor, noise: bool) -> Tensor:
        """Bits of both latents, a number, with noise in place of rounding or rounded."""
        second = self.analysis(latent)
        second = _noisy(second) if noise else second.round()
        means, deviations = self.gaussians(second, latent)
        return self.prior.bits(second) - likelihood(latent, means, deviations).log2().sum()

    def update(self) -> None:
        """The tables of its own prior."""
        self.prior.update()

    def encode(self, latent: Tensor) -> bytes:
        """Shape, then of every sample the second latent and the rounded latent."""
        parts = [header(latent.shape)]
        for sample in latent.detach().split(1):
            second = self.analysis(sample).round()
            string = self.prior.encode(second)
            means, deviations = _numbers(*self.gaussians(second, sample))
            symbols = sample.round().cpu().numpy().astype(np.int64).reshape(-1)
            parts += [string, range_coding.coded_by_gaussians(symbols, means, deviations)]
        return b"".join(parts)

    def decode(self, payload: bytes) -> Tensor:
        """The rounded latent, exactly."""
        shape, body = without_header(payload)
        like, found = next(self.parameters()), []
        for _ in range(shape[0]):
            second, body = self.prior.read(bytes(body))
            given = torch.empty(1, *shape[1:], device="meta")
            means, deviations = _numbers(*self.gaussians(second.to(like), given))
            symbols, body = range_coding.read_by_gaussians(body, means, deviations)
            found.append(symbols.reshape(shape[1:]).astype(np.float32))
        return torch.from_numpy(np.stack(found))


def _noisy(latent: Tensor) -> Tensor:
    return latent + torch.rand_like(latent) - 0.5


def _numbers(means: Tensor, deviations: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both as the coder takes them."""
    mean, deviation = (v.detach().double().cpu().numpy().reshape(-1) for v in (means, deviations))
    return np.ascontiguousarray(mean), np.ascontiguousarray(deviation)


def likelihood(latent: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """Probability of the unit interval around every number; 1e-9 at least."""
    far = (latent - means).abs()
    upper = torch.special.ndtr((0.5 - far) / deviations)
    return (upper - torch.special.ndtr((-0.5 - far) / deviations)).clamp_min(LEAST)
