"""A small network that enlarges pictures or removes their grain, working at low resolution.

After Shi et al. 2016 ("Real-Time Single Image and Video Super-Resolution", section 3.2), with what it is given,
enlarged, added to its answer. Where it enlarges, the convolutions see what a picture has beyond its own blur and have
no biases, so that they add nothing where it is smooth: there plain enlargement is right to a grey level, and most of a
photograph is smooth. Grain is smooth nowhere, so where it is removed they see the whole picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = ["Restorer", "load_checkpoint", "restorer"]

#: Side of the blur that is taken off, and of the first convolution.
BLUR = 5


class Restorer(nn.Module):
    """A 5 x 5 and some 3 x 3 convolutions, and a last one of scale^2 pixels for every pixel."""

    def __init__(self, width: int, depth: int, scale: int, resolution: int, channels: int):
        super().__init__()
        self.scale, self.resolution, self.channels = scale, resolution, channels
        biases = scale == 1
        self.enter = nn.Conv2d(channels, width, BLUR, padding=BLUR // 2, bias=biases)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=biases) for _ in range(depth))
        self.leave = nn.Conv2d(width, channels * scale**2, 3, padding=1, bias=biases)
        for start in self.leave.parameters():
            nn.init.zeros_(start)  # it starts as plain enlargement, or with the picture as it is

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures [batch, channels, scale x side, scale x side]."""
        x = F.relu(self.enter(pictures if self.scale == 1 else self._detail(pictures)))
        for layer in self.layers:
            x = F.relu(layer(x))
        added = F.pixel_shuffle(self.leave(x), self.scale)
        if self.scale == 1:
            return pictures + added
        return added + F.interpolate(pictures, scale_factor=float(self.scale), mode="bicubic", align_corners=False)

    def _detail(self, pictures: Tensor) -> Tensor:
        """What the pictures have beyond their own blur, [batch, channels, side, side]."""
        edges = F.pad(pictures, (BLUR // 2,) * 4, mode="replicate")
        return pictures - F.avg_pool2d(edges, BLUR, stride=1)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures of the resolution that is given to the network."""
        return (torch.rand(batch, self.channels, self.resolution, self.resolution).to(self.enter.weight),)


def restorer(
    *,
    width: PositiveInt = 32,
    depth: PositiveInt = 2,
    scale: PositiveInt = 2,
    resolution: PositiveInt = 24,
    channels: PositiveInt = 3,
) -> Restorer:
    """A network that enlarges (`scale` above 1) or removes grain (1), in evaluation mode with random weights.

    Args:
        width: channels inside.
        depth: 3 x 3 convolutions between the first and the last.
        scale: of the enlargement.
        resolution: side of the square example input in pixels; any other will do.
        channels: of the picture.
    """
    return Restorer(width, depth, scale, resolution, channels).eval()
