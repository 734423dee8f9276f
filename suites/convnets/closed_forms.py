"""MACs of one sample by closed forms, for the systems that have one: `function(model_settings, method_settings)`.

Settings that are not given have the builders' defaults.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from suites.convnets.convfirst import BlockShape
from suites.convnets.deh4r import HIDDEN, LAYERS, NUMBERS, QUERIES, WIDTH
from suites.convnets.deh4r import WINDOW as SIDE
from suites.convnets.halo import halo_macs
from suites.convnets.kernel_warehouse import LEAST, REDUCTION
from suites.convnets.mixed_kernels import KERNELS, SQUEEZE

Settings = Mapping[str, Any]


def fusible_block(model: Settings, _: Settings) -> int:
    """C k^2 g + 2 r C^2 a pixel, the first term r times as large where the k x k layer is in the middle."""
    s = {"order": "convfirst", "width": 64, "ratio": 4, "group": 8, "kernel": 3, "resolution": 16, **model}
    return BlockShape(s["width"], s["resolution"], s["ratio"], s["group"], s["kernel"]).macs(s["order"])


def lka(model: Settings, _: Settings) -> int:
    """C (25 + 49 + C) a pixel."""
    s = {"width": 64, "resolution": 56, **model}
    return s["resolution"] ** 2 * s["width"] * (25 + 49 + s["width"])


def gnconv(model: Settings, _: Settings) -> int:
    """1x1 to 2 C, 7x7 depthwise on all gates, 1x1 between the widths, 1x1 back."""
    s = {"width": 64, "order": 3, "resolution": 28, **model}
    c, widths = s["width"], [s["width"] >> place for place in reversed(range(s["order"]))]
    between = sum(a * b for a, b in itertools.pairwise(widths))
    return s["resolution"] ** 2 * (2 * c * c + 49 * sum(widths) + between + c * c)


def ska(model: Settings, _: Settings) -> int:
    """9 C a pixel."""
    s = {"width": 64, "resolution": 14, **model}
    return 9 * s["width"] * s["resolution"] ** 2


def halo_attention(model: Settings, _: Settings) -> int:
    """Projections, products over the window, relative positions."""
    s = {"width": 64, "block": 8, "halo": 3, "resolution": 32, **model}
    return halo_macs(s["width"], s["resolution"], s["block"], s["halo"])


def apriori_layer(model: Settings, _: Settings) -> int:
    """R C (C + 2 k) a pixel as factors, C^2 k^2 as a kernel or in full."""
    s = {"form": "factors", "width": 64, "size": 3, "rank": 3, "resolution": 28, **model}
    c, k = s["width"], s["size"]
    each = s["rank"] * c * (c + 2 * k) if s["form"] == "factors" else c * c * k * k
    return s["resolution"] ** 2 * each


def shallow(model: Settings, _: Settings) -> int:
    """k^2 C (channels + h C) H^2 + K C."""
    s = {"depth": 16, "width": 16, "kernel": 3, "channels": 1, "classes": 10, "resolution": 8, **model}
    each = s["kernel"] ** 2 * s["width"] * (s["channels"] + s["depth"] * s["width"])
    return each * s["resolution"] ** 2 + s["classes"] * s["width"]


def neighbour_decoder(model: Settings, _: Settings) -> int:
    """Of all vertices: 1x1 on nine samples, three layers of ten queries, a linear layer."""
    samples, features = SIDE * SIDE, 2 * WIDTH
    own = 4 * QUERIES * WIDTH * WIDTH + 2 * QUERIES * QUERIES * WIDTH
    other = 2 * (QUERIES + samples) * WIDTH * WIDTH + 2 * QUERIES * samples * WIDTH
    layer = own + other + 2 * QUERIES * WIDTH * HIDDEN
    vertex = samples * features * WIDTH + LAYERS * layer + QUERIES * WIDTH * NUMBERS
    return int(model.get("vertices", 1)) * vertex


def channel_filter(model: Settings, _: Settings) -> int:
    """Taps times channels."""
    s = {"width": 256, "taps": 5, **model}
    return s["width"] * s["taps"]


def mixed_layer(model: Settings, _: Settings) -> int:
    """C^2 k^2 a pixel and a kernel that is mixed, and the gate: C K, or C (C / 4) + (C / 4) K."""
    s = {"kind": "dyconv", "width": 64, "size": 3, "resolution": 14, "kernels": None, **model}
    c, kernels, hidden = s["width"], s["kernels"] or KERNELS[s["kind"]], s["width"] // SQUEEZE
    gate = c * kernels if s["kind"] == "condconv" else c * hidden + hidden * kernels
    return c * c * s["size"] ** 2 * (s["resolution"] ** 2 + kernels) + gate


def kernelwarehouse_layer(model: Settings, _: Settings) -> int:
    """C^2 k^2 a pixel; k^2 cells of C^2 mixed from ratio k^2 ones; scores C h + h k^2 (ratio k^2 + 1)."""
    s = {"width": 64, "size": 3, "ratio": 4, "resolution": 14, **model}
    c, taps = s["width"], s["size"] ** 2
    hidden, cells = max(c // REDUCTION, LEAST), s["ratio"] * taps
    scores = c * hidden + hidden * taps * (cells + 1)
    return c * c * taps * (s["resolution"] ** 2 + cells) + scores
