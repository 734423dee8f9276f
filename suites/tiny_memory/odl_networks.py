"""The networks that on-device learning is shown on: ResNet8 of pictures and DS-CNN of keywords, norms folded away.

Shapes are those of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597). Convolutions have no bias, the classifier has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = ["ds_cnn", "load_checkpoint", "resnet8"]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.conv2 = _conv(inputs, outputs, 3, stride), _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the outer width."""
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet8(nn.Module):
    """A stem, three residual blocks and a linear layer on pictures of three channels."""

    def __init__(self, width: int, resolution: int):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, 3, 10
        self.stem = _conv(3, width, 3)
        self.blocks = nn.ModuleList(
            [Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2)]
        )
        self.head = nn.Linear(4 * width, 10)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        x = F.relu(self.stem(images))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures."""
        like = next(self.parameters())
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(like),)


class DsCnn(nn.Module):
    """A 10x4 stem of stride 2, four depthwise separable layers, a linear layer on one channel of 49 x 10 features."""

    HIGH, WIDE = 49, 10

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.channels, self.classes = 1, classes
        self.stem = nn.Conv2d(1, width, (10, 4), 2, (0, 1), bias=False)
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [_conv(width, width, 3, groups=width), nn.ReLU(), _conv(width, width, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, [batch, classes], of features [batch, 1, 49, 10]."""
        x = F.relu(self.stem(F.pad(features, (0, 0, 4, 5))))  # 25 rows of 5, as "same" padding of stride 2 has them
        return self.head(self.layers(x).mean(dim=(2, 3)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random features."""
        return (torch.randn(batch, 1, self.HIGH, self.WIDE).to(next(self.parameters())),)


def _initialise(net: nn.Module) -> None:
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    for part in net.modules():
        if isinstance(part, Residual):  # without norms the sum of both ways would grow
            with torch.no_grad():
                part.conv2.weight.mul_(0.5)


def resnet8(*, width: PositiveInt = 16, resolution: PositiveInt = 32) -> ResNet8:
    """ResNet8 for ten classes, in evaluation mode with random weights.

    Args:
        width: channels of the stem; blocks have w, 2 w, 4 w.
        resolution: side of the square picture, a multiple of 4.

    Raises:
        ValueError: a picture that cannot be halved twice.
    """
    if resolution % 4:
        raise ValueError(f"resolution={resolution}: the network halves its picture twice, so a multiple of 4")
    return ResNet8(width, resolution).eval()


def ds_cnn(*, width: PositiveInt = 64, classes: PositiveInt = 12) -> DsCnn:
    """DS-CNN for keywords, in evaluation mode with random weights.

    Args:
        width: channels of all layers.
        classes: logits.
    """
    return DsCnn(width, classes).eval()
