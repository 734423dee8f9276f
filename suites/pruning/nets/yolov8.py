"""YOLOv8 (Ultralytics 2023) in plain torch: C2f blocks, SPPF, a two-way neck, a decoupled head without anchors.

The layout is public in papers and configuration files; the code is ours (their package is AGPL). Names of sizes: n, s,
m with depth 0.33, 0.33, 0.67 and width 0.25, 0.5, 0.75, at most 1024, 1024, 768 channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.detection import BINS, SIDES, DetectionHead
from suites.common.folding import fold_batch_norms
from suites.pruning.nets.widths import tell_slim

__all__ = ["YoloV8", "load_checkpoint", "yolov8"]

#: Depth and width factor, and the widest map.
SIZES = {"n": (1 / 3, 0.25, 1024), "s": (1 / 3, 0.5, 1024), "m": (2 / 3, 0.75, 768)}
STRIDES = (8, 16, 32)


class Conv(nn.Module):
    """Convolution, norm, SiLU."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outer, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of `outer` channels."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, beside a residual where asked."""

    def __init__(self, width: int, residual: bool):
        super().__init__()
        self.cv1, self.cv2 = Conv(width, width, 3), Conv(width, width, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y = self.cv2(self.cv1(x))
        return x + y if self.residual else y


class C2f(nn.Module):
    """A split in two halves, bottlenecks in a row on the second, all of them joined by a 1x1."""

    def __init__(self, inner: int, outer: int, count: int, residual: bool):
        super().__init__()
        half = outer // 2
        self.cv1 = Conv(inner, 2 * half)
        self.m = nn.ModuleList(Bottleneck(half, residual) for _ in range(count))
        self.cv2 = Conv((2 + count) * half, outer)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of `outer` channels."""
        halves = self.cv1(x).chunk(2, 1)
        parts = [halves[0], halves[1]]
        for block in self.m:
            parts.append(block(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Sppf(nn.Module):
    """Three poolings of 5x5 in a row, joined."""

    def __init__(self, width: int):
        super().__init__()
        self.cv1, self.cv2 = Conv(width, width // 2), Conv(2 * width, width)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class YoloV8(nn.Module):
    """The detector: for every place four distances in cells and a logit per class, [batch, 4 + classes, places]."""

    def __init__(self, widths: list[int], counts: list[int], classes: int, resolution: int, box: int, kind: int):
        super().__init__()
        self.resolution, self.classes, self.channels = resolution, classes, 3
        w1, w2, w3, w4, w5 = widths
        self.stem = Conv(3, w1, 3, 2)
        self.down2, self.c2 = Conv(w1, w2, 3, 2), C2f(w2, w2, counts[0], True)
        self.down3, self.c3 = Conv(w2, w3, 3, 2), C2f(w3, w3, counts[1], True)
        self.down4, self.c4 = Conv(w3, w4, 3, 2), C2f(w4, w4, counts[1], True)
        self.down5, self.c5 = Conv(w4, w5, 3, 2), C2f(w5, w5, counts[0], True)
        self.sppf = Sppf(w5)
        self.up = nn.Upsample(scale_factor=2)
        self.n4, self.n3 = C2f(w5 + w4, w4, counts[0], False), C2f(w4 + w3, w3, counts[0], False)
        self.lower4, self.p4 = Conv(w3, w3, 3, 2), C2f(w3 + w4, w4, counts[0], False)
        self.lower5, self.p5 = Conv(w4, w4, 3, 2), C2f(w4 + w5, w5, counts[0], False)
        maps = (w3, w4, w5)
        self.head = DetectionHead(
            [_branch(width, box, SIDES * BINS) for width in maps], [_branch(width, kind, classes) for width in maps]
        )

    def neck(self, images: Tensor) -> list[Tensor]:
        """The three maps that the head reads, at strides 8, 16 and 32."""
        x3 = self.c3(self.down3(self.c2(self.down2(self.stem(images)))))
        x4 = self.c4(self.down4(x3))
        x5 = self.sppf(self.c5(self.down5(x4)))
        y4 = self.n4(torch.cat([self.up(x5), x4], 1))
        y3 = self.n3(torch.cat([self.up(y4), x3], 1))
        z4 = self.p4(torch.cat([self.lower4(y3), y4], 1))
        z5 = self.p5(torch.cat([self.lower5(z4), x5], 1))
        return [y3, z4, z5]

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.neck(images))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.resolution, self.resolution).to(like),)


def _branch(inner: int, width: int, outer: int) -> nn.Sequential:
    return nn.Sequential(Conv(inner, width, 3), Conv(width, width, 3), nn.Conv2d(width, outer, 1))


def sizes_of(size: str) -> tuple[list[int], list[int]]:
    """Widths of the five levels, and bottlenecks of the outer and inner levels."""
    depth, width, most = SIZES[size]
    widths = [int(min(base, most) * width) for base in (64, 128, 256, 512, 1024)]
    return widths, [max(1, round(count * depth)) for count in (3, 6)]


def yolov8(
    *,
    size: Literal["n", "s", "m"] = "n",
    nc: PositiveInt = 80,
    resolution: PositiveInt = 640,
    halved: bool = False,
    fused: bool = False,
) -> YoloV8:
    """YOLOv8 in evaluation mode with random weights.

    Args:
        size: n, s or m.
        nc: classes.
        resolution: side of the input, a multiple of 32.
        halved: every width halved but that of the box branches.
        fused: norms folded into their convolutions, which then have a bias.

    Raises:
        ValueError: a resolution that is no multiple of 32.
    """
    if resolution % 32:
        raise ValueError(f"resolution={resolution}: five halvings need a multiple of 32")
    widths, counts = sizes_of(size)
    box = max(16, widths[2] // 4, SIDES * BINS)
    kind = max(widths[2], min(nc, 100))
    if halved:
        widths, kind = [width // 2 for width in widths], kind // 2
    network = YoloV8(widths, counts, nc, resolution, box, kind).eval()
    tell_slim(network, halved)
    if fused:
        fold_batch_norms(network)
    return network
