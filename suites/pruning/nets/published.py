"""Pruned shapes that papers print, from their rules."""

from __future__ import annotations

from typing import Literal

from bench.config.settings import PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.pruning.nets.resnet_cifar import ResnetCifar, l1_widths, resnet_cifar

__all__ = ["load_checkpoint", "resnet56_hrank", "resnet56_l1"]

#: Rates per stage and blocks that stay full (Li et al. 2017, arXiv:1608.08710, section 4.2).
L1_SHAPES: dict[str, tuple[tuple[float, float, float], tuple[int, ...]]] = {
    "a": ((0.1, 0.1, 0.1), (8, 10, 19, 27)),
    "b": ((0.6, 0.3, 0.1), (8, 9, 10, 17, 19, 27)),
}


def resnet56_l1(*, variant: Literal["a", "b"] = "a", resolution: PositiveInt = 32) -> ResnetCifar:
    """ResNet-56 as L1 filter pruning leaves it.

    Args:
        variant: a, 10 % of the filters everywhere; b, 60, 30 and 10 % by stage.
        resolution: side of the input.
    """
    rates, full = L1_SHAPES[variant]
    return resnet_cifar(depth=56, widths=l1_widths(56, rates, full), resolution=resolution)


def resnet56_hrank(*, inner: Rate = 0.4, trunk: Rate = 0.15, resolution: PositiveInt = 32) -> ResnetCifar:
    """ResNet-56 at HRank's rates: stem whole, the first two trunks and every block's inner channels by one rate each.

    Args:
        inner: of the blocks.
        trunk: of the first two stages' outputs.
        resolution: side of the input.
    """
    return resnet_cifar(depth=56, rates=[0.0, trunk, trunk, *[inner] * 27], resolution=resolution)
