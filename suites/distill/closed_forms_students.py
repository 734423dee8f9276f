"""MACs of one sample by closed forms, of detectors, sums of students and the classifier with an attention layer.

`function(model_settings, method_settings)`; settings that are not given have the builders' defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suites.common.conv_blocks import rounded
from suites.common.mobilenet import STAGES
from suites.distill.gfl import STRIDES
from suites.distill.mamba_pkd import STUDENTS, scan_macs

Settings = Mapping[str, Any]
#: Blocks of each stage of a ResNet, and whether they are bottlenecks.
RESNETS = {
    "resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True), "resnet152": ((3, 8, 36, 3), True),
}  # fmt: skip


def half(side: int) -> int:
    """Side of a map after a padded layer of stride 2."""
    return -(-side // 2)


def gfl(model: Settings, _: Settings) -> int:
    """Backbone, pyramid, head of five levels, and the mean of the distributions."""
    defaults = {
        "backbone": "mobilenet_v2", "width": 1.0, "channels": 256, "convs": 4, "classes": 1, "bins": 17,
        "resolution": 320, "ode_steps": 0,
    }  # fmt: skip
    s = {**defaults, **model}
    c, side = s["channels"], s["resolution"]
    mobile = s["backbone"] == "mobilenet_v2"
    total, widths = mobilenet_v2(side, s["width"]) if mobile else resnet(side, s["backbone"])
    areas = [(-(-side // stride)) ** 2 for stride in STRIDES]
    total += sum(area * (width * c + 9 * c * c) for area, width in zip(areas, widths, strict=False))
    total += sum(area * 9 * c * c for area in areas[len(widths) :])
    a_place = 2 * s["convs"] * 9 * c * c + 9 * c * (s["classes"] + 4 * s["bins"]) + 4 * s["bins"]
    return total + sum(areas) * (a_place + (c * c if s["ode_steps"] else 0))


def mobilenet_v2(side: int, width: float) -> tuple[int, tuple[int, ...]]:
    """Products of the layers up to the last 1x1, and the channels at strides 8, 16 and 32."""
    before, side = rounded(32 * width), half(side)
    total, ends = side**2 * 27 * before, []
    for expansion, channels, blocks, stride in STAGES:
        for place in range(blocks):
            hidden, outputs = before * expansion, rounded(channels * width)
            total += side**2 * before * hidden if expansion > 1 else 0
            if place == 0 and stride == 2:
                side = half(side)
            total += side**2 * (9 * hidden + hidden * outputs)
            before = outputs
        ends.append(before)
    last = rounded(1280 * max(1.0, width))
    return total + side**2 * before * last, (ends[2], ends[4], last)


def resnet(side: int, name: str) -> tuple[int, tuple[int, ...]]:
    """Products of the layers up to the last stage, and the channels at strides 8, 16 and 32."""
    blocks, bottleneck = RESNETS[name]
    side = half(side)
    total, side, before, ends = side**2 * 49 * 3 * 64, half(side), 64, []
    for stage, count in enumerate(blocks):
        inner = 64 << stage
        outer = inner * (4 if bottleneck else 1)
        for place in range(count):
            large = side
            side = half(side) if place == 0 and stage else side
            if bottleneck:
                total += large**2 * before * inner + side**2 * (9 * inner**2 + inner * outer)
            else:
                total += side**2 * 9 * (before * inner + inner * outer)
            total += side**2 * before * outer if place == 0 and before != outer else 0
            before = outer
        ends.append(before)
    return total, tuple(ends[1:])


def mamba_teacher(model: Settings, _: Settings) -> int:
    """One scan network."""
    s = {"width": 56, "depth": 4, "patch": 8, "resolution": 32, **model}
    return scan_macs(s["width"], s["depth"], s["patch"], s["resolution"])


def mamba_pkd(model: Settings, method: Settings) -> int:
    """The first so many students."""
    s = {"patch": 8, "resolution": 32, **model}
    chosen = STUDENTS[: method.get("students", len(STUDENTS))]
    return sum(scan_macs(w, d, s["patch"], s["resolution"]) for w, d in chosen)


def digits_hybrid(model: Settings, _: Settings) -> int:
    """Two strided convolutions, a block of attention, a strided convolution, a linear layer."""
    s = {"width": 32, "resolution": 32, **model}
    w, side = s["width"], half(s["resolution"])
    total, side = side**2 * 27 * (w // 2), half(side)
    n = side**2
    total += n * 9 * (w // 2) * w + n * 8 * w * w + 2 * n * n * w
    return total + half(side) ** 2 * 18 * w * w + 20 * w
