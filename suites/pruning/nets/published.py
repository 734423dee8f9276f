"""Pruned shapes that papers print, from their rules."""

from __future__ import annotations

from typing import Literal

from bench.config.settings import PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.pruning.nets.resnet_cifar import ResnetCifar, l1_widths, resnet_cifar
from suites.pruning.nets.resnet_imagenet import BLOCKS, WIDTHS, ResnetImage, resnet34
from suites.pruning.rounding import kept_width

__all__ = ["load_checkpoint", "resnet34_l1", "resnet56_hrank", "resnet56_l1"]

#: Rates per stage and blocks that stay full (Li et al. 2017, arXiv:1608.08710, section 4.2).
L1_SHAPES: dict[str, tuple[tuple[float, float, float], tuple[int, ...]]] = {
    "a": ((0.1, 0.1, 0.1), (8, 10, 19, 27)),
    "b": ((0.6, 0.3, 0.1), (8, 9, 10, 17, 19, 27)),
}
#: The same of ResNet-34: rates of the stages, of which the last stays, and blocks that stay full.
L1_SHAPES_34: dict[str, tuple[float, float, float, float]] = {"a": (0.3, 0.3, 0.3, 0.0), "b": (0.5, 0.6, 0.4, 0.0)}
L1_FULL_34 = (1, 4, 7, 8, 13)


def resnet34_l1(
    *, variant: Literal["a", "b"] = "a", classes: PositiveInt = 1000, resolution: PositiveInt = 224
) -> ResnetImage:
    """ResNet-34 as L1 filter pruning leaves it.

    Args:
        variant: a, 30 % of the filters of the first three stages; b, 50, 60 and 40 %.
        classes: logits.
        resolution: side of the input.
    """
    stages = zip(WIDTHS, L1_SHAPES_34[variant], BLOCKS, strict=True)
    every = [(width, rate) for width, rate, count in stages for _ in range(count)]
    widths = [width if i in L1_FULL_34 else kept_width(width, rate) for i, (width, rate) in enumerate(every, start=1)]
    return resnet34(widths=widths, classes=classes, resolution=resolution)


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
