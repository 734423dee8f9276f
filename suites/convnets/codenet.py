"""Deformable convolutions made for hardware: bounded, square and depthwise; and a small detector of them.

Sources: Huang et al. 2020, arXiv:2002.08357, sections 3 and 4; continued as CoDeNet, arXiv:2006.08357.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at, depthwise
from suites.common.deformable import by_grid_sample, deform_conv2d
from suites.common.feature_operator import FeatureOperator
from suites.common.torchvision_remedy import import_beside_torchvision

TAPS = 9
#: Offsets are kept within so many pixels.
BOUND = 8
ENCODED = 1024
DECODED = (512, 256, 128)


class Deformable(nn.Module):
    """A 3x3 convolution whose taps are sent elsewhere.

    Reads 9 C bilinear samples a pixel, four multiplies each, not MACs.

    `deform` predicts 18 offsets by a 1x1 layer; `bound` by a 3x3, clamped; `square` one number by a 3x3, which scales
    the grid.
    """

    grid: Tensor

    def __init__(self, inputs: int, outputs: int, kind: str):
        super().__init__()
        self.kind = kind
        self.each = kind.endswith("_dw")
        self.widen = nn.Conv2d(inputs, outputs, 1, bias=False) if self.each else nn.Identity()
        numbers, size = (1 if "square" in kind else 2 * TAPS), (3 if kind in ("bound", "square") else 1)
        self.predict = nn.Conv2d(outputs if self.each else inputs, numbers, size, padding=size // 2)
        shape = (outputs, 1, 3, 3) if self.each else (outputs, inputs, 3, 3)
        self.weight = nn.Parameter(torch.randn(shape) * (2.0 / (TAPS * shape[1])) ** 0.5)
        grid = torch.tensor([(row, column) for row in (-1.0, 0.0, 1.0) for column in (-1.0, 0.0, 1.0)])
        self.register_buffer("grid", grid.flatten(), persistent=False)

    def offsets(self, x: Tensor) -> Tensor:
        """[batch, 18, h, w]."""
        numbers = self.predict(x)
        if "square" in self.kind:
            scale = numbers.clamp(0, BOUND)
            return (scale - 1) * self.grid.to(x.dtype).view(1, -1, 1, 1)
        return numbers.clamp(-BOUND, BOUND) if self.kind != "deform" else numbers

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        y = self.widen(x)
        return deform_conv2d(y, self.offsets(y), self.weight, groups=y.shape[1] if self.each else 1)


def operator_of(inputs: int, outputs: int, kind: str) -> nn.Module:
    """The layer of a kind."""
    if kind == "3x3":
        return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    if kind == "3x3dw":
        point = nn.Conv2d(inputs, outputs, 1, bias=False)
        return nn.Sequential(point, nn.BatchNorm2d(outputs), depthwise(outputs, 3, bias=False))
    return Deformable(inputs, outputs, kind)


class Detector(nn.Module):
    """Images [batch, 3, h, w] to a map of classes, of sizes and of offsets, at a quarter of the side."""

    def __init__(self, kind: str, classes: int):
        super().__init__()
        encoder = import_beside_torchvision("torchvision.models").shufflenet_v2_x1_0(weights=None)
        stages = (encoder.conv1, encoder.maxpool, encoder.stage2, encoder.stage3, encoder.stage4, encoder.conv5)
        self.encoder = nn.Sequential(*stages)
        decoder, before = list[nn.Module](), ENCODED
        for width in DECODED:
            decoder += [operator_of(before, width, kind), nn.BatchNorm2d(width), nn.ReLU(), nn.Upsample(scale_factor=2)]
            before = width
        self.decoder = nn.Sequential(*decoder)
        self.heads = nn.ModuleList(
            nn.Sequential(
                operator_of(before, before, kind), nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, numbers, 1)
            )
            for numbers in (classes, 2, 2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The three maps."""
        y = self.decoder(self.encoder(x))
        return tuple(head(y) for head in self.heads)


def codenet(
    *,
    kind: Literal["3x3", "3x3dw", "deform", "bound", "square", "deform_dw", "square_dw"] = "square_dw",
    classes: PositiveInt = 20,
    resolution: PositiveInt = 512,
) -> Detector:
    """A CoDeNet: ShuffleNetV2 (torchvision's) and a decoder of layers of one kind.

    Args:
        kind: of the decoder's layers.
        classes: of things to find.
        resolution: side of the input.

    Raises:
        UsageError: torchvision is missing.
    """
    return at(Detector(kind, classes), resolution)


def deformable_layer(
    *,
    kind: Literal["3x3", "3x3dw", "deform", "bound", "square", "deform_dw", "square_dw"] = "deform",
    width: PositiveInt = 64,
    resolution: PositiveInt = 16,
) -> FeatureOperator:
    """One layer as an operator on [batch, width, resolution, resolution], beside grid_sample tap by tap.

    Raises:
        UsageError: the map is of one pixel.
    """
    if resolution < 2:
        raise UsageError(f"deformable_layer: resolution={resolution} has no neighbours")
    layer, size = operator_of(width, width, kind), (width, resolution, resolution)
    if not isinstance(layer, Deformable):
        return FeatureOperator(layer, size, form=kind)
    return FeatureOperator(layer, size, reference=_tap_by_tap, tolerance=1e-4, form=kind)


def _tap_by_tap(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, Deformable)
    y = layer.widen(x)
    return by_grid_sample(y, layer.offsets(y), layer.weight)
