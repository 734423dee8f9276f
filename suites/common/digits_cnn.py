"""A small convolutional classifier with depthwise separable layers, after MobileNet (Howard et al. 2017, 3.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES

__all__ = ["DigitsCnn", "digits_cnn", "load_checkpoint"]


class Separable(nn.Sequential):
    """A depthwise 3 x 3 and a pointwise convolution, each with batch normalisation and ReLU."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
        )


class DigitsCnn(nn.Module):
    """A stem, depthwise separable layers that halve the picture as they widen it, pooling, a linear layer."""

    def __init__(self, widths: list[int], resolution: int, channels: int):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, channels, CLASSES
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        strides = [1 + (inner != outer) for inner, outer in pairwise(widths)]
        self.layers = nn.Sequential(*(Separable(*pair, s) for pair, s in zip(pairwise(widths), strides, strict=True)))
        self.head = nn.Linear(widths[-1], CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """Means over places of the last maps, [batch, width]."""
        return self.layers(self.stem(images)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10], of images [batch, channels, resolution, resolution]."""
        return self.head(self.features(images))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the model's resolution."""
        like = self.head.weight
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(like),)


def digits_cnn(*, width: PositiveInt = 24, resolution: PositiveInt = 32, channels: PositiveInt = 3) -> DigitsCnn:
    """A depthwise separable network for ten digits, in evaluation mode with random weights.

    Args:
        width: channels of the stem; the layers have w, 2w, 2w, 4w, 4w.
        resolution: side of the square input in pixels, 8 or more.
        channels: of the input.

    Raises:
        ValueError: the picture is too small to be halved three times.
    """
    if resolution < 8:
        raise ValueError(f"resolution={resolution}: the network halves its picture three times, so 8 pixels or more")
    return DigitsCnn([width, width, 2 * width, 2 * width, 4 * width, 4 * width], resolution, channels).eval()
