"""A residual network for small pictures, as for CIFAR in He et al. 2016 ("Deep Residual Learning", 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES

__all__ = ["DigitsResnet", "digits_resnet", "load_checkpoint"]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; where the shape changes the shortcut is a strided 1 x 1 convolution."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Maps of `outer` channels."""
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inside + self.shortcut(x))


class DigitsResnet(nn.Module):
    """A 3 x 3 stem, three stages of basic blocks of w, 2w and 4w channels, the mean over places, a linear layer."""

    def __init__(self, blocks: int, width: int, resolution: int, channels: int):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, channels, CLASSES
        self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stage1 = _stage(blocks, width, width, 1)
        self.stage2 = _stage(blocks, width, 2 * width, 2)
        self.stage3 = _stage(blocks, 2 * width, 4 * width, 2)
        self.head = nn.Linear(4 * width, CLASSES)

    def maps(self, images: Tensor) -> Tensor:
        """The last maps, [batch, 4 x width, side, side]."""
        return self.stage3(self.stage2(self.stage1(F.relu(self.bn(self.stem(images))))))

    def features(self, images: Tensor) -> Tensor:
        """Means over places of the last maps, [batch, 4 x width]."""
        return self.maps(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10], of images [batch, channels, resolution, resolution]."""
        return self.head(self.features(images))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the model's resolution."""
        like = self.head.weight
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(like),)


def _stage(blocks: int, inner: int, outer: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inner, outer, stride)
    return nn.Sequential(first, *(BasicBlock(outer, outer, 1) for _ in range(blocks - 1)))


def digits_resnet(
    *,
    blocks: PositiveInt = 3,
    width: PositiveInt = 16,
    resolution: PositiveInt = 16,
    channels: PositiveInt = 3,
) -> DigitsResnet:
    """A residual network of 6 x `blocks` + 2 layers for ten digits (3 blocks: ResNet-20), in evaluation mode.

    Args:
        blocks: per stage.
        width: channels of the first stage.
        resolution: side of the square input in pixels, 4 or more.
        channels: of the input.

    Raises:
        ValueError: the picture is too small to be halved twice.
    """
    if resolution < 4:
        raise ValueError(f"resolution={resolution}: the network halves its picture twice, so 4 pixels or more")
    return DigitsResnet(blocks, width, resolution, channels).eval()
