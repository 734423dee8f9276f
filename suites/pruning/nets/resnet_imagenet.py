"""ResNet-34 and ResNet-50 (He et al. 2016, arXiv:1512.03385) at any widths; the stride in the 3x3 or the first 1x1."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.pruning.nets.widths import chosen, from_rates, tell_slim

__all__ = ["load_checkpoint", "resnet34", "resnet50", "resnet50_v1"]

WIDTHS = (64, 128, 256, 512)
BLOCKS = (3, 4, 6, 3)


class ImageBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3, 1x1, beside a shortcut that is a 1x1 where shapes change.

    `mid` are the channels of the inner convolutions: one of them, or both of a bottleneck.
    """

    def __init__(self, inner: int, mid: int, outer: int, stride: int, bottleneck: bool, project: bool, first: bool):
        super().__init__()
        self.bottleneck = bottleneck
        if bottleneck:
            strides = (stride, 1) if first else (1, stride)
            self.conv1 = nn.Conv2d(inner, mid, 1, strides[0], bias=False)
            self.conv2 = nn.Conv2d(mid, mid, 3, strides[1], 1, bias=False)
            self.conv3 = nn.Conv2d(mid, outer, 1, bias=False)
            self.bn2, self.bn3 = nn.BatchNorm2d(mid), nn.BatchNorm2d(outer)
        else:
            self.conv1 = nn.Conv2d(inner, mid, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(mid, outer, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outer)
        self.bn1 = nn.BatchNorm2d(mid)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Maps of `outer` channels."""
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            inside = self.bn3(self.conv3(F.relu(inside)))
        return F.relu(inside + self.shortcut(x))


class ResnetImage(nn.Module):
    """7x7 stem, pooling, four stages, mean over places, linear layer."""

    def __init__(
        self, overall: list[int], widths: list[int], *, bottleneck: bool, first: bool, classes: int, resolution: int
    ):
        super().__init__()
        self.resolution, self.classes, self.channels = resolution, classes, 3
        self.conv1 = nn.Conv2d(3, overall[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(overall[0])
        self.pool = nn.MaxPool2d(3, 2, 1)
        starts = [sum(BLOCKS[:stage]) for stage in range(len(BLOCKS))]
        blocks = []
        for i, mid in enumerate(widths):
            stride = 2 if i in starts[1:] else 1
            project = stride == 2 or (i == 0 and bottleneck) or overall[i] != overall[i + 1]
            blocks.append(ImageBlock(overall[i], mid, overall[i + 1], stride, bottleneck, project, first))
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(overall[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """Means over places."""
        x = self.pool(F.relu(self.bn1(self.conv1(images))))
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.head(self.features(images))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(next(self.parameters())),)


def _resnet(
    bottleneck: bool,
    first: bool,
    widths: Blocks | None,
    overall: Blocks | None,
    rates: list[float] | None,
    classes: int,
    resolution: int,
) -> ResnetImage:
    growth = 4 if bottleneck else 1
    mids = [width for width, count in zip(WIDTHS, BLOCKS, strict=True) for _ in range(count)]
    stages = [(count, width * growth) for width, count in zip(WIDTHS, BLOCKS, strict=True)]
    if rates is not None:
        if widths is not None or overall is not None:
            raise ValueError("rates stands for widths and overall: give one or the other")
        overall, widths = from_rates(rates, 64, stages, mids)
    outputs = chosen(overall, [64, *(width for count, width in stages for _ in range(count))], "overall")
    inner = chosen(widths, mids, "widths")
    network = ResnetImage(outputs, inner, bottleneck=bottleneck, first=first, classes=classes, resolution=resolution)
    tell_slim(network, overall, widths)
    return network.eval()


def resnet34(
    *,
    widths: Blocks | None = None,
    overall: Blocks | None = None,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
    classes: PositiveInt = 1000,
    resolution: PositiveInt = 224,
) -> ResnetImage:
    """ResNet-34 with 1x1 shortcuts where shapes change.

    Args:
        widths: inner channels of each of 16 blocks.
        overall: outputs of the stem and of each block.
        rates: shares that go: stem, three stages' outputs, 16 blocks.
        classes: logits.
        resolution: side of the input.
    """
    return _resnet(False, False, widths, overall, rates, classes, resolution)


def resnet50(
    *,
    widths: Blocks | None = None,
    overall: Blocks | None = None,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
    classes: PositiveInt = 1000,
    resolution: PositiveInt = 224,
) -> ResnetImage:
    """ResNet-50 as torchvision has it, the stride in the 3x3; a block's width is that of both inner convolutions.

    Args:
        widths: inner channels of each of 16 blocks.
        overall: outputs of the stem and of each block.
        rates: shares that go: stem, three stages' outputs, 16 blocks.
        classes: logits.
        resolution: side of the input.
    """
    return _resnet(True, False, widths, overall, rates, classes, resolution)


def resnet50_v1(
    *,
    widths: Blocks | None = None,
    overall: Blocks | None = None,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
    classes: PositiveInt = 1000,
    resolution: PositiveInt = 224,
) -> ResnetImage:
    """ResNet-50 as first published, the stride in the first 1x1: 5.7 % fewer products, which no pruning made.

    Args:
        widths: inner channels of each of 16 blocks.
        overall: outputs of the stem and of each block.
        rates: shares that go: stem, three stages' outputs, 16 blocks.
        classes: logits.
        resolution: side of the input.
    """
    return _resnet(True, True, widths, overall, rates, classes, resolution)
