"""YOLOX-Nano: a detector of separable convolutions whose head tells boxes, objects and classes apart.

Source: Ge et al. 2021, YOLOX, arXiv:2107.08430; sections 2.1 and 2.3, sizes as released. It stands for what a search
over detectors is compared with (FBNetV5), and for detectors of its size (LeYOLO).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Positive, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import Residual, at
from suites.convnets.yolo_blocks import check_sides, conv

#: Width of the network over the plan's, and blocks of its first stage.
WIDTH, DEPTH = 0.25, 1
#: Numbers of a box, and of whether there is one.
BOX, OBJECT = 4, 1


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 depthwise and 1x1, each with its norm and SiLU."""
    return nn.Sequential(conv(inputs, inputs, 3, stride, groups=inputs), conv(inputs, outputs))


class CrossStage(nn.Module):
    """Half of the outputs through blocks of 1x1 and separable 3x3, half through a 1x1 alone, joined by a 1x1."""

    def __init__(self, inputs: int, outputs: int, repeat: int, *, shortcut: bool):
        super().__init__()
        half = outputs // 2
        wrap: Callable[[nn.Module], nn.Module] = Residual if shortcut else nn.Sequential
        blocks = [wrap(nn.Sequential(conv(half, half), _separable(half, half))) for _ in range(repeat)]
        self.deep, self.flat = nn.Sequential(conv(inputs, half), *blocks), conv(inputs, half)
        self.leave = conv(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        return self.leave(torch.cat((self.deep(x), self.flat(x)), 1))


class WidePool(nn.Module):
    """1x1 to half the channels, max pools of 5, 9 and 13 beside each other, all four joined, 1x1 back."""

    def __init__(self, channels: int):
        super().__init__()
        self.enter, self.leave = conv(channels, channels // 2), conv(2 * channels, channels)
        self.pools = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = self.enter(x)
        return self.leave(torch.cat((x, *(pool(x) for pool in self.pools)), 1))


class SeparateHead(nn.Module):
    """For each map and place a box, whether there is an object, and logits of classes: [batch, 5 + classes, places]."""

    def __init__(self, widths: tuple[int, ...], hidden: int, classes: int):
        super().__init__()

        def two() -> nn.Sequential:
            return nn.Sequential(_separable(hidden, hidden), _separable(hidden, hidden))

        self.stems = nn.ModuleList(conv(width, hidden) for width in widths)
        self.boxes, self.kinds = (nn.ModuleList(two() for _ in widths) for _ in range(2))
        self.to_box = nn.ModuleList(nn.Conv2d(hidden, BOX, 1) for _ in widths)
        self.to_object = nn.ModuleList(nn.Conv2d(hidden, OBJECT, 1) for _ in widths)
        self.to_kind = nn.ModuleList(nn.Conv2d(hidden, classes, 1) for _ in widths)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """See the class."""
        done = []
        for place, given in enumerate(maps):
            x = self.stems[place](given)
            box, kind = self.boxes[place](x), self.kinds[place](x)
            said = (self.to_box[place](box), self.to_object[place](box), self.to_kind[place](kind))
            done.append(torch.cat(said, 1).flatten(2))
        return torch.cat(done, 2)


class YoloX(nn.Module):
    """Images [batch, 3, h, w], sides that 32 divides, to [batch, 5 + classes, places] at strides 8, 16 and 32."""

    def __init__(self, width: float, classes: int):
        super().__init__()
        c1, c2, c3, c4, c5 = (int(width * channels) for channels in (64, 128, 256, 512, 1024))
        self.stem = conv(4 * 3, c1, 3)
        self.to_p3 = nn.Sequential(
            _separable(c1, c2, 2), CrossStage(c2, c2, DEPTH, shortcut=True),
            _separable(c2, c3, 2), CrossStage(c3, c3, 3 * DEPTH, shortcut=True),
        )  # fmt: skip
        self.to_p4 = nn.Sequential(_separable(c3, c4, 2), CrossStage(c4, c4, 3 * DEPTH, shortcut=True))
        last = [WidePool(c5), CrossStage(c5, c5, DEPTH, shortcut=False)]
        self.to_p5 = nn.Sequential(_separable(c4, c5, 2), *last)
        self.narrow5, self.narrow4 = conv(c5, c4), conv(c4, c3)
        self.up4, self.up3 = (CrossStage(2 * c, c, DEPTH, shortcut=False) for c in (c4, c3))
        self.down4, self.down5 = _separable(c3, c3, 2), _separable(c4, c4, 2)
        self.out4, self.out5 = (CrossStage(c, c, DEPTH, shortcut=False) for c in (c4, c5))
        self.head = SeparateHead((c3, c4, c5), c3, classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: 32 does not divide the sides of the images.
        """
        check_sides("YOLOX", x)
        p3 = self.to_p3(self.stem(F.pixel_unshuffle(x, 2)))
        p4 = self.to_p4(p3)
        top = self.narrow5(self.to_p5(p4))
        middle = self.narrow4(self.up4(torch.cat((F.interpolate(top, scale_factor=2.0), p4), 1)))
        out3 = self.up3(torch.cat((F.interpolate(middle, scale_factor=2.0), p3), 1))
        out4 = self.out4(torch.cat((self.down4(out3), middle), 1))
        return self.head([out3, out4, self.out5(torch.cat((self.down5(out4), top), 1))])


def yolox_nano(*, width: Positive = WIDTH, classes: PositiveInt = 80, resolution: PositiveInt = 416) -> YoloX:
    """A YOLOX-Nano detector.

    Args:
        width: of the network over the plan's, a multiple of 1/32; a quarter in the released one.
        classes: of things to find.
        resolution: side of the input, which 32 divides.

    Raises:
        UsageError: the width is no multiple of 1/32.
    """
    if width * 32 % 1:
        raise UsageError(
            f"yolox_nano: width={width} must be a multiple of 1/32, so that all layers have whole channels"
        )
    return at(YoloX(width, classes), resolution)
