"""X3D (Feichtenhofer 2020, arXiv 2004.04730): depthwise 3 x 3 x 3 bottlenecks without a stride in time."""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.config.settings import Count, PositiveInt
from suites.streaming.co3d import VideoNet
from suites.streaming.continual import Chain, Each, Gate, Layer, Residual
from suites.streaming.convolution import Conv

__all__ = ["X3d", "x3d"]

#: Outer and inner channels of the four stages.
WIDTHS = ((24, 54), (48, 108), (96, 216), (192, 432))
#: Blocks of each stage, frames of a clip, side of a frame.
SIZES = {
    "s": ((3, 5, 11, 7), 13, 160),
    "m": ((3, 5, 11, 7), 16, 224),
    "l": ((5, 10, 25, 15), 16, 312),
}


class Head(nn.Sequential):
    """Features to logits through one wide layer."""

    def __init__(self, classes: int):
        super().__init__(nn.Linear(432, 2048, bias=False), nn.ReLU(), nn.Linear(2048, classes))


class X3d(VideoNet):
    """Stem, four stages of residual blocks, a last 1 x 1 x 1 convolution."""

    channels = 3

    def __init__(self, blocks: tuple[int, ...], frames: int, resolution: int, classes: int, over_time: bool = True):
        super().__init__()
        self.blocks, self.frames, self.resolution, self.classes = blocks, frames, resolution, classes
        self.over_time = over_time
        inner, layers = WIDTHS[0][0], list[Layer]()
        for (outer, middle), count in zip(WIDTHS, blocks, strict=True):
            for place in range(count):
                layers.append(self._block(inner, middle, outer, first=place == 0, gated=place % 2 == 0))
                inner = outer
        last = Each(nn.Conv3d(inner, 432, 1, bias=False), nn.BatchNorm3d(432), nn.ReLU())
        self.body = Chain(*self._stem(), *layers, last)
        self.head = Head(classes)

    def _time(self, kernel: int) -> int:
        return kernel if self.over_time else 1

    def _stem(self) -> tuple[Layer, ...]:
        width, kernel = WIDTHS[0][0], self._time(5)
        space = nn.Conv3d(self.channels, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        time = nn.Conv3d(width, width, (kernel, 1, 1), 1, (kernel // 2, 0, 0), groups=width, bias=False)
        return Each(space), Conv(time), Each(nn.BatchNorm3d(width), nn.ReLU())

    def _block(self, inner: int, middle: int, outer: int, *, first: bool, gated: bool) -> Residual:
        stride, kernel = 1 + first, self._time(3)
        depthwise = nn.Conv3d(
            middle, middle, (kernel, 3, 3), (1, stride, stride), (kernel // 2, 1, 1), groups=middle, bias=False
        )
        gate = (Gate(middle, squeezed(middle)),) if gated else ()
        body = Chain(
            Each(nn.Conv3d(inner, middle, 1, bias=False), nn.BatchNorm3d(middle), nn.ReLU()),
            Conv(depthwise), Each(nn.BatchNorm3d(middle)), *gate,
            Each(nn.SiLU(), nn.Conv3d(middle, outer, 1, bias=False), nn.BatchNorm3d(outer)),
        )  # fmt: skip
        skip = nn.Sequential(nn.Conv3d(inner, outer, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(outer))
        return Residual(body, skip if first else None, nn.ReLU())

    def as_frame(self) -> X3d:
        """With kernels of one frame."""
        return X3d(self.blocks, 1, self.resolution, self.classes, over_time=False)


def squeezed(channels: int) -> int:
    """Hidden channels of a gate: a sixteenth, to a multiple of 8 that keeps nine tenths at least."""
    wanted = channels / 16
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def x3d(
    *, size: Literal["s", "m", "l"] = "s", frames: Count = 0, resolution: Count = 0, classes: PositiveInt = 400,
) -> X3d:  # fmt: skip
    """The network in evaluation mode with random weights.

    Args:
        size: S, M or L.
        frames: of a clip; the published 13 (S) or 16 where it is not given.
        resolution: side of a frame; the published 160, 224 or 312 where it is not given.
        classes: logits.
    """
    blocks, usual, side = SIZES[size]
    return X3d(blocks, frames or usual, resolution or side, classes).eval()
