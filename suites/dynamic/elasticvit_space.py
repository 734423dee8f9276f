"""Shapes of ElasticViTs and what they cost. Pure; no torch.

Source: Tang et al. 2023, arXiv 2303.09730, and its released code for what a stage holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

HEAD = 16
#: Strides of the six stages after the stem; the first two are convolutions.
STRIDES = (2, 2, 2, 1, 2, 2)
Norm = Literal["map", "token"]


@dataclass(frozen=True)
class Shape:
    """One network: channels and depths of stem and six stages, expansions and kernels of the stem and two stages,
    MLP ratio and value scale of each of the four attention stages."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    expansions: tuple[int, ...]
    kernels: tuple[int, ...]
    mlp: tuple[int, ...]
    values: tuple[int, ...]
    last: int
    classes: int
    norm: Norm


S1 = Shape(
    (16, 24, 40, 64, 96, 192, 272), (1, 3, 3, 2, 2, 2, 2), (1, 3, 3), (3, 3, 3), (2, 2, 3, 4), (2, 2, 2, 2), 1984, 1000,
    "map",
)  # fmt: skip
DIGITS = Shape(
    (8, 16, 24, 32, 48, 64, 80), (1, 2, 2, 2, 1, 2, 1), (1, 4, 4), (3, 5, 5), (3, 3, 3, 3), (3, 3, 3, 3), 96, 10, "map"
)


def shape_of(
    base: Shape, channels: list[int] | None, depths: list[int] | None, expansions: list[int] | None,
    kernels: list[int] | None, mlp: list[int] | None, values: list[int] | None, norm: Norm | None = None,
) -> Shape:  # fmt: skip
    """The shape with what is given in place of the base's.

    Raises:
        ValueError: another number of entries, or channels that heads of 16 do not divide.
    """
    names = ("channels", "depths", "expansions", "kernels", "mlp", "values")
    found = {}
    for name, given in zip(names, (channels, depths, expansions, kernels, mlp, values), strict=True):
        found[name] = tuple(given) if given is not None else getattr(base, name)
        if len(found[name]) != len(getattr(base, name)):
            raise ValueError(f"{name} has {len(found[name])} entries, {len(getattr(base, name))} are wanted")
    wrong = [width for width in found["channels"][3:] if width % HEAD]
    if wrong or any(kernel % 2 == 0 for kernel in found["kernels"]):
        raise ValueError(f"channels {wrong} of attention are no multiples of {HEAD}, or a kernel is even")
    return Shape(**found, last=base.last, classes=base.classes, norm=norm or base.norm)


def changes(channels: tuple[int, ...]) -> list[bool]:
    """Whether each stage has another width than the one before."""
    return [a != b for a, b in pairwise(channels)]


def macs(shape: Shape, resolution: int) -> int:
    """Products of a network on one image, every layer in full."""
    return _macs(shape, resolution, released=False)


def released_flops(shape: Shape, resolution: int) -> int:
    """The same by the released formula: with softmax entries, one tap of the values' depthwise layer, no gates or
    shortcuts in the stages of attention."""
    return _macs(shape, resolution, released=True)


def _macs(shape: Shape, resolution: int, released: bool) -> int:
    width, side = shape.channels, -(-resolution // 2)
    total = 27 * width[0] * side**2
    total += shape.depths[0] * side**2 * width[0] * (shape.kernels[0] ** 2 + width[0])
    for place, stride in enumerate(STRIDES):
        inner, outer, depth = width[place], width[place + 1], shape.depths[place + 1]
        before, side = side, -(-side // stride)
        if place < 2:
            by = (shape.expansions[place + 1], shape.kernels[place + 1], place == 1)
            total += _conv_macs(inner, outer, *by, before, side, True)
            total += (depth - 1) * _conv_macs(outer, outer, *by, side, side, True)
            continue
        total += _conv_macs(inner, outer, 6, 3, not released, before, side, not released)
        tokens, value = side**2, outer * shape.values[place - 2]
        maps = tokens * (2 * outer**2 + 2 * outer * value + 2 * outer**2 * shape.mlp[place - 2])
        taps = tokens * value * (1 if released else 9)
        scores = tokens**2 * (outer + value + (outer // HEAD if released else 0))
        total += depth * (maps + taps + scores)
    return total + 6 * width[-1] ** 2 * side**2 + 6 * width[-1] * shape.last + shape.last * shape.classes


def _conv_macs(
    inner: int, outer: int, expansion: int, kernel: int, gate: bool, before: int, side: int, shortcut: bool
) -> int:
    mid = inner * expansion
    total = (before**2 * inner * mid if expansion > 1 else 0) + side**2 * mid * (kernel**2 + outer)
    total += 2 * mid * (mid // 4) if gate else 0
    return total + (side**2 * inner * outer if shortcut and inner != outer else 0)
