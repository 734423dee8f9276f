"""APQ's space of networks: depths, kernels, expansions and bits (Wang et al. 2020, arXiv 2006.08509, section 4.1).

Stem 32, a first block of 16, stages of width 24, 40, 80, 96, 192 with 2 to 4 blocks and one block of 320, strides 2, 2,
2, 1, 2, 1; kernels 3, 5, 7; hidden widths of 4 to 6 times the input in steps of 8 channels; 4, 6 or 8 bits apart for
weights and activations of pointwise and of depthwise layers of each of 21 blocks. Stem, first block, last convolution
and classifier have 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

KERNELS = (3, 5, 7)
BITS = (4, 6, 8)
#: Groups of bits of a block: weights and activations of its pointwise layers, weights and activations of its depthwise.
GROUPS = 4


@dataclass(frozen=True)
class Space:
    """Widths and strides of stages, how deep each may be, and what is fixed around them."""

    widths: tuple[int, ...] = (24, 40, 80, 96, 192, 320)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2, 1)
    depths: tuple[tuple[int, ...], ...] = ((2, 3, 4),) * 5 + ((1,),)
    stem: int = 32
    stem_stride: int = 2
    first: int = 16
    last: int = 1280
    classes: int = 1000
    resolution: int = 224
    channels: int = 3
    expansions: tuple[float, float] = (4.0, 6.0)
    step: int = 8

    @property
    def blocks(self) -> int:
        """Most blocks of the stages: 21."""
        return sum(max(each) for each in self.depths)

    def places(self) -> list[tuple[int, int, int, int]]:
        """Of each block at full depth: its stage, its place in it, inputs and outputs."""
        found, inputs = [], self.first
        for stage, (width, depths) in enumerate(zip(self.widths, self.depths, strict=True)):
            for place in range(max(depths)):
                found.append((stage, place, inputs, width))
                inputs = width
        return found

    def hiddens(self, inputs: int) -> list[int]:
        """Hidden widths of a block with so many inputs."""
        low, high = (round(inputs * each / self.step) * self.step for each in self.expansions)
        return list(range(low, high + 1, self.step))


#: The paper's space at 224 px.
PAPER = Space()
#: Three stages for digits of 16 px.
DIGITS = Space(
    widths=(16, 24, 32),
    strides=(1, 2, 2),
    depths=((1, 2),) * 3,
    stem=16,
    stem_stride=1,
    first=8,
    last=64,
    classes=10,
    resolution=16,
    expansions=(2.0, 4.0),
)


@dataclass(frozen=True)
class Architecture:
    """Depth of each stage; kernel, hidden width and four bit-widths of each block, those that are left out included."""

    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    hiddens: tuple[int, ...]
    bits: tuple[tuple[int, ...], ...]

    def active(self, space: Space) -> list[int]:
        """Blocks that run."""
        return [place for place, (stage, inside, _, _) in enumerate(space.places()) if inside < self.depths[stage]]


def uniform(space: Space, depth: int = 0, kernel: int = 3, expansion: float = 0.0, bits: int = 8) -> Architecture:
    """The same depth, kernel, expansion and bits everywhere; 0 for the deepest and the widest."""
    depths = tuple(min(max(each), max(min(each), depth)) if depth else max(each) for each in space.depths)
    hiddens = []
    for _, _, inputs, _ in space.places():
        offered = space.hiddens(inputs)
        wanted = offered[-1] if not expansion else round(inputs * expansion / space.step) * space.step
        hiddens.append(min(offered, key=lambda each: abs(each - wanted)))
    return Architecture(depths, (kernel,) * space.blocks, tuple(hiddens), ((bits,) * GROUPS,) * space.blocks)


def random_architecture(space: Space, random: Random, quantised: bool = True) -> Architecture:
    """Every choice evenly; 8 bits throughout unless quantised."""
    return Architecture(
        tuple(random.choice(each) for each in space.depths),
        tuple(random.choice(KERNELS) for _ in range(space.blocks)),
        tuple(random.choice(space.hiddens(inputs)) for _, _, inputs, _ in space.places()),
        tuple(tuple(random.choice(BITS) if quantised else 8 for _ in range(GROUPS)) for _ in range(space.blocks)),
    )


def mutated(one: Architecture, space: Space, random: Random, probability: float = 0.1) -> Architecture:
    """Each block with this probability drawn anew, and each stage's depth."""
    other = random_architecture(space, random)
    pick = [random.random() < probability for _ in range(space.blocks)]
    depths = tuple(b if random.random() < probability else a for a, b in zip(one.depths, other.depths, strict=True))
    return replace(_mixed(one, other, pick), depths=depths)


def crossed(one: Architecture, other: Architecture, random: Random) -> Architecture:
    """Each block from either parent, and each stage's depth."""
    pick = [random.random() < 0.5 for _ in one.kernels]
    depths = tuple(random.choice(pair) for pair in zip(one.depths, other.depths, strict=True))
    return replace(_mixed(one, other, pick), depths=depths)


def _mixed(one: Architecture, other: Architecture, pick: Sequence[bool]) -> Architecture:
    def chosen(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(y if take else x for x, y, take in zip(a, b, pick, strict=True))

    return Architecture(
        one.depths, chosen(one.kernels, other.kernels), chosen(one.hiddens, other.hiddens), chosen(one.bits, other.bits)
    )


# ---------------------------------------------------------------------------------------------- cost and code


def layer_costs(one: Architecture, space: Space) -> list[tuple[int, int, int]]:
    """MACs, weight bits and activation bits of every layer of one sample, in execution order."""
    side = -(-space.resolution // space.stem_stride)
    found = [(space.channels * space.stem * 9 * side**2, 8, 8)]
    found += [(space.stem * 9 * side**2, 8, 8), (space.stem * space.first * side**2, 8, 8)]
    inputs = space.first
    for place in one.active(space):
        stage, inside, _, outputs = space.places()[place]
        stride = space.strides[stage] if inside == 0 else 1
        hidden, kernel, (pw, pa, dw, da) = one.hiddens[place], one.kernels[place], one.bits[place]
        out = -(-side // stride)
        found.append((inputs * hidden * side**2, pw, pa))
        found.append((hidden * kernel**2 * out**2, dw, da))
        found.append((hidden * outputs * out**2, pw, pa))
        inputs, side = outputs, out
    found += [(inputs * space.last * side**2, 8, 8), (space.last * space.classes, 8, 8)]
    return found


def macs(one: Architecture, space: Space = PAPER) -> int:
    """Products of one sample, whatever the bits."""
    return sum(count for count, _, _ in layer_costs(one, space))


def bit_operations(one: Architecture, space: Space = PAPER) -> int:
    """MACs x weight bits x activation bits."""
    return sum(count * w * a for count, w, a in layer_costs(one, space))


def encoded(one: Architecture, space: Space = PAPER, *, with_bits: bool = True) -> list[float]:
    """One-hot choices of every block that runs, zeros for those that do not: 3 kernels, hidden widths, 12 bits.

    A stage's depth shows in which blocks are zeros.
    """
    active = set(one.active(space))
    code: list[float] = []
    tail: list[float] = []
    for place, (_, _, inputs, _) in enumerate(space.places()):
        offered = space.hiddens(inputs)
        block = [0.0] * (len(KERNELS) + len(offered))
        widths = [0.0] * (GROUPS * len(BITS))
        if place in active:
            block[KERNELS.index(one.kernels[place])] = 1.0
            block[len(KERNELS) + offered.index(one.hiddens[place])] = 1.0
            for group, each in enumerate(one.bits[place]):
                widths[group * len(BITS) + BITS.index(each)] = 1.0
        code += block
        tail += widths
    return code + tail if with_bits else code


def code_length(space: Space = PAPER) -> tuple[int, int]:
    """Length of a code without bits, and of its bits (252 in the paper's space)."""
    plain = sum(len(KERNELS) + len(space.hiddens(inputs)) for _, _, inputs, _ in space.places())
    return plain, space.blocks * GROUPS * len(BITS)
