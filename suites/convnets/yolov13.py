"""YOLOv13: area attention, separable convolutions, and a hypergraph over three scales. Written from its description.

Source: Lei et al. 2025, YOLOv13, arXiv:2506.17733; sections 3.2 to 3.4 and table 1. Layers that several detectors
share are named by what they do: a split-and-chain block keeps all of its intermediate maps.
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
from suites.common.folding import fold_sequences
from suites.convnets.hypergraph import Hypergraph

#: Depth, width, most channels, hyperedges, MLP ratio of the attention blocks, whether blocks are the larger kind.
SCALES = {
    "n": (0.5, 0.25, 1024, 4, 2.0, False),
    "s": (0.5, 0.5, 1024, 8, 2.0, False),
    "l": (1.0, 1.0, 512, 8, 1.5, True),
    "x": (1.0, 1.5, 512, 12, 1.5, True),
}
#: Channels of a head of the area attention.
HEAD = 32


def _conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    return conv_norm(inputs, outputs, kernel, stride, groups=groups, act=nn.SiLU if act else None, eps=1e-3)


def _separable(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Depthwise, 1x1, one norm, SiLU."""
    spatial = nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False)
    return nn.Sequential(spatial, *_conv(inputs, outputs))


class _Pair(nn.Module):
    """Separable 3x3 and 7x7, with a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(_separable(channels, channels, 3), _separable(channels, channels, 7))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Cross(nn.Module):
    """Two pairs beside a 1x1 path, joined by a 1x1."""

    def __init__(self, channels: int, share: float):
        super().__init__()
        inner = int(channels * share)
        self.deep = nn.Sequential(_conv(channels, inner), _Pair(inner), _Pair(inner))
        self.flat = _conv(channels, inner)
        self.leave = _conv(2 * inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(torch.cat((self.deep(x), self.flat(x)), 1))


class SplitChain(nn.Module):
    """1x1 to two halves, units one after the other on the second, all maps joined, 1x1."""

    def __init__(self, inputs: int, outputs: int, repeat: int, cross: bool, share: float = 0.5):
        super().__init__()
        inner = int(outputs * share)
        self.enter = _conv(inputs, 2 * inner)
        self.units = nn.ModuleList(_Cross(inner, 1.0) if cross else _Pair(inner) for _ in range(repeat))
        self.leave = _conv((2 + repeat) * inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        maps = list(self.enter(x).chunk(2, 1))
        for unit in self.units:
            maps.append(unit(maps[-1]))
        return self.leave(torch.cat(maps, 1))


class AreaAttention(nn.Module):
    """Attention inside each of so many horizontal strips; values keep their place by a 5x5 depthwise layer.

    Then an MLP.
    """

    def __init__(self, channels: int, area: int, ratio: float):
        super().__init__()
        hidden = int(channels * ratio)
        self.area, self.heads = area, channels // HEAD
        self.qk = _conv(channels, 2 * channels, act=False)
        self.v = _conv(channels, channels, act=False)
        self.place = _conv(channels, channels, 5, groups=channels, act=False)
        self.leave = _conv(channels, channels, act=False)
        self.mlp = nn.Sequential(_conv(channels, hidden), _conv(hidden, channels, act=False))

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
            raise UsageError(f"YOLOv13 cuts its map into {self.area} strips: {height} x {width} cannot be cut so")
        tokens = x.flatten(2).transpose(1, 2).reshape(batch * self.area, -1, self.heads, HEAD)
        return tokens.transpose(1, 2)

    def _whole(self, strips: Tensor, like: Tensor) -> Tensor:
        batch, channels, height, width = like.shape
        return strips.transpose(1, 2).reshape(batch, height * width, channels).transpose(1, 2).view_as(like)


class AreaStage(nn.Module):
    """1x1 to half the width, pairs of attention blocks, all maps joined, 1x1.

    A scaled shortcut in the larger networks.
    """

    def __init__(self, channels: int, repeat: int, area: int, ratio: float, shortcut: bool):
        super().__init__()
        inner = channels // 2
        self.enter = _conv(channels, inner)
        self.units = nn.ModuleList(
            nn.Sequential(AreaAttention(inner, area, ratio), AreaAttention(inner, area, ratio)) for _ in range(repeat)
        )
        self.leave = _conv((1 + repeat) * inner, channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.01)) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        maps = [self.enter(x)]
        for unit in self.units:
            maps.append(unit(maps[-1]))
        y = self.leave(torch.cat(maps, 1))
        return y if self.scale is None else x + self.scale * y


class HyperBranch(nn.Module):
    """A hypergraph on a 1x1 path beside a plain one, joined by a 1x1."""

    def __init__(self, channels: int, edges: int):
        super().__init__()
        self.deep = _conv(channels, channels)
        self.graph = Hypergraph(channels, edges, heads=channels // 16)
        self.flat = _conv(channels, channels)
        self.leave = _conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.leave(torch.cat((self.graph(self.deep(x)), self.flat(x)), 1))


class HyperAce(nn.Module):
    """Three scales met at stride 16: two hypergraphs and a chain of separable units on thirds of the channels."""

    def __init__(self, inputs: int, outputs: int, repeat: int, edges: int):
        super().__init__()
        third = outputs // 2
        self.fuse = _conv(inputs, outputs)
        self.enter = _conv(outputs, 3 * third)
        self.branches = nn.ModuleList(HyperBranch(third, edges) for _ in range(2))
        self.units = nn.ModuleList(_Cross(third, 0.5) for _ in range(repeat))
        self.leave = _conv((4 + repeat) * third, outputs)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> Tensor:
        """[batch, outputs, h / 16, w / 16]."""
        met = torch.cat((F.avg_pool2d(p3, 2), p4, F.interpolate(p5, scale_factor=2.0)), 1)
        kept, shared, last = self.enter(self.fuse(met)).chunk(3, 1)
        maps = [kept, self.branches[0](shared), last]
        for unit in self.units:
            maps.append(unit(maps[-1]))
        return self.leave(torch.cat((*maps, self.branches[1](shared)), 1))


class Yolo13(nn.Module):
    """Images [batch, 3, h, w], sides that 32 divides, to [batch, 4 + classes, places] at strides 8, 16 and 32."""

    def __init__(self, scale: str, classes: int):
        super().__init__()
        depth, width, most, edges, ratio, large = SCALES[scale]

        def w(channels: int) -> int:
            return math.ceil(min(channels, most) * width / 8) * 8

        two, four = max(1, round(2 * depth)), max(1, round(4 * depth))
        c3, c4, c5 = w(512), w(512), w(1024)
        self.to_p3 = nn.Sequential(
            _conv(3, w(64), 3, 2), _conv(w(64), w(128), 3, 2, groups=2),
            SplitChain(w(128), w(256), two, large, 0.25), _conv(w(256), w(256), 3, 2, groups=4),
            SplitChain(w(256), c3, two, large, 0.25),
        )  # fmt: skip
        self.to_p4 = nn.Sequential(_separable(c3, c4, 3, 2), AreaStage(c4, four, 4, ratio, large))
        self.to_p5 = nn.Sequential(_separable(c4, c5, 3, 2), AreaStage(c5, four, 1, ratio, large))
        self.ace = HyperAce(c3 + c4 + c5, c4, two, edges)
        self.to_coarse = _conv(c4, c5) if not large else nn.Identity()
        self.to_fine = _conv(c4, w(256))
        self.gates = nn.Parameter(torch.zeros(7))
        self.up4 = SplitChain(c5 + c4, c4, two, True)
        self.up3 = SplitChain(c4 + c3, w(256), two, True)
        self.down4, self.down5 = _conv(w(256), w(256), 3, 2), _conv(c4, c4, 3, 2)
        self.out4 = SplitChain(w(256) + c4, c4, two, True)
        self.out5 = SplitChain(c4 + c5, c5, two, True)
        self.head = _head((w(256), c4, c5), classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: 32 does not divide the sides of the images.
        """
        if x.shape[-1] % 32 or x.shape[-2] % 32:
            raise UsageError(f"YOLOv13 needs sides that 32 divides, not {tuple(x.shape[-2:])}")
        p3 = self.to_p3(x)
        p4 = self.to_p4(p3)
        p5 = self.to_p5(p4)
        met = self.ace(p3, p4, p5)
        fine, coarse = F.interpolate(met, scale_factor=2.0), self.to_coarse(F.avg_pool2d(met, 2))
        g = self.gates
        in4, in3, in5 = p4 + g[0] * met, p3 + g[1] * fine, p5 + g[2] * coarse
        up4 = self.up4(torch.cat((F.interpolate(in5, scale_factor=2.0), in4), 1))
        up3 = self.up3(torch.cat((F.interpolate(up4, scale_factor=2.0), in3), 1))
        out3 = up3 + g[4] * self.to_fine(fine)
        out4 = self.out4(torch.cat((self.down4(out3), up4 + g[3] * met), 1))
        out5 = self.out5(torch.cat((self.down5(out4), in5), 1))
        return self.head([out3, out4 + g[5] * met, out5 + g[6] * coarse])


def _head(widths: tuple[int, ...], classes: int) -> DetectionHead:
    box, kind = box_width(widths[0]), max(widths[0], min(classes, 100))
    boxes = [
        nn.Sequential(_conv(width, box, 3), _conv(box, box, 3), nn.Conv2d(box, BINS * SIDES, 1)) for width in widths
    ]
    kinds = [
        nn.Sequential(
            _conv(width, width, 3, groups=width),
            _conv(width, kind),
            _conv(kind, kind, 3, groups=kind),
            _conv(kind, kind),
            nn.Conv2d(kind, classes, 1),
        )
        for width in widths
    ]
    return DetectionHead(boxes, kinds)


def yolov13(
    *, scale: Literal["n", "s", "l", "x"] = "n", form: Literal["train", "folded"] = "train",
    classes: PositiveInt = 80, resolution: PositiveInt = 640,
) -> Yolo13:  # fmt: skip
    """A YOLOv13 detector.

    Args:
        scale: depth and width.
        form: as it is trained, or with its norms in the layers before them, whose parameters are the printed ones.
        classes: of things to find.
        resolution: side of the input, which 32 divides.
    """
    network = at(Yolo13(scale, classes), resolution)
    if form == "folded":
        fold_sequences(network)
    return network
