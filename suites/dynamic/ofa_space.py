"""The space of once-for-all networks, and what its members cost. Pure; no torch.

Source: Cai et al. 2020, arXiv 1908.09791: MobileNetV3 blocks with elastic depth, expansion and kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


def rounded(width: float, divisor: int = 8) -> int:
    """The nearest multiple, never more than a tenth below the width."""
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * width else nearest


@dataclass(frozen=True)
class Space:
    """What may be chosen; widths are rounded already.

    Attributes:
        first: channels of the first convolution (3x3, stride 2), and of the fixed block behind it.
        widths, strides, gated, hswish: of each unit.
        depths, expands, kernels: choices; the largest of each makes the largest network.
        final, last: channels of the last two 1x1 layers.
        classes: logits.
    """

    first: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    gated: tuple[bool, ...]
    hswish: tuple[bool, ...]
    depths: tuple[int, ...]
    expands: tuple[int, ...]
    kernels: tuple[int, ...]
    final: int
    last: int
    classes: int

    @property
    def most(self) -> int:
        """Blocks of a unit at its deepest."""
        return max(self.depths)

    @property
    def size(self) -> int:
        """How many sub-networks there are at one resolution."""
        each = len(self.expands) * len(self.kernels)
        return sum(each**depth for depth in self.depths) ** len(self.widths)


def mobilenet_v3_space(width: float = 1.0, classes: int = 1000) -> Space:
    """The paper's space."""
    first, *widths, final, last = (rounded(w * width) for w in (16, 24, 40, 80, 112, 160, 960, 1280))
    return Space(
        first, tuple(widths), (2, 2, 2, 1, 2), (False, True, False, True, True), (False, False, True, True, True),
        (2, 3, 4), (3, 4, 6), (3, 5, 7), final, last, classes,
    )  # fmt: skip


def digits_space() -> Space:
    """A space of three units for ten digits at 32 pixels."""
    return Space(
        16, (16, 24, 32), (2, 2, 2), (False, True, False), (False, False, True), (1, 2), (2, 4), (3, 5), 64, 64, 10
    )


@dataclass(frozen=True)
class Choice:
    """One sub-network: blocks of each unit, and expansion and kernel of each block that runs, unit by unit."""

    depths: tuple[int, ...]
    expands: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]


def choice(space: Space, depth: object = None, expand: object = None, kernel: object = None) -> Choice:
    """A sub-network from one value for all, one per unit (depth), or one per block that runs; None takes the largest.

    Raises:
        ValueError: values that the space does not offer, or another number of them.
    """
    units = len(space.widths)
    depths = _spread(depth, max(space.depths), units, space.depths, "depth", "unit")
    blocks = sum(depths)
    expands = _spread(expand, max(space.expands), blocks, space.expands, "expand", "block that runs")
    kernels = _spread(kernel, max(space.kernels), blocks, space.kernels, "kernel", "block that runs")
    ends = list(itertools.accumulate(depths))
    cuts = list(zip([0, *ends], ends, strict=False))
    return Choice(depths, tuple(expands[a:b] for a, b in cuts), tuple(kernels[a:b] for a, b in cuts))


def _spread(value: object, largest: int, count: int, offered: Sequence[int], name: str, per: str) -> tuple[int, ...]:
    values = (largest,) * count if value is None else (value,) * count if isinstance(value, int) else value
    assert isinstance(values, tuple | list)
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values, one per {per} makes {count}")
    wrong = [one for one in values if one not in offered]
    if wrong:
        raise ValueError(f"{name}={wrong[0]}: the space offers {', '.join(map(str, offered))}")
    return tuple(int(one) for one in values)


def smallest(space: Space) -> Choice:
    """The cheapest sub-network."""
    return choice(space, min(space.depths), min(space.expands), min(space.kernels))


def half(side: int, stride: int = 2) -> int:
    """Side after a convolution with padding (k - 1) / 2."""
    return -(-side // stride)


def hidden(inner: int, expand: int) -> int:
    """Channels inside a block."""
    return rounded(inner * expand)


def block_macs(inner: int, outer: int, expand: int, kernel: int, side: int, stride: int, gated: bool) -> int:
    """Products of one block that gets maps of this side."""
    mid, after = hidden(inner, expand), half(side, stride)
    gate = 2 * mid * rounded(mid // 4) if gated else 0
    return side**2 * inner * mid + after**2 * mid * (kernel**2 + outer) + gate


def _ends(space: Space, side: int) -> tuple[int, int]:
    """Products of the stem and the fixed block, and of what follows the units."""
    side = half(side)
    stem = side**2 * space.first * (27 + 9 + space.first)
    for stride in space.strides:
        side = half(side, stride)
    tail = side**2 * space.widths[-1] * space.final + space.final * space.last + space.last * space.classes
    return stem, tail


def places(space: Space, side: int) -> Iterator[tuple[int, int, int, int, int, int, bool]]:
    """Unit, place in it, channels in and out, side of the maps, stride and gate of every block at full depth."""
    inner, side = space.first, half(side)
    for unit, (outer, stride, gated) in enumerate(zip(space.widths, space.strides, space.gated, strict=True)):
        for place in range(space.most):
            by = stride if place == 0 else 1
            yield unit, place, inner, outer, side, by, gated
            inner, side = outer, half(side, by)


def macs(space: Space, of: Choice, side: int) -> int:
    """Products of a sub-network on one image of this side."""
    stem, tail = _ends(space, side)
    total = stem + tail
    for unit, place, inner, outer, at, stride, gated in places(space, side):
        if place < of.depths[unit]:
            total += block_macs(inner, outer, of.expands[unit][place], of.kernels[unit][place], at, stride, gated)
    return total


def expected_macs(space: Space, side: int) -> float:
    """Mean products of a sub-network drawn at random: depths, expansions and kernels each uniform and independent."""
    stem, tail = _ends(space, side)
    total = float(stem + tail)
    options = list(itertools.product(space.expands, space.kernels))
    for _, place, inner, outer, at, stride, gated in places(space, side):
        runs = sum(depth > place for depth in space.depths) / len(space.depths)
        total += runs * sum(block_macs(inner, outer, e, k, at, stride, gated) for e, k in options) / len(options)
    return total


def largest_macs(space: Space, side: int) -> int:
    """Products of the largest sub-network."""
    return macs(space, choice(space), side)


def fixed_kernel(space: Space, kernel: int) -> Space:
    """The space with one kernel."""
    return replace(space, kernels=(kernel,))


def deps_work(space: Space, side: int, epochs: int = 270, warm: int = 150) -> float:
    """Training work of delayed epsilon-shrinking over that of as many epochs of the largest network.

    A plain epoch is 3 M_full (backward = 2 x forward); a later one 3 (M_full + M_min + 2 M_random).
    """
    return (warm + (epochs - warm) * sandwich_work(space, side)) / epochs


def sandwich_work(space: Space, side: int) -> float:
    """Products of a step of largest, smallest and two random sub-networks over those of the largest alone."""
    full, least = largest_macs(space, side), macs(space, smallest(space), side)
    return (full + least + 2 * expected_macs(space, side)) / full


def steps_of_work(space: Space, side: int, warm: float, work: float) -> int:
    """Steps of delayed epsilon-shrinking that are worth `work` steps of the largest network alone.

    Args:
        space: of the store.
        side: of the image.
        warm: T_w / E; schedules of another share are compared at equal work, not at equal steps.
        work: in steps of the largest network.
    """
    return round(work / (warm + (1 - warm) * sandwich_work(space, side)))


def shrinking_work(
    space: Space, side: int, phases: Sequence[tuple[int, int]] = ((120, 1), (145, 2), (145, 4))
) -> float:
    """Training work of progressive shrinking in epochs of the largest network.

    180 full ones, then phases of (epochs, sub-networks a step), each step with a forward of the teacher;
    sub-networks are drawn from the whole space.
    """
    full, mean = largest_macs(space, side), expected_macs(space, side)
    return 180 + sum(epochs * (3 * count * mean + full) / (3 * full) for epochs, count in phases)
