"""Blocks that the YOLO detectors of several years share, named by what they do. Written from their descriptions.

Sources: Lei et al. 2025, YOLOv13, arXiv:2506.17733, section 3; Tian et al. 2025, YOLOv12, arXiv:2502.12524, section 3;
Khanam and Hussain 2024, YOLOv11: An Overview, arXiv:2410.17725, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UsageError
from suites.common.conv_blocks import Residual, conv_norm
from suites.common.detection import BINS, SIDES, DetectionHead, box_width

#: Channels of a head of the area attention.
HEAD = 32


def conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, normalisation, and SiLU if asked for."""
    return conv_norm(inputs, outputs, kernel, stride, groups=groups, act=nn.SiLU if act else None, eps=1e-3)


def scaled(channels: int, width: float, most: int) -> int:
    """Channels of a network of that width, at most so many before it, rounded up to a multiple of 8."""
    return math.ceil(min(channels, most) * width / 8) * 8


def plain_pair(channels: int, hidden: int) -> Residual:
    """Two 3x3 layers with a shortcut."""
    return Residual(nn.Sequential(conv(channels, hidden, 3), conv(hidden, channels, 3)))


class Cross(nn.Module):
    """Two units beside a 1x1 path, joined by a 1x1."""

    def __init__(self, channels: int, inner: int, unit: Callable[[int], nn.Module]):
        super().__init__()
        self.deep = nn.Sequential(conv(channels, inner), unit(inner), unit(inner))
        self.flat = conv(channels, inner)
        self.leave = conv(2 * inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.leave(torch.cat((self.deep(x), self.flat(x)), 1))


def plain_cross(channels: int) -> Cross:
    """Two pairs of 3x3 layers on half of the channels, beside the other half."""
    return Cross(channels, channels // 2, lambda inner: plain_pair(inner, inner))


class SplitChain(nn.Module):
    """1x1 to two halves, units one after the other on the second, all maps joined, 1x1."""

    def __init__(self, inputs: int, outputs: int, inner: int, units: Sequence[nn.Module]):
        super().__init__()
        self.enter = conv(inputs, 2 * inner)
        self.units = nn.ModuleList(units)
        self.leave = conv((2 + len(units)) * inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        maps = list(self.enter(x).chunk(2, 1))
        for unit in self.units:
            maps.append(unit(maps[-1]))
        return self.leave(torch.cat(maps, 1))


def plain_chain(inputs: int, outputs: int, repeat: int, *, cross: bool = False, share: float = 0.5) -> SplitChain:
    """A split chain of plain units on a share of the outputs: pairs of 3x3 layers, or crosses of such pairs."""
    inner = int(outputs * share)
    units = [plain_cross(inner) if cross else plain_pair(inner, inner // 2) for _ in range(repeat)]
    return SplitChain(inputs, outputs, inner, units)


class WholeChain(nn.Module):
    """1x1 to half the outputs, units one after the other, all maps joined, 1x1; a scaled shortcut if asked for."""

    def __init__(self, inputs: int, outputs: int, units: Sequence[nn.Module], *, shortcut: bool = False):
        super().__init__()
        inner = outputs // 2
        self.enter = conv(inputs, inner)
        self.units = nn.ModuleList(units)
        self.leave = conv((1 + len(units)) * inner, outputs)
        self.scale = nn.Parameter(torch.full((outputs, 1, 1), 0.01)) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        maps = [self.enter(x)]
        for unit in self.units:
            maps.append(unit(maps[-1]))
        y = self.leave(torch.cat(maps, 1))
        return y if self.scale is None else x + self.scale * y


class AreaAttention(nn.Module):
    """Attention inside each of so many horizontal strips; values keep their place by a depthwise layer; then an MLP."""

    def __init__(self, channels: int, area: int, ratio: float, kernel: int):
        super().__init__()
        hidden = int(channels * ratio)
        self.area, self.heads = area, channels // HEAD
        self.qk = conv(channels, 2 * channels, act=False)
        self.v = conv(channels, channels, act=False)
        self.place = conv(channels, channels, kernel, groups=channels, act=False)
        self.leave = conv(channels, channels, act=False)
        self.mlp = nn.Sequential(conv(channels, hidden), conv(hidden, channels, act=False))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = x + self.attended(x)
        return x + self.mlp(x)

    def attended(self, x: Tensor) -> Tensor:
        """What attention adds."""
        value = self.v(x)
        query, key = self.qk(x).chunk(2, 1)
        mixed = F.scaled_dot_product_attention(self._strips(query), self._strips(key), self._strips(value))
        return self.leave(self._whole(mixed, x) + self.place(value))

    def _strips(self, x: Tensor) -> Tensor:
        """[batch x area, heads, places of a strip, 32]."""
        batch, _, height, width = x.shape
        if height * width % self.area:
            raise UsageError(f"this YOLO cuts its map into {self.area} strips: {height} x {width} cannot be cut so")
        tokens = x.flatten(2).transpose(1, 2).reshape(batch * self.area, -1, self.heads, HEAD)
        return tokens.transpose(1, 2)

    def _whole(self, strips: Tensor, like: Tensor) -> Tensor:
        batch, channels, height, width = like.shape
        return strips.transpose(1, 2).reshape(batch, height * width, channels).transpose(1, 2).view_as(like)


def area_stage(channels: int, repeat: int, area: int, ratio: float, *, kernel: int, shortcut: bool) -> WholeChain:
    """A chain of pairs of attention blocks on half of the channels, in so many strips."""
    inner = channels // 2
    units = [
        nn.Sequential(AreaAttention(inner, area, ratio, kernel), AreaAttention(inner, area, ratio, kernel))
        for _ in range(repeat)
    ]
    return WholeChain(channels, channels, units, shortcut=shortcut)


def head(widths: tuple[int, ...], classes: int) -> DetectionHead:
    """3x3 layers for boxes, depthwise and 1x1 layers for classes, on maps of those widths, the finest first."""
    box, kind = box_width(widths[0]), max(widths[0], min(classes, 100))
    boxes = [nn.Sequential(conv(width, box, 3), conv(box, box, 3), nn.Conv2d(box, BINS * SIDES, 1)) for width in widths]
    kinds = [
        nn.Sequential(
            conv(width, width, 3, groups=width),
            conv(width, kind),
            conv(kind, kind, 3, groups=kind),
            conv(kind, kind),
            nn.Conv2d(kind, classes, 1),
        )
        for width in widths
    ]
    return DetectionHead(boxes, kinds)


class TwoWays(nn.Module):
    """Maps of strides 8, 16 and 32 led up and down again, each step by a block of its own: three maps for the head."""

    def __init__(
        self, widths: tuple[int, int, int], fine: int, chain: Callable[[int, int], nn.Module], last: nn.Module
    ):
        """Take the blocks.

        Args:
            widths: channels of the three maps, the finest first.
            fine: channels of the finest map that comes out; the others keep theirs.
            chain: makes the block of a step, of so many inputs and outputs.
            last: the block of the coarsest map, of the two coarser widths joined.
        """
        super().__init__()
        c3, c4, c5 = widths
        self.up4, self.up3 = chain(c5 + c4, c4), chain(c4 + c3, fine)
        self.down4, self.down5 = conv(fine, fine, 3, 2), conv(c4, c4, 3, 2)
        self.out4, self.out5 = chain(fine + c4, c4), last

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> list[Tensor]:
        """Three maps at the same strides."""
        up4 = self.up4(torch.cat((F.interpolate(p5, scale_factor=2.0), p4), 1))
        out3 = self.up3(torch.cat((F.interpolate(up4, scale_factor=2.0), p3), 1))
        out4 = self.out4(torch.cat((self.down4(out3), up4), 1))
        return [out3, out4, self.out5(torch.cat((self.down5(out4), p5), 1))]


def check_sides(name: str, x: Tensor) -> None:
    """Raise UsageError unless 32 divides the sides of the images."""
    if x.shape[-1] % 32 or x.shape[-2] % 32:
        raise UsageError(f"{name} needs sides that 32 divides, not {tuple(x.shape[-2:])}")
