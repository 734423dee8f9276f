"""RegNetY (arXiv 2003.13678) and what a scaling strategy makes of it (arXiv 2103.06877).

Stage widths, depths and the group width of the unscaled network come from timm's configuration of that name; widths are
rounded to multiples of 8 and then of the group width, which stays, so that groups grow in number.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from bench.errors import did_you_mean
from suites.common.timm_bridge import import_timm
from suites.scaling import rule
from suites.scaling.efficientnet import Squeeze


@dataclass(frozen=True)
class Shape:
    """Stem width, (width, depth) of each stage, group width."""

    stem: int
    stages: tuple[tuple[int, int], ...]
    group: int


def published(name: str) -> Shape:
    """The shape of timm's network of that name, such as regnety_040.

    Raises:
        ValueError: timm has no RegNetY of that name.
        UsageError: timm is not installed.
    """
    import_timm()
    from timm.models import regnet

    known = [key for key in regnet.model_cfgs if key.startswith("regnety") and not regnet.model_cfgs[key].linear_out]
    if name not in known:
        raise ValueError(f'timm has no "{name}" among its RegNetY; {did_you_mean(name, known)}')
    cfg = regnet.model_cfgs[name]
    widths, _, _ = regnet.generate_regnet(cfg.wa, cfg.w0, cfg.wm, cfg.depth, cfg.group_size)
    depths = Counter(widths)
    found, _ = regnet.adjust_widths_groups_comp(
        sorted(depths), [cfg.bottle_ratio] * len(depths), [cfg.group_size] * len(depths), cfg.group_min_ratio
    )
    stages = tuple((width, depths[own]) for width, own in zip(found, sorted(depths), strict=True))
    return Shape(cfg.stem_width, stages, cfg.group_size)


class YBlock(nn.Module):
    """1 x 1, grouped 3 x 3, squeeze to a quarter of the input, 1 x 1; a shortcut, strided where the shape changes."""

    def __init__(self, inner: int, outer: int, stride: int, group: int):
        super().__init__()
        groups = max(1, outer // group)
        self.conv1, self.conv2 = _conv(inner, outer, 1), _conv(outer, outer, 3, stride, groups)
        self.squeeze = Squeeze(outer, round(inner / 4), nn.ReLU)
        self.conv3 = nn.Sequential(nn.Conv2d(outer, outer, 1, bias=False), nn.BatchNorm2d(outer))
        changes = stride > 1 or inner != outer
        line = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.shortcut = line if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the outer width."""
        return F.relu(self.shortcut(x) + self.conv3(self.squeeze(self.conv2(self.conv1(x)))))


def _conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outer), nn.ReLU())


class RegNetY(nn.Module):
    """Stem, stages, mean over places, classifier."""

    def __init__(self, shape: Shape, resolution: int, classes: int):
        super().__init__()
        self.resolution, self.classes = resolution, classes
        self.stem = _conv(3, shape.stem, 3, 2)
        blocks, inner = list[nn.Module](), shape.stem
        for width, depth in shape.stages:
            for i in range(depth):
                blocks.append(YBlock(inner, width, 2 if i == 0 else 1, min(shape.group, width)))
                inner = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inner, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the network's own resolution."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(self.classifier.weight),)


def scaled_regnety(
    *,
    name: str = "regnety_004",
    strategy: str = "dwr",
    s: Positive = 1.0,
    base_resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
) -> RegNetY:
    """A RegNetY of timm's with s times its operations, in evaluation mode with random weights.

    Args:
        name: of the unscaled network, such as regnety_040.
        strategy: d, w, r, dw, wr, dwr, d1_w8_r1 or any other weights.
        s: factor of the operations, before rounding.
        base_resolution: of the unscaled network.
        classes: logits.

    Raises:
        ValueError: a name or strategy that is none.
        UsageError: timm is not installed.
    """
    shape, by = published(name), rule.factors(strategy, s)
    resolution = rule.rounded_resolution(base_resolution * by.resolution)
    scaled = Shape(_width(shape.stem, by.width, 8), tuple(
        (_width(width, by.width, shape.group), rule.rounded_depth(depth * by.depth)) for width, depth in shape.stages
    ), shape.group)  # fmt: skip
    return RegNetY(scaled, resolution, classes).eval()


def _width(width: int, factor: float, multiple: int) -> int:
    """A width times a factor, rounded to 8 and then to the multiple; a width that is not scaled stays."""
    return width if factor == 1 else rule.rounded_width(rule.rounded_width(width * factor), multiple)
