"""FBNet's search space, 22 places of nine candidates, and the three networks that its search found for a phone.

Source: Wu et al. 2019, FBNet, arXiv:1812.03443, tables 1 and 2, figure 4, the released definitions. An expansion of 1
has no first 1x1 layer; timm's `fbnetc_100` has one in blocks of expansion 1 (1 536 parameters and 6 823 936
multiply-accumulates more than FBNet-C: 16 x 16 on 112 x 112 and twice 24 x 24 on 56 x 56, with their norms).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.conv_blocks import PooledHead, at, conv_norm
from suites.common.inverted import InvertedBottleneck

#: (kernel, outputs, stride, expansion, groups of the 1x1 layers); expansion 0 is the 1x1 layer that stands for a skip
#: where channels or side change; None is a block that was skipped.
Row = tuple[int, int, int, int, int] | None

STEM = 16
#: Stages as (channels, places, stride of the first).
STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
#: Kernel / expansion of the depthwise layer, g: 1x1 layers in two groups; s: the place is skipped.
CANDIDATES = ("3/1", "3/1g", "3/3", "3/6", "5/1", "5/1g", "5/3", "5/6", "s")
SKIP = "s"
#: Width of the last 1x1 layer, and the candidate of every place, stages apart by |.
RELEASED: dict[str, tuple[int, str]] = {
    "a": (1504, "s | 3/3 3/1 s s | 5/6 3/3 5/1 3/3 | 5/6 5/3 5/1g 5/6 | 3/6 5/1g 5/3 3/1g | 5/6 5/6 5/3 5/6 | 5/6"),
    "b": (1984, "3/1 | 3/6 5/1 3/1 3/1 | 5/6 5/3 3/6 5/6 | 5/6 5/6 s 5/3 | 5/6 3/1 5/1 5/3 | 5/6 5/1 5/6 5/6 | 3/6"),
    "c": (1984, "3/1 | 3/6 s 3/1 3/1 | 5/6 5/3 5/6 3/6 | 5/6 5/3 5/6 5/6 | 5/6 5/6 5/6 5/3 | 5/6 5/6 5/6 5/6 | 3/6"),
}


@dataclass(frozen=True)
class Place:
    """One searched layer: channels that come in and go out, its stride, the side of the map that comes in, its stage.

    Stages are counted from 1.
    """

    inputs: int
    outputs: int
    stride: int
    side: int
    stage: int

    def row(self, candidate: str) -> Row:
        """The block that a candidate is here.

        Raises:
            UsageError: there is no such candidate.
        """
        if candidate not in CANDIDATES:
            raise UsageError(f'FBNet has no candidate "{candidate}"; {did_you_mean(candidate, CANDIDATES)}')
        if candidate == SKIP:
            keeps = self.stride == 1 and self.inputs == self.outputs
            return None if keeps else (1, self.outputs, self.stride, 0, 1)
        kernel, expansion = candidate.rstrip("g").split("/")
        return int(kernel), self.outputs, self.stride, int(expansion), 2 if candidate.endswith("g") else 1


def places(resolution: int = 224) -> tuple[Place, ...]:
    """The 22 searched layers in order, of a picture of that side."""
    found = []
    before, side = STEM, -(-resolution // 2)
    for stage, (channels, repeats, first) in enumerate(STAGES, start=1):
        for turn in range(repeats):
            stride = first if turn == 0 else 1
            found.append(Place(before, channels, stride, side, stage))
            before, side = channels, -(-side // stride)
    return tuple(found)


def released(plan: str) -> tuple[str, ...]:
    """The candidates of FBNet-A, -B or -C, place by place."""
    return tuple(RELEASED[plan][1].replace("|", " ").split())


def drawn(number: int) -> tuple[str, ...]:
    """The candidates of a random network of the space, every candidate of every place as likely as the others."""
    generator = random.Random(number)
    return tuple(generator.choice(CANDIDATES) for _ in places())


def rows_of(candidates: Sequence[str]) -> tuple[Row, ...]:
    """The blocks of a network, a candidate for every place.

    Raises:
        UsageError: an unknown candidate, or not 22 of them.
    """
    where = places()
    if len(candidates) != len(where):
        raise UsageError(f"an FBNet has {len(where)} places, and {len(candidates)} candidates are given")
    return tuple(place.row(candidate) for place, candidate in zip(where, candidates, strict=True))


#: Last width and blocks of the released networks.
PLANS: dict[str, tuple[int, tuple[Row, ...]]] = {
    plan: (last, rows_of(released(plan))) for plan, (last, _) in RELEASED.items()
}


def block(before: int, row: tuple[int, int, int, int, int]) -> nn.Module:
    """One row's block on a map of `before` channels."""
    kernel, outputs, stride, expansion, groups = row
    if not expansion:
        return conv_norm(before, outputs, kernel, stride, act=nn.ReLU)
    return InvertedBottleneck(
        before, outputs, hidden=before * expansion, kernel=kernel, stride=stride, groups=groups, widen=expansion > 1
    )


def from_rows(rows: tuple[Row, ...], last: int, classes: int, resolution: int) -> nn.Sequential:
    """A network of a stem, the rows' blocks, a last 1x1 layer and a linear one."""
    layers: list[nn.Module] = [conv_norm(3, STEM, 3, 2, act=nn.ReLU)]
    before = STEM
    for row in rows:
        if row is not None:
            layers.append(block(before, row))
            before = row[1]
    layers += [conv_norm(before, last, act=nn.ReLU), PooledHead(last, classes)]
    return at(nn.Sequential(*layers), resolution)


def fbnet(
    *, plan: Literal["a", "b", "c"] = "a", classes: PositiveInt = 1000, resolution: PositiveInt = 224
) -> nn.Sequential:
    """An FBNet classifier of images [batch, 3, height, width].

    Args:
        plan: which of the three.
        classes: logits.
        resolution: side of the input.
    """
    last, rows = PLANS[plan]
    return from_rows(rows, last, classes, resolution)
