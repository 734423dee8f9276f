"""LeYOLO: a detector of inverted bottlenecks, a light pyramid and a depthwise head. Written from its description.

Source: Hollard et al. 2024, LeYOLO, arXiv:2406.14239; sections 3 and 4 and table 1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at, conv_norm
from suites.common.detection import BINS, SIDES, DetectionHead, box_width
from suites.common.inverted import InvertedBottleneck


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return conv_norm(inputs, outputs, kernel, stride, act=nn.SiLU, bias=True)


def _ir(inputs: int, outputs: int, kernel: int, hidden: int, stride: int = 1, widen: bool = True) -> InvertedBottleneck:
    return InvertedBottleneck(
        inputs,
        outputs,
        hidden=hidden,
        kernel=kernel,
        stride=stride,
        act=nn.SiLU,
        widen=widen,
        leave_act=True,
        bias=True,
    )


class PyramidPool(nn.Module):
    """1x1 to half the width, three 5x5 max pools in a row, all four joined, 1x1 back."""

    def __init__(self, channels: int):
        super().__init__()
        self.enter = conv_norm(channels, channels // 2, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = conv_norm(2 * channels, channels, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        maps = [self.enter(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.leave(torch.cat(maps, 1))


def _head(widths: tuple[int, ...], classes: int) -> DetectionHead:
    kind = max(widths[0], min(classes, 100))
    return DetectionHead(
        [_branch(width, box_width(widths[0]), BINS * SIDES) for width in widths],
        [_branch(width, kind, classes) for width in widths],
    )


def _branch(channels: int, width: int, outputs: int) -> nn.Sequential:
    layers = [conv_norm(channels, width, act=nn.SiLU)]
    layers += [conv_norm(width, width, 3, groups=width, act=nn.SiLU) for _ in range(2)]
    return nn.Sequential(*layers, nn.Conv2d(width, outputs, 1))


class LeYolo(nn.Module):
    """Images [batch, 3, h, w], sides that 32 divides, to [batch, 4 + classes, places] at strides 8, 16 and 32."""

    def __init__(self, scale: float, more: int, classes: int):
        super().__init__()

        def w(width: int) -> int:
            return math.ceil(width * scale / 8) * 8

        p3, p4, p5 = w(32), w(64), w(96)
        self.to_p3 = nn.Sequential(
            _conv(3, w(16), 3, 2), _conv(w(16), w(16)), _ir(w(16), w(16), 3, w(16), 2, widen=False),
            _ir(w(16), p3, 3, w(96), 2), _ir(p3, p3, 3, w(96)),
        )  # fmt: skip
        self.to_p4 = nn.Sequential(_ir(p3, p4, 5, w(96), 2), *(_ir(p4, p4, 5, w(192)) for _ in range(4 + more)))
        deep = [_ir(p5, p5, 5, w(576)) for _ in range(3 + more)]
        self.to_p5 = nn.Sequential(_ir(p4, p5, 5, w(576), 2), *deep, PyramidPool(p5))
        repeat = 3 + more
        self.up4 = _list(p5 + p4, p4, 5, w(128), repeat)
        first = _ir(p4 + p3, p3, 3, p4 + p3, widen=False)
        last3, last5 = (_ir(width, w(64), 5, w(128)) if more else nn.Identity() for width in (p3, p5))
        self.up3 = nn.Sequential(first, *(_ir(p3, p3, 3, w(64)) for _ in range(2)), last3)
        out3, out5 = (w(64), w(64)) if more else (p3, p5)
        self.down4 = _conv(out3, p4, 3, 2)
        self.out4 = _list(2 * p4, p4, 5, w(128), repeat)
        self.down5 = _conv(p4, p5, 3, 2)
        self.out5 = nn.Sequential(_list(2 * p5, p5, 5, w(192), repeat), last5)
        self.head = _head((out3, p4, out5), classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: 32 does not divide the sides of the images.
        """
        if x.shape[-1] % 32 or x.shape[-2] % 32:
            raise UsageError(f"LeYOLO needs sides that 32 divides, not {tuple(x.shape[-2:])}")
        p3 = self.to_p3(x)
        p4 = self.to_p4(p3)
        p5 = self.to_p5(p4)
        mid = self.up4(torch.cat((F.interpolate(p5, scale_factor=2.0), p4), 1))
        out3 = self.up3(torch.cat((F.interpolate(mid, scale_factor=2.0), p3), 1))
        out4 = self.out4(torch.cat((self.down4(out3), mid), 1))
        out5 = self.out5(torch.cat((self.down5(out4), p5), 1))
        return self.head([out3, out4, out5])


def _list(inputs: int, outputs: int, kernel: int, hidden: int, repeat: int) -> nn.Sequential:
    rest = [_ir(outputs, outputs, kernel, hidden) for _ in range(repeat - 1)]
    return nn.Sequential(_ir(inputs, outputs, kernel, hidden), *rest)


def leyolo(
    *, size: Literal["n", "s", "m", "l"] = "n", classes: PositiveInt = 80, resolution: PositiveInt = 320
) -> LeYolo:
    """A LeYOLO detector; m and l are one network, which the paper runs at different sizes of image.

    Args:
        size: n is the plan itself, the others are 1.33 times as wide.
        classes: of things to find.
        resolution: side of the input, which 32 divides.
    """
    return at(LeYolo(1.0 if size == "n" else 1.33, int(size in "ml"), classes), resolution)
