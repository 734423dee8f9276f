"""One level of the Haar transform and its inverse as grouped convolutions, and a filter between them.

The filters are orthonormal (entries of 1/2) and never trained: 16 numbers a channel for each of the two transforms.
Source: Finder et al. 2024, Wavelet Convolutions for Large Receptive Fields, arXiv:2407.05848, section 3.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def haar_filters() -> Tensor:
    """The four orthonormal 2 x 2 filters, [4, 2, 2]: mean, and differences across rows, columns and both."""
    low, high = torch.tensor([0.5, 0.5]) * 2**0.5, torch.tensor([0.5, -0.5]) * 2**0.5
    return torch.stack([torch.outer(a, b) for a in (low, high) for b in (low, high)])


def analyse(x: Tensor, filters: Tensor) -> Tensor:
    """[batch, 4 g, ceil(height / 2), ceil(width / 2)] of a map of g channels; odd sides are padded with zeros."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    return F.conv2d(x, filters, stride=2, groups=x.shape[1])


def synthesise(y: Tensor, filters: Tensor, height: int, width: int) -> Tensor:
    """The map of g channels whose transform y [batch, 4 g, ...] is, cropped to its size."""
    return F.conv_transpose2d(y, filters, stride=2, groups=y.shape[1] // 4)[:, :, :height, :width]


class WaveletFilter(nn.Module):
    """Haar transform, k x k depthwise filter of the 4 g maps, times a vector, the transform back."""

    filter: Tensor
    filter_back: Tensor

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        filters = haar_filters().repeat(channels, 1, 1)[:, None]
        self.register_buffer("filter", filters)
        self.register_buffer("filter_back", filters.clone())
        inner = 4 * channels
        self.between = nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner, bias=False)
        self.scale = nn.Parameter(torch.full((inner, 1, 1), 0.1))

    @property
    def filters(self) -> int:
        """Numbers of the frozen filters."""
        return self.filter.numel() + self.filter_back.numel()

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, g, height, width]."""
        y = self.between(analyse(x, self.filter)) * self.scale
        return synthesise(y, self.filter_back, *x.shape[2:])
