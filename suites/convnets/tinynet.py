"""EfficientNet-B0 with its compound rule run backwards: what TinyNet is compared with. TinyNets are timm's `tinynet_*`.

Source: Han et al. 2020, Model Rubik's Cube, arXiv:2010.14819, section 3; the rule is that of arXiv:1905.11946.
"""

from __future__ import annotations

import importlib

from torch import nn

from bench.config.settings import Count, PositiveInt
from suites.common.conv_blocks import at
from suites.common.timm_bridge import import_timm

#: Width, depth and resolution of each step of the rule.
WIDTH, DEPTH, RESOLUTION = 1.1, 1.2, 1.15


def efficientnet_inverse(*, steps: Count = 1, resolution: PositiveInt | None = None) -> nn.Module:
    """EfficientNet-B^-n of n steps; at its own resolution, 224 x 1.15^-n, unless told.

    Raises:
        UsageError: timm is missing.
    """
    import_timm()
    family = importlib.import_module("timm.models.efficientnet")
    network = family._gen_efficientnet(
        "efficientnet_b0", channel_multiplier=WIDTH**-steps, depth_multiplier=DEPTH**-steps
    )
    return at(network, resolution or round(224 * RESOLUTION**-steps))
