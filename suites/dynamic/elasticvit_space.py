"""Shapes of ElasticViTs and what they cost. Pure; no torch.

Source: Tang et al. 2023, arXiv 2303.09730, and its released code for what a stage holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

HEAD = 16
#: Strides of the six stages after the stem; the first two are convolutions.
STRIDES = (2, 2, 2, 1, 2, 2)
Norm = Literal["map", "token"]
#: The stages, the stem first, that each list with a value per block is of.
CONVOLUTIONS, ATTENTION = slice(0, 3), slice(3, 7)
PER_BLOCK = {"expansions": CONVOLUTIONS, "kernels": CONVOLUTIONS, "mlp": ATTENTION, "values": ATTENTION}


@dataclass(frozen=True)
class Shape:
    """One network: channels and depths of stem and six stages; expansion and kernel of each block of the stem and the
    two stages of convolutions, MLP ratio and value scale of each block of the four stages of attention."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    expansions: tuple[int, ...]
    kernels: tuple[int, ...]
    mlp: tuple[int, ...]
    values: tuple[int, ...]
    last: int
    classes: int
    norm: Norm

    def stages(self, name: str) -> list[tuple[int, ...]]:
        """The values of a list with one per block, stage by stage."""
        values, ends = getattr(self, name), list(accumulate(self.depths[PER_BLOCK[name]]))
        return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def blocks(self, first: str, second: str) -> list[list[tuple[int, int]]]:
        """The values of two such lists, block by block of each stage."""
        both = zip(self.stages(first), self.stages(second), strict=True)
        return [list(zip(*stage, strict=True)) for stage in both]


S1 = Shape(
    (16, 24, 40, 64, 96, 192, 272), (1, 3, 3, 2, 2, 2, 2), (1, *[3] * 6), (3,) * 7, (2, 2, 2, 2, 3, 3, 4, 4), (2,) * 8,
    1984, 1000, "map",
)  # fmt: skip
DIGITS = Shape(
    (8, 16, 24, 32, 48, 64, 80), (1, 2, 2, 2, 1, 2, 1), (1, *[4] * 4), (3, *[5] * 4), (3,) * 6, (3,) * 6, 96, 10, "map"
)

#: One value for all blocks, one for each stage, or one for each block; None takes the base's.
Sizes = int | Sequence[int] | None


def shape_of(
    base: Shape, channels: Sequence[int] | None, depths: Sequence[int] | None, expansions: Sizes, kernels: Sizes,
    mlp: Sizes, values: Sizes, norm: Norm | None = None,
) -> Shape:  # fmt: skip
    """The shape with what is given in place of the base's.

    Raises:
        ValueError: another number of entries, an expansion of the stem, an even kernel, or channels that heads of 16 do
            not divide.
    """
    found = {"channels": tuple(channels or base.channels), "depths": tuple(depths or base.depths)}
    for name, own in found.items():
        if len(own) != len(STRIDES) + 1:
            raise ValueError(f"{name} has {len(own)} entries, {len(STRIDES) + 1} are wanted: stem and six stages")
    for name, given in zip(PER_BLOCK, (expansions, kernels, mlp, values), strict=True):
        own = found["depths"][PER_BLOCK[name]]
        found[name] = _inherited(base.stages(name), own) if given is None else _spread(name, given, own)
    wrong = [width for width in found["channels"][3:] if width % HEAD]
    if wrong or any(kernel % 2 == 0 for kernel in found["kernels"]):
        raise ValueError(f"channels {wrong} of attention are no multiples of {HEAD}, or a kernel is even")
    if any(expansion != 1 for expansion in found["expansions"][: found["depths"][0]]):
        raise ValueError("expansions: blocks of the stem have no first 1x1 layer, so theirs is 1")
    return Shape(**found, last=base.last, classes=base.classes, norm=norm or base.norm)


def _spread(name: str, given: int | Sequence[int], depths: Sequence[int]) -> tuple[int, ...]:
    """A value for each block."""
    if isinstance(given, int):
        stem = [1] * depths[0] if name == "expansions" else [given] * depths[0]
        return (*stem, *[given] * sum(depths[1:]))
    if len(given) == sum(depths):
        return tuple(given)
    if len(given) != len(depths):
        raise ValueError(f"{name} has {len(given)} entries: {len(depths)} (a stage) or {sum(depths)} (a block) fit")
    return tuple(value for value, depth in zip(given, depths, strict=True) for _ in range(depth))


def _inherited(stages: list[tuple[int, ...]], depths: Sequence[int]) -> tuple[int, ...]:
    """The first blocks' values of each stage; further blocks are like the last."""
    return tuple(
        stage[min(place, len(stage) - 1)] for stage, depth in zip(stages, depths, strict=True) for place in range(depth)
    )


def above(shape: Shape, store: Shape) -> list[str]:
    """What a sub-network has more of than the store; blocks are compared one by one, stage by stage."""
    found = [
        name for name in ("channels", "depths")
        if any(a > b for a, b in zip(getattr(shape, name), getattr(store, name), strict=True))
    ]  # fmt: skip
    if "depths" in found:
        return found
    for name in PER_BLOCK:
        stages = zip(shape.stages(name), store.stages(name), strict=True)
        if any(a > b for own, stores in stages for a, b in zip(own, stores, strict=False)):
            found.append(name)
    return found


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
    convs, blocks = shape.blocks("expansions", "kernels"), shape.blocks("mlp", "values")
    total = 27 * width[0] * side**2
    total += sum(side**2 * width[0] * (kernel**2 + width[0]) for _, kernel in convs[0])
    for place, stride in enumerate(STRIDES):
        inner, outer = width[place], width[place + 1]
        before, side = side, -(-side // stride)
        if place < 2:
            for expansion, kernel in convs[place + 1]:
                total += _conv_macs(inner, outer, expansion, kernel, place == 1, before, side, True)
                inner, before = outer, side
            continue
        total += _conv_macs(inner, outer, 6, 3, not released, before, side, not released)
        for ratio, scale in blocks[place - 2]:
            tokens, value = side**2, outer * scale
            maps = tokens * (2 * outer**2 + 2 * outer * value + 2 * outer**2 * ratio)
            taps = tokens * value * (1 if released else 9)
            total += maps + taps + tokens**2 * (outer + value + (outer // HEAD if released else 0))
    return total + 6 * width[-1] ** 2 * side**2 + 6 * width[-1] * shape.last + shape.last * shape.classes


def _conv_macs(
    inner: int, outer: int, expansion: int, kernel: int, gate: bool, before: int, side: int, shortcut: bool
) -> int:
    mid = inner * expansion
    total = (before**2 * inner * mid if expansion > 1 else 0) + side**2 * mid * (kernel**2 + outer)
    total += 2 * mid * (mid // 4) if gate else 0
    return total + (side**2 * inner * outer if shortcut and inner != outer else 0)
