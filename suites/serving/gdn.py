"""Divisive normalisation with absolute values: each channel over an affine sum of all magnitudes at its place.

Source: Balle 2018, "Efficient Nonlinear Transforms for Lossy Image Compression", arXiv 1802.00847, equation 3: y_i =
x_i / (beta_i + sum_j gamma_ij |x_j|); the inverse multiplies. The sum is a 1 x 1 convolution and is counted as one: C^2
products at each place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Keeps the gradient of a root at zero, and beta away from it.
PEDESTAL, LEAST_BETA, FIRST_GAMMA = 2.0**-36, 1e-6, 0.1


class Gdn(nn.Module):
    """GDN1 of maps [batch, channels, height, width]; beta and gamma are kept as roots, so that they stay positive."""

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter((torch.ones(channels) + PEDESTAL).sqrt())
        self.gamma_root = nn.Parameter((FIRST_GAMMA * torch.eye(channels) + PEDESTAL).sqrt())

    @property
    def beta(self) -> Tensor:
        """What a channel is divided by where all are zero, [channels]."""
        return self.beta_root.square().clamp_min(LEAST_BETA)

    @property
    def gamma(self) -> Tensor:
        """How much each magnitude counts for each channel, [channels, channels]."""
        return (self.gamma_root.square() - PEDESTAL).clamp_min(0)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        size = F.conv2d(x.abs(), self.gamma[:, :, None, None], self.beta)
        return x * size if self.inverse else x / size
