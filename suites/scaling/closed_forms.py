"""Closed forms of this suite's networks as cards name them: settings of a builder to products of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suites.scaling import rule
from suites.scaling.efficientnet import Stage, base
from suites.scaling.stunet import SIZES

Settings = Mapping[str, Any]


def efficientnet(model: Settings, method: Settings) -> int:
    """Products of a scaled EfficientNet, layer by layer from the rule: no module is built."""
    by = rule.factors(model.get("strategy", "dwr"), model.get("s", 1.0))
    stem, stages, head = base(model.get("base_width", 1.0))
    side = rule.rounded_resolution(model.get("base_resolution", 224) * by.resolution)
    side, inner = half(side), rule.rounded_width(stem * by.width)
    total = side**2 * 27 * inner
    for stage in stages:
        outer = rule.rounded_width(stage.width * by.width)
        for i in range(rule.rounded_depth(stage.depth * by.depth)):
            part, side = _block(stage, inner, outer, side, stage.stride if i == 0 else 1)
            total, inner = total + part, outer
    wide = rule.rounded_width(head * by.width)
    return total + side**2 * inner * wide + wide * int(model.get("classes", 1000))


def _block(stage: Stage, inner: int, outer: int, side: int, stride: int) -> tuple[int, int]:
    """Products of one block and the side that it leaves."""
    wide, after = inner * stage.expansion, half(side) if stride == 2 else side
    expand = side**2 * inner * wide if stage.expansion > 1 else 0
    squeeze = 2 * wide * max(1, inner // 4)
    return expand + after**2 * wide * (stage.kernel**2 + outer) + squeeze, after


def half(side: int) -> int:
    """Side after a convolution of stride 2 with padding (k - 1) / 2."""
    return (side - 1) // 2 + 1


def stunet(model: Settings, method: Settings) -> int:
    """Products of STU-Net: 27 c_in c_out v for every convolution of 3^3, c_in c_out v for those of 1^3."""
    size = model.get("size", "S")
    widths, depth = (tuple(model["widths"]), model.get("depth", 1)) if size == "own" else SIZES[size]
    side, classes = model.get("side", 64), model.get("classes", 105)
    voxels = [(side // 2**i) ** 3 for i in range(len(widths))]
    inners = (model.get("channels", 1), *widths[:-1])
    total = sum(_stage(inner, outer, v, depth) for inner, outer, v in zip(inners, widths, voxels, strict=True))
    first = model.get("up", "nearest_first") == "conv_first"
    for i in range(len(widths) - 2, -1, -1):
        total += widths[i + 1] * widths[i] * voxels[i + 1 if first else i] + _stage(
            2 * widths[i], widths[i], voxels[i], depth
        )
        total += widths[i] * classes * voxels[i] if model.get("heads", "last") == "all" or i == 0 else 0
    return total


def _stage(inner: int, outer: int, voxels: int, depth: int) -> int:
    first = 27 * inner * outer + 27 * outer**2 + inner * outer
    return voxels * (first + (depth - 1) * 54 * outer**2)


def stormer(model: Settings, method: Settings) -> int:
    """Products of Stormer on one field: embedding, aggregation, trunk, modulation, head."""
    given = {"variables": 8, "high": 16, "wide": 32, "patch": 2, "width": 128, "depth": 4, **model}
    variables, patch, width = given["variables"], given["patch"], given["width"]
    places = (given["high"] // patch) * (given["wide"] // patch)
    patches = places * variables * patch**2 * width
    asked = 1 if given.get("query") == "once" else places
    joined = places * (2 * variables * width**2 + 2 * variables * width + width**2) + asked * width**2
    trunk = given["depth"] * (12 * places * width**2 + 2 * places**2 * width + 6 * width**2)
    ends = width + 2 * width**2 + places * width * variables * patch**2
    return patches + (joined if given.get("embedding", "variable") == "variable" else 0) + trunk + ends
