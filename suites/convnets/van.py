"""VAN: a map from 5x5, dilated 7x7 and 1x1 layers multiplied onto the features.

Source: Guo et al. 2022, Visual Attention Network, arXiv:2202.09741; figure 3 and table 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import LayerNorm2d, PooledHead, at, conv_norm, depthwise
from suites.common.feature_operator import FeatureOperator
from suites.common.slow_convolution import convolved, convolved_densely

#: Widths of the first hidden layer of a stage's MLP over its own width.
MLP_RATIOS = (8, 8, 4, 4)


class LargeKernelAttention(nn.Module):
    """u * map(u): a 21x21 view from a 5x5 depthwise, a 7x7 depthwise of dilation 3 and a 1x1 layer.

    C (25 + 49 + C) MACs a pixel.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.near = depthwise(channels, 5)
        self.far = depthwise(channels, 7, dilation=3)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """The same shape."""
        return u * self.mix(self.far(self.near(u)))


class _Block(nn.Module):
    def __init__(self, channels: int, ratio: int):
        super().__init__()
        hidden = ratio * channels
        self.norm1 = nn.BatchNorm2d(channels)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
            LargeKernelAttention(channels),
            nn.Conv2d(channels, channels, 1),
        )
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), depthwise(hidden, 3), nn.GELU(), nn.Conv2d(hidden, channels, 1)
        )
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.scale1 * (self.gate(y) + y)
        return x + self.scale2 * self.mlp(self.norm2(x))


def van(*, dims: Counts, depths: Counts, classes: PositiveInt = 1000, resolution: PositiveInt = 224) -> nn.Sequential:
    """A VAN classifier of images [batch, 3, height, width].

    Args:
        dims: widths of the four stages.
        depths: their blocks.
        classes: logits.
        resolution: side of the input; any from 32.

    Raises:
        UsageError: widths and depths are not of four stages.
    """
    if len(dims) != 4 or len(depths) != 4:
        raise UsageError(f"van: dims={dims} and depths={depths} must name four stages")
    stages: list[nn.Module] = []
    before = 3
    for place, (width, depth, ratio) in enumerate(zip(dims, depths, MLP_RATIOS, strict=True)):
        kernel, stride = (7, 4) if place == 0 else (3, 2)
        enter = conv_norm(before, width, kernel, stride, bias=True)
        stages.append(nn.Sequential(enter, *(_Block(width, ratio) for _ in range(depth)), LayerNorm2d(width, eps=1e-6)))
        before = width
    return at(nn.Sequential(*stages, PooledHead(before, classes)), resolution)


def lka(*, width: PositiveInt = 64, resolution: PositiveInt = 56) -> FeatureOperator:
    """The bare map as an operator on features [batch, width, resolution, resolution], beside a dense one."""
    return FeatureOperator(LargeKernelAttention(width), (width, resolution, resolution), reference=_densely)


def _densely(layer: nn.Module, u: Tensor) -> Tensor:
    """The map by a sum over 5x5 taps, a dense kernel of 19x19 with every third tap, and a product at each pixel."""
    assert isinstance(layer, LargeKernelAttention)
    return u * convolved(layer.mix, convolved_densely(layer.far, convolved(layer.near, u), 3))
