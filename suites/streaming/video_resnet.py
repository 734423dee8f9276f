"""Slow (Feichtenhofer et al. 2019, 1812.03982) and I3D (Carreira and Zisserman 2017, 1705.07750) over ResNet-50.

Bottlenecks whose first 1 x 1 convolution looks over three frames in some blocks: in the last two stages of Slow, in
alternating blocks of I3D, which also halves time by a maximum after the first stage. The arrangement is that of
pytorchvideo's models.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.config.settings import Count, PositiveInt
from suites.streaming.co3d import VideoNet
from suites.streaming.continual import Chain, Each, Layer, MaxPool, Residual
from suites.streaming.convolution import Conv

__all__ = ["VideoResNet", "video_resnet"]

BLOCKS = (3, 4, 6, 3)
#: Kernels in time of the blocks of each stage, repeated; the stem's kernel; whether time is halved after stage 1.
KERNELS = {
    "slow": (((1,), (1,), (3,), (3,)), 1, False),
    "i3d": (((3,), (3, 1), (3, 1), (1, 3)), 5, True),
}


class VideoResNet(VideoNet):
    """Stem, four stages of bottlenecks, mean, one linear layer."""

    channels = 3

    def __init__(self, kind: str, frames: int, resolution: int, classes: int, width: int, over_time: bool = True):
        super().__init__()
        self.kind, self.frames, self.resolution, self.classes = kind, frames, resolution, classes
        self.width, self.over_time = width, over_time
        kernels, stem, halved = KERNELS[kind]
        layers = self._stem(stem if over_time else 1)
        inner = width
        for stage, count in enumerate(BLOCKS):
            middle, own = width * 2**stage, kernels[stage]
            for place in range(count):
                kernel = own[place % len(own)] if over_time else 1
                stride = 2 if stage and not place else 1
                layers.append(_bottleneck(inner, middle, kernel, stride, projected=not place))
                inner = 4 * middle
            if halved and over_time and not stage:
                layers.append(MaxPool(2, 2))
        self.body = Chain(*layers)
        self.head = nn.Linear(inner, classes)

    def _stem(self, kernel: int) -> list[Layer]:
        conv = nn.Conv3d(self.channels, self.width, (kernel, 7, 7), (1, 2, 2), (kernel // 2, 3, 3), bias=False)
        pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        return [Conv(conv), Each(nn.BatchNorm3d(self.width), nn.ReLU(), pool)]

    def as_frame(self) -> VideoResNet:
        """With kernels of one frame."""
        return VideoResNet(self.kind, 1, self.resolution, self.classes, self.width, over_time=False)


def _bottleneck(inner: int, middle: int, kernel: int, stride: int, *, projected: bool) -> Residual:
    first = nn.Conv3d(inner, middle, (kernel, 1, 1), 1, (kernel // 2, 0, 0), bias=False)
    second = nn.Conv3d(middle, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    outer = 4 * middle
    body = Chain(
        Conv(first),
        Each(
            nn.BatchNorm3d(middle), nn.ReLU(), second, nn.BatchNorm3d(middle), nn.ReLU(),
            nn.Conv3d(middle, outer, 1, bias=False), nn.BatchNorm3d(outer),
        ),
    )  # fmt: skip
    skip = nn.Sequential(nn.Conv3d(inner, outer, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(outer))
    return Residual(body, skip if projected else None, nn.ReLU())


def video_resnet(
    *, kind: Literal["slow", "i3d"] = "slow", frames: PositiveInt = 8, resolution: Count = 0,
    classes: PositiveInt = 400, width: PositiveInt = 64,
) -> VideoResNet:  # fmt: skip
    """The network in evaluation mode with random weights.

    Args:
        kind: slow or i3d.
        frames: of a clip.
        resolution: side of a frame; 256 for slow and 224 for i3d where it is not given.
        classes: logits.
        width: channels of the stem.

    Raises:
        ValueError: a clip of I3D without two frames for its maximum.
    """
    if kind == "i3d" and frames < 2:
        raise ValueError(f"frames={frames}: i3d takes the larger of two frames, so a clip has two or more")
    return VideoResNet(kind, frames, resolution or {"slow": 256, "i3d": 224}[kind], classes, width).eval()
