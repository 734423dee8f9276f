"""ShuffleMixer: super-resolution by 7x7 depthwise layers and channels that are split and shuffled, CFSR's baseline.

Source: Sun, Pan and Tang 2022, ShuffleMixer, arXiv:2205.15175; section 3. Counts are those printed (394 K and 91 G
for x2, 411 K and 28 G for x4, of pictures of 1280 x 720); where biases and shuffles stand is rebuilt.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import LayerNorm2d, Residual, at, depthwise

WIDTH, BLOCKS, KERNEL = 64, 5, 7
#: Channels by which the 3x3 layer of a block is wider, and groups of the shuffle.
WIDER, SHUFFLED = 16, 8


class SplitMlp(nn.Module):
    """An MLP of ratio 2 on the first half of the channels; then all are shuffled."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.norm = LayerNorm2d(channels)
        self.mlp = nn.Sequential(nn.Conv2d(half, channels, 1), nn.SiLU(), nn.Conv2d(channels, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        first, second = self.norm(x).chunk(2, 1)
        y = torch.cat((self.mlp(first), second), 1)
        return y.unflatten(1, (SHUFFLED, -1)).transpose(1, 2).flatten(1, 2)


class MixerBlock(nn.Module):
    """Two shuffle mixers (MLP, 7x7 depthwise, MLP) with a shortcut, then 3x3 and 1x1 with another."""

    def __init__(self, channels: int):
        super().__init__()
        mixers: list[nn.Module] = []
        for _ in range(2):
            mixers += [Residual(SplitMlp(channels)), depthwise(channels, KERNEL), Residual(SplitMlp(channels))]
        self.mixers = Residual(nn.Sequential(*mixers))
        wide = channels + WIDER
        conv = nn.Sequential(nn.Conv2d(channels, wide, 3, padding=1), nn.SiLU(), nn.Conv2d(wide, channels, 1))
        self.conv = Residual(conv)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.conv(self.mixers(x))


class ShuffleMixer(nn.Module):
    """Pictures [batch, 3, height, width] to [batch, 3, scale height, scale width]."""

    wide = False

    def __init__(self, scale: int, width: int, blocks: int):
        super().__init__()
        self.scale = scale
        self.enter = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(MixerBlock(width) for _ in range(blocks)))
        steps = [2] * (scale // 2) if scale != 3 else [3]
        grown: list[nn.Module] = []
        for step in steps:
            grown += [nn.Conv2d(width, width * step * step, 1, bias=False), nn.PixelShuffle(step), nn.SiLU()]
        self.grow = nn.Sequential(*grown)
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged pictures."""
        plain = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return self.leave(self.grow(self.blocks(self.enter(x)))) + plain

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random pictures, square or of 16:9."""
        side = int(self.resolution)  # type: ignore[arg-type]
        across = side * 16 // 9 if self.wide else side
        return (torch.rand(batch, 3, side, across, device=next(self.parameters()).device),)


def shufflemixer(
    *, scale: Literal[2, 3, 4] = 4, width: PositiveInt = WIDTH, blocks: PositiveInt = BLOCKS, wide: bool = False,
    resolution: PositiveInt = 48,
) -> ShuffleMixer:  # fmt: skip
    """A ShuffleMixer.

    Args:
        scale: how much it enlarges.
        width: channels, of which a half goes through MLPs.
        blocks: of two mixers and a convolution each.
        wide: pictures of 16:9 in place of square ones; the resolution is their height, 180 (x4) or 360 (x2) in the
            published counts.
        resolution: side of the input.

    Raises:
        UsageError: the shuffle's groups do not divide the width.
    """
    if width % SHUFFLED:
        raise UsageError(f"shufflemixer: width={width} must be a multiple of {SHUFFLED}, the groups of its shuffle")
    network = ShuffleMixer(scale, width, blocks)
    network.wide = wide
    return at(network, resolution)
