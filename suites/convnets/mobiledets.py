"""MobileDets: backbones for detection with regular convolutions where the accelerator likes them, and SSDLite heads.

Source: Xiong et al. 2021, MobileDets, arXiv:2004.14525, sections 3.2 and 4; layers as released. The head is derived:
its counts are those that the paper prints with it.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import SqueezeExcite, at, conv_norm, rounded

#: A row: kind (`i` inverted, `d` without its first 1x1, `f` fused, `t` tucker, `c` 1x1 alone), outputs, kernel,
#: expansion or (inner in, inner out), stride.
Row = tuple[str, int, int, float | tuple[float, float], int]
#: Boxes at each place of the six maps, and numbers of a box.
ANCHORS = (3, 6, 6, 6, 6, 6)
BOX = 4
EXTRA = (512, 256, 256, 128)


def _i(outputs: int, expansion: float = 8, kernel: int = 3, stride: int = 1) -> Row:
    return ("i", outputs, kernel, expansion, stride)


def _f(outputs: int, expansion: float = 8, kernel: int = 3, stride: int = 1) -> Row:
    return ("f", outputs, kernel, expansion, stride)


def _t(outputs: int, inner: float, outer: float, stride: int = 1) -> Row:
    return ("t", outputs, 3, (inner, outer), stride)


#: Target -> (stem, first layer's row, stages; each begins with the layer that halves the map).
PLANS: dict[str, tuple[int, Row, tuple[tuple[Row, ...], ...]]] = {
    "cpu": (16, ("d", 8, 3, 1, 1), (
        (_i(16, 4, 3, 2),),
        (_i(32, 8, 3, 2), _i(32, 4), _i(32, 4), _i(32, 4)),
        (_i(72, 8, 5, 2), _i(72), _i(72, 4, 5), _i(72, 4), _i(72), _i(72), _i(72), _i(72)),
        (_i(104, 8, 5, 2), _i(104, 4, 5), _i(104, 4, 5), _i(104, 4), _i(144)),
    )),
    "edgetpu": (32, _t(16, 0.25, 0.75), (
        (_f(16, 8, 3, 2), _f(16, 4), _f(16), _f(16, 4)),
        (_f(40, 8, 5, 2), _f(40, 4), _f(40, 4), _f(40, 4)),
        (_i(72, 8, 3, 2), _i(72), _f(72, 4), _f(72, 4), _i(96, 8, 5), _i(96, 8, 5), _i(96), _i(96)),
        (_i(120, 8, 5, 2), _i(120), _i(120, 4, 5), _i(120), _i(384, 8, 5)),
    )),
    "dsp": (32, ("d", 24, 3, 1, 1), (
        (_f(32, 4, 3, 2), _f(32, 4), _i(32, 4), _t(32, 0.25, 0.75)),
        (_f(64, 8, 3, 2), _i(64, 4), _f(64, 4), _f(64, 4)),
        (_f(120, 8, 3, 2), _i(120, 4), _i(120), _i(120), _f(144), _i(144), _i(144), _i(144)),
        (_i(160, 4, 3, 2), _i(160, 4), _f(160, 4), _t(160, 0.75, 0.75), _i(240)),
    )),
    # the baseline: SSDLite looks at the expansion of the first layer of stride 32, and at the last 1x1 layer
    "mobilenetv2": (32, ("d", 16, 3, 1, 1), (
        (_i(24, 6, 3, 2), _i(24, 6)),
        (_i(32, 6, 3, 2), _i(32, 6), _i(32, 6)),
        (_i(64, 6, 3, 2), _i(64, 6), _i(64, 6), _i(64, 6), _i(96, 6), _i(96, 6), _i(96, 6), ("c", 576, 1, 1, 1)),
        (("d", 160, 3, 1, 2), _i(160, 6), _i(160, 6), _i(320, 6), ("c", 1280, 1, 1, 1)),
    )),
}  # fmt: skip


class _Layer(nn.Module):
    """One row; a shortcut where the shape stays."""

    def __init__(self, inputs: int, row: Row, act: type[nn.Module], gated: bool):
        super().__init__()
        kind, outputs, kernel, size, stride = row
        layers: list[nn.Module] = []
        if kind == "t":
            inner, outer = size  # type: ignore[misc]
            middle = rounded(outer * outputs)
            layers += conv_norm(inputs, rounded(inner * inputs), act=act)
            layers += conv_norm(rounded(inner * inputs), middle, kernel, stride, act=act)
            layers += conv_norm(middle, outputs)
        elif kind == "c":
            layers += conv_norm(inputs, outputs, act=act)
        else:
            hidden = int(inputs * size)  # type: ignore[arg-type]
            if kind == "i":
                layers += conv_norm(inputs, hidden, act=act)
            groups = 1 if kind == "f" else hidden
            layers += conv_norm(inputs if kind == "f" else hidden, hidden, kernel, stride, groups=groups, act=act)
            if gated:
                layers.append(SqueezeExcite(hidden, rounded(hidden / 4), gate=nn.Hardsigmoid))
            layers += conv_norm(hidden, outputs)
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class Backbone(nn.Module):
    """Images [batch, 3, h, w] to the maps at strides 16 and 32."""

    def __init__(self, plan: str):
        super().__init__()
        stem, first, stages = PLANS[plan]
        gated = plan == "cpu"
        act: type[nn.Module] = nn.Hardswish if gated else nn.ReLU6
        self.stem = nn.Sequential(conv_norm(3, stem, 3, 2, act=act), _Layer(stem, first, act, gated))
        before, made, self.widths = first[1], [], []
        for rows in stages:
            stage = []
            for row in rows:
                stage.append(_Layer(before, row, act, gated))
                before = row[1]
            made.append(nn.Sequential(*stage))
            self.widths.append(before)
        self.stages = nn.ModuleList(made)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last map of stride 16 and that of stride 32."""
        y = self.stem(x)
        for stage in self.stages[:-1]:
            y = stage(y)
        return y, self.stages[-1](y)


class _Predictor(nn.Module):
    """3x3 depthwise and 1x1: numbers for every box of a map."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm(channels, channels, 3, groups=channels, act=nn.ReLU6), nn.Conv2d(channels, outputs, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Detector(nn.Module):
    """A backbone with SSDLite heads: scores [batch, boxes, classes] and boxes [batch, boxes, 4]."""

    def __init__(self, plan: str, classes: int):
        super().__init__()
        self.classes = classes
        self.backbone = Backbone(plan)
        widths = [*self.backbone.widths[-2:], *EXTRA]
        self.extra = nn.ModuleList(
            nn.Sequential(
                conv_norm(before, width // 2, act=nn.ReLU6),
                conv_norm(width // 2, width // 2, 3, 2, groups=width // 2, act=nn.ReLU6),
                conv_norm(width // 2, width, act=nn.ReLU6),
            )
            for before, width in itertools.pairwise(widths[1:])
        )
        self.scores = nn.ModuleList(_Predictor(w, n * classes) for w, n in zip(widths, ANCHORS, strict=True))
        self.boxes = nn.ModuleList(_Predictor(w, n * BOX) for w, n in zip(widths, ANCHORS, strict=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes."""
        maps = list(self.backbone(x))
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        scores = [_by_box(layer(y), self.classes) for layer, y in zip(self.scores, maps, strict=True)]
        boxes = [_by_box(layer(y), BOX) for layer, y in zip(self.boxes, maps, strict=True)]
        return torch.cat(scores, 1), torch.cat(boxes, 1)


def _by_box(x: Tensor, numbers: int) -> Tensor:
    """[batch, anchors x numbers, h, w] as [batch, h w anchors, numbers]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, numbers)


def mobiledet(
    *, plan: Literal["cpu", "edgetpu", "dsp", "mobilenetv2"] = "cpu", head: bool = True, classes: PositiveInt = 91,
    resolution: PositiveInt = 320,
) -> nn.Module:  # fmt: skip
    """A MobileDet on images [batch, 3, resolution, resolution].

    Args:
        plan: the accelerator that it was searched for; or `mobilenetv2` (arXiv:1801.04381, section 6.2), the baseline.
        head: whether SSDLite heads are behind the backbone.
        classes: of the detector, background included.
        resolution: side of the input.
    """
    return at(Detector(plan, classes) if head else Backbone(plan), resolution)
