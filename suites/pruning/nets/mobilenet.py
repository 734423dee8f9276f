"""MobileNet-v1 (Howard et al. 2017, arXiv:1704.04861): depthwise and pointwise convolutions in turn."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.pruning.nets.widths import tell_slim
from suites.pruning.rounding import check_sparsity, kept_width

__all__ = ["MobileNetV1", "load_checkpoint", "mobilenet_v1"]

#: Outputs of the stem and of the thirteen pointwise convolutions, and the stride of each depthwise one.
OUTPUTS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class Separable(nn.Module):
    """A 3x3 depthwise and a 1x1 convolution, each with a norm and ReLU."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.pointwise = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of `outer` channels."""
        return F.relu(self.bn2(self.pointwise(F.relu(self.bn1(self.depthwise(x))))))


class MobileNetV1(nn.Module):
    """Stem of stride 2, thirteen separable blocks, mean over places, linear layer."""

    def __init__(self, widths: list[int], classes: int, resolution: int):
        super().__init__()
        self.resolution, self.classes, self.channels = resolution, classes, 3
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.blocks = nn.ModuleList(Separable(widths[i], widths[i + 1], stride) for i, stride in enumerate(STRIDES))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = F.relu(self.bn(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(next(self.parameters())),)


def mobilenet_v1(
    *,
    width: Positive = 1.0,
    classes: PositiveInt = 1000,
    resolution: PositiveInt = 224,
    slim: Rate = 0.0,
    rates: Annotated[list[Rate], Field(min_length=14, max_length=14)] | None = None,
) -> MobileNetV1:
    """MobileNet-v1 in evaluation mode with random weights.

    Args:
        width: factor of all channels.
        classes: logits.
        resolution: side of the input.
        slim: share of every layer's channels that go.
        rates: the same for the stem and each of 13 blocks.
    """
    given = [slim] * len(OUTPUTS) if rates is None else list(rates)
    for rate in given:
        check_sparsity(rate, "rate")
    widths = [kept_width(max(1, int(outer * width)), rate) for outer, rate in zip(OUTPUTS, given, strict=True)]
    network = MobileNetV1(widths, classes, resolution)
    tell_slim(network, rates, slim > 0)
    return network.eval()


def pointwise_weights(width: float = 1.0) -> list[tuple[int, int]]:
    """(weights, places per side at 224 px) of each pointwise convolution: W H^2 products each."""
    found, side = [], 112
    outputs = [max(1, int(outer * width)) for outer in OUTPUTS]
    for i, stride in enumerate(STRIDES):
        side = -(-side // stride)
        found.append((outputs[i] * outputs[i + 1], side))
    return found
