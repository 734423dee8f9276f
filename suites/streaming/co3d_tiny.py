"""A small network of moving digits that is trained here, with or without temporal padding; sizes are ours."""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.initial import keep_scale
from suites.streaming.co3d import VideoNet
from suites.streaming.continual import Chain, Each, Layer, Residual
from suites.streaming.convolution import Conv

__all__ = ["Co3dTiny", "co3d_tiny", "load_checkpoint"]


class Co3dTiny(VideoNet):
    """Three 3 x 3 x 3 convolutions with a skip over the last one, mean over space and time, linear head."""

    #: A digit is a sixteenth of its canvas, so the mean over space dilutes what it excites: a tenth learns little.
    learning_rate = 2e-2

    def __init__(self, padding: str, positions: int, resolution: int, classes: int, kernel: int):
        super().__init__()
        self.channels, self.resolution, self.classes = 1, resolution, classes
        self.mode = "zero" if padding == "zero" else "valid"
        self.taps = kernel
        self.body = Chain(
            self._conv(1, 8, 2), Each(nn.ReLU()), self._conv(8, 16, 2), Each(nn.ReLU()),
            Residual(self._conv(16, 16, 1), after=nn.ReLU()),
        )  # fmt: skip
        keep_scale(self.body)
        self.head = nn.Linear(16, classes)
        self.frames = positions if padding == "zero" else positions + self.body.reach

    def _conv(self, inner: int, outer: int, stride: int) -> Layer:
        padding = ((self.taps - 1) // 2, 1, 1)
        return Conv(nn.Conv3d(inner, outer, (self.taps, 3, 3), (1, stride, stride), padding))

    def as_frame(self) -> Co3dTiny:
        """With kernels of one frame."""
        return Co3dTiny("zero", 1, self.resolution, self.classes, 1).to(next(self.parameters()))


def co3d_tiny(
    *,
    padding: Literal["zero", "valid"] = "zero",
    positions: PositiveInt = 8,
    resolution: PositiveInt = 32,
    classes: PositiveInt = 20,
) -> Co3dTiny:
    """The network in evaluation mode with random weights.

    Args:
        padding: of a clip in time; without it, a clip is 6 frames longer for as many positions.
        positions: in time that its mean is over: 8, hence clips of 8 frames, or 14 without padding.
        resolution: side of a frame.
        classes: logits.
    """
    return Co3dTiny(padding, positions, resolution, classes, 3).eval()
