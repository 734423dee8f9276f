"""EfficientNet-B0 (arXiv 1905.11946) and what a scaling strategy makes of it (arXiv 2103.06877).

Stem 32, head 1280, squeeze width a quarter of a block's input, padding (k - 1) / 2. Stem and head are scaled with the
widths; the classifier grows with the head alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.scaling import rule


@dataclass(frozen=True)
class Stage:
    """Blocks of one kernel: how many, kernel, first stride, expansion, width."""

    depth: int
    kernel: int
    stride: int
    expansion: int
    width: int


B0 = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80), Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
STEM, HEAD = 32, 1280


class Squeeze(nn.Module):
    """A factor for each channel, from the mean of all places through two 1 x 1 convolutions."""

    def __init__(self, width: int, inner: int, activation: type[nn.Module]):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return x * self.up(self.activation(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()


class MBConv(nn.Module):
    """Expansion, depthwise convolution, squeeze, projection; a shortcut where the shape stays."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inner * expansion
        self.expand = conv(inner, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = conv(wide, wide, kernel, stride, wide)
        self.squeeze = Squeeze(wide, max(1, inner // 4), nn.SiLU)
        self.project = nn.Sequential(nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer))
        self.shortcut = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the outer width."""
        y = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.shortcut else y


def conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU."""
    layer = nn.Conv2d(inner, outer, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outer), nn.SiLU())


class EfficientNet(nn.Module):
    """Stem, stages, head, mean over places, classifier."""

    def __init__(self, stem: int, stages: tuple[Stage, ...], head: int, resolution: int, classes: int):
        super().__init__()
        self.resolution, self.classes = resolution, classes
        self.stem = conv(3, stem, 3, 2)
        blocks, width = list[nn.Module](), stem
        for stage in stages:
            for i in range(stage.depth):
                blocks.append(MBConv(width, stage.width, stage.kernel, stage.stride if i == 0 else 1, stage.expansion))
                width = stage.width
        self.blocks = nn.Sequential(*blocks)
        self.head = conv(width, head, 1)
        self.classifier = nn.Linear(head, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.classifier(F.adaptive_avg_pool2d(self.head(self.blocks(self.stem(images))), 1).flatten(1))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the network's own resolution."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(self.classifier.weight),)


def scaled_efficientnet(
    *,
    strategy: str = "dwr",
    s: Positive = 1.0,
    base_width: Positive = 1.0,
    base_resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
) -> EfficientNet:
    """EfficientNet-B0 with s times its operations, in evaluation mode with random weights.

    Args:
        strategy: d, w, r, dw, wr, dwr, d1_w8_r1 or any other weights.
        s: factor of the operations, before rounding.
        base_width: of the network that is scaled, over B0's.
        base_resolution: of the network that is scaled; its own inputs follow from the strategy.
        classes: logits.

    Raises:
        ValueError: a strategy that is none.
    """
    stem, stages, head = base(base_width)
    by = rule.factors(strategy, s)
    scaled = tuple(
        Stage(
            rule.rounded_depth(x.depth * by.depth),
            x.kernel,
            x.stride,
            x.expansion,
            rule.rounded_width(x.width * by.width),
        )
        for x in stages
    )
    resolution = rule.rounded_resolution(base_resolution * by.resolution)
    widths = (rule.rounded_width(width * by.width) for width in (stem, head))
    return EfficientNet(next(widths), scaled, next(widths), resolution, classes).eval()


def base(width: float) -> tuple[int, tuple[Stage, ...], int]:
    """Stem, stages and head of the network that is scaled: B0's, times a width."""
    stages = tuple(
        Stage(x.depth, x.kernel, x.stride, x.expansion, x.width if width == 1 else rule.rounded_width(x.width * width))
        for x in B0
    )
    stem, head = (value if width == 1 else rule.rounded_width(value * width) for value in (STEM, HEAD))
    return stem, stages, head
