"""Closed forms of this suite's operators as cards name them: settings of a builder to products of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suites.ops import monarch
from suites.ops.conv_shapes import BY_NAME, ConvShape
from suites.ops.long_conv_costs import monarch_macs

Settings = Mapping[str, Any]


def long_conv(model: Settings, method: Settings) -> int:
    """Products of a call of one sample: 4 n (f1 + f2 + ...) (2 H + H) of transforms as products; L taps H directly.

    The direct form multiplies the zeros before the first position as well, so that it takes L taps and not L (L + 1) /
    2.
    """
    length, width = model.get("length", 1024), model.get("width", 64)
    if model.get("form") == "direct":
        return length * (model.get("taps") or length) * width
    factors = model.get("factors") or monarch.factors_for(length if model.get("packed") else 2 * length)
    return monarch_macs(factors, 1, width, model.get("kept"))


def convolution(model: Settings, method: Settings) -> int:
    """Products of an image by the definition; of transformed tiles in the form winograd."""
    layer = model.get("layer", "")
    kernel = model.get("kernel", [3, 3])
    shape = BY_NAME[layer] if layer else ConvShape(
        model.get("channels", 16), model.get("height", 16), model.get("width", 16), model.get("filters", 16),
        (kernel[0], kernel[-1]), model.get("stride", 1), model.get("padding", 0), model.get("groups", 1),
    )  # fmt: skip
    return shape.winograd_macs if model.get("form") == "winograd" else shape.macs
