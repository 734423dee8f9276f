"""YOLOv13: area attention, separable convolutions, and a hypergraph over three scales. Written from its description.

Source: Lei et al. 2025, YOLOv13, arXiv:2506.17733; sections 3.2 to 3.4 and table 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import Residual, at
from suites.common.folding import fold_sequences
from suites.convnets.hypergraph import Hypergraph
from suites.convnets.yolo_blocks import Cross, SplitChain, area_stage, check_sides, conv, head, scaled

#: Depth, width, most channels, hyperedges, MLP ratio of the attention blocks, whether blocks are the larger kind.
SCALES = {
    "n": (0.5, 0.25, 1024, 4, 2.0, False),
    "s": (0.5, 0.5, 1024, 8, 2.0, False),
    "l": (1.0, 1.0, 512, 8, 1.5, True),
    "x": (1.0, 1.5, 512, 12, 1.5, True),
}
#: Side of the depthwise layer by which attention keeps values in their places.
PLACE = 5


def _separable(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Depthwise, 1x1, one norm, SiLU."""
    spatial = nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False)
    return nn.Sequential(spatial, *conv(inputs, outputs))


def _pair(channels: int) -> Residual:
    """Separable 3x3 and 7x7, with a shortcut."""
    return Residual(nn.Sequential(_separable(channels, channels, 3), _separable(channels, channels, 7)))


def _chain(inputs: int, outputs: int, repeat: int, cross: bool, share: float = 0.5) -> SplitChain:
    """A split chain of separable pairs, or of crosses of them, on a share of the outputs."""
    inner = int(outputs * share)
    units = [Cross(inner, inner, _pair) if cross else _pair(inner) for _ in range(repeat)]
    return SplitChain(inputs, outputs, inner, units)


class HyperBranch(nn.Module):
    """A hypergraph on a 1x1 path beside a plain one, joined by a 1x1."""

    def __init__(self, channels: int, edges: int):
        super().__init__()
        self.deep = conv(channels, channels)
        self.graph = Hypergraph(channels, edges, heads=channels // 16)
        self.flat = conv(channels, channels)
        self.leave = conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.leave(torch.cat((self.graph(self.deep(x)), self.flat(x)), 1))


class HyperAce(nn.Module):
    """Three scales met at stride 16: two hypergraphs and a chain of separable units on thirds of the channels."""

    def __init__(self, inputs: int, outputs: int, repeat: int, edges: int):
        super().__init__()
        third = outputs // 2
        self.fuse = conv(inputs, outputs)
        self.enter = conv(outputs, 3 * third)
        self.branches = nn.ModuleList(HyperBranch(third, edges) for _ in range(2))
        self.units = nn.ModuleList(Cross(third, third // 2, _pair) for _ in range(repeat))
        self.leave = conv((4 + repeat) * third, outputs)

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
            return scaled(channels, width, most)

        two, four = max(1, round(2 * depth)), max(1, round(4 * depth))
        c3, c4, c5 = w(512), w(512), w(1024)
        self.to_p3 = nn.Sequential(
            conv(3, w(64), 3, 2), conv(w(64), w(128), 3, 2, groups=2),
            _chain(w(128), w(256), two, large, 0.25), conv(w(256), w(256), 3, 2, groups=4),
            _chain(w(256), c3, two, large, 0.25),
        )  # fmt: skip
        self.to_p4 = nn.Sequential(
            _separable(c3, c4, 3, 2), area_stage(c4, four, 4, ratio, kernel=PLACE, shortcut=large)
        )
        self.to_p5 = nn.Sequential(
            _separable(c4, c5, 3, 2), area_stage(c5, four, 1, ratio, kernel=PLACE, shortcut=large)
        )
        self.ace = HyperAce(c3 + c4 + c5, c4, two, edges)
        self.to_coarse = conv(c4, c5) if not large else nn.Identity()
        self.to_fine = conv(c4, w(256))
        self.gates = nn.Parameter(torch.zeros(7))
        self.up4 = _chain(c5 + c4, c4, two, True)
        self.up3 = _chain(c4 + c3, w(256), two, True)
        self.down4, self.down5 = conv(w(256), w(256), 3, 2), conv(c4, c4, 3, 2)
        self.out4 = _chain(w(256) + c4, c4, two, True)
        self.out5 = _chain(c4 + c5, c5, two, True)
        self.head = head((w(256), c4, c5), classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: 32 does not divide the sides of the images.
        """
        check_sides("YOLOv13", x)
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
