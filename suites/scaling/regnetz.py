"""RegNetZ (arXiv 2103.06877, appendix) and what a scaling strategy makes of it: timm's blocks at scaled sizes.

Inverted bottlenecks, four times wider inside, in groups of a fixed width, without shortcuts where the shape changes.
Widths of blocks are rounded to multiples of 8, so that inside them groups always fit; the last layer is scaled like any
other width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from bench.config.settings import Positive, PositiveInt
from bench.errors import did_you_mean
from suites.common.conv_blocks import at
from suites.common.timm_bridge import import_timm
from suites.scaling import rule


def scaled_regnetz(
    *,
    name: str = "regnetz_005",
    strategy: str = "dwr",
    s: Positive = 1.0,
    base_resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
) -> nn.Module:
    """A RegNetZ of timm's with s times its operations, in evaluation mode with random weights.

    Args:
        name: of the unscaled network: regnetz_005, regnetz_040 or regnetz_040_h.
        strategy: d, w, r, dw, wr, dwr, d1_w8_r1 or any other weights.
        s: factor of the operations, before rounding.
        base_resolution: of the unscaled network.
        classes: logits.

    Raises:
        ValueError: a name or strategy that is none.
        UsageError: timm is not installed.
    """
    import_timm()
    from timm.models import regnet

    known = [key for key in regnet.model_cfgs if key.startswith("regnetz")]
    if name not in known:
        raise ValueError(f'timm has no "{name}" among its RegNetZ; {did_you_mean(name, known)}')
    by = rule.factors(strategy, s)

    class Scaled(regnet.RegNet):
        """The network with the sizes of its stages scaled."""

        def _get_stage_args(self, *args: Any, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
            stages, common = super()._get_stage_args(*args, **settings)
            for stage in stages:
                stage["out_chs"] = _width(stage["out_chs"], by.width)
                stage["depth"] = rule.rounded_depth(stage["depth"] * by.depth)
                stage["drop_path_rates"] = [0.0] * stage["depth"]
            return stages, common

    cfg = regnet.model_cfgs[name]
    scaled = replace(cfg, stem_width=_width(cfg.stem_width, by.width), num_features=_width(cfg.num_features, by.width))
    network = Scaled(scaled, num_classes=classes, zero_init_last=False)
    return at(network, rule.rounded_resolution(base_resolution * by.resolution))


def _width(width: int, factor: float) -> int:
    """A width times a factor, rounded to 8; a width that is not scaled stays, and no layer stays none."""
    return width if factor == 1 or not width else rule.rounded_width(width * factor)
