"""The small convolutional networks of the lottery ticket (arXiv:1803.03635, table 2)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = ["conv_net", "load_checkpoint"]


class ConvNet(nn.Module):
    """Pairs of 3x3 convolutions with ReLU and pooling, then 256, 256 and the classes."""

    def __init__(self, channels: list[int], classes: int):
        super().__init__()
        self.resolution, self.channels, self.classes = 32, 3, classes
        channels_of = zip([3, *channels[:-1]], channels, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(inner, outer, 3, 1, 1) for inner, outer in channels_of)
        side = 32 >> (len(channels) // 2)
        sizes = [channels[-1] * side**2, 256, 256, classes]
        self.layers = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(sizes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = images
        for place, conv in enumerate(self.convs, start=1):
            x = F.relu(conv(x))
            x = F.max_pool2d(x, 2) if place % 2 == 0 else x
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 3, 32, 32).to(next(self.parameters())),)


def conv_net(*, convolutions: PositiveInt = 2, classes: PositiveInt = 10) -> ConvNet:
    """Conv-2 or Conv-4 of the lottery ticket.

    Args:
        convolutions: 2 or 4.
        classes: logits.

    Raises:
        ValueError: another number of them.
    """
    if convolutions not in (2, 4):
        raise ValueError(f"convolutions={convolutions}: 2 or 4 (what the paper prints of Conv-6 is another network)")
    return ConvNet([64, 64, 128, 128][:convolutions], classes).eval()
