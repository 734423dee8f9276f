"""The networks whose cost is predicted, as rows of operators: FBNets, MobileNetV2s, generated ones, seven exemplars.

A network has a name, a family and rows; the same name always means the same network, so that a record which says what
an entry took also says what the entry was.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bench.errors import UsageError, did_you_mean
from suites.common import fbnet
from suites.common.conv_blocks import rounded
from suites.common.mobilenet import STAGES as MOBILE_STAGES
from suites.predict.operators import Operator, Row, convolution, dense, inverted, pooled_head

#: Side of the pictures of convolutional networks, and their classes.
RESOLUTION, CLASSES = 224, 1000
#: Width of the stem and of the last layer of MobileNetV2 (arXiv:1801.04381, table 2).
MOBILE_STEM, MOBILE_LAST = 32, 1280
#: Layers and widths of generated networks, both ends included.
LAYERS, WIDTHS = (2, 8), (2, 512)
CONV_LAYERS, CONV_WIDTHS, CONV_SIDES = (2, 6), (2, 64), (8, 32)
#: Of generated convolutional networks.
CONV_KERNEL, CONV_CLASSES = 3, 10
#: Dense widths of the seven exemplars of wa-hls4ml (arXiv:2511.05615), recalled; they are small networks of physics.
EXEMPLARS: Mapping[str, tuple[int, ...]] = {
    "jet_tagging": (16, 64, 32, 32, 5),
    "top_quarks": (10, 32, 1),
    "anomaly_detection": (128, 8, 4, 128, 4),
    "bipc": (36, 36, 36, 36, 36, 36),
    "cookiebox": (512, 4, 32, 32, 5),
    "automlp": (7, 12, 16, 12, 2),
    "particle_tracking": (14, 32, 32, 32, 3),
}


@dataclass(frozen=True)
class Network:
    """One network: its rows in order, and the numbers that a table of the user's own says of it instead.

    Attributes:
        name: unique within its family.
        family: `fbnet`, `mobilenetv2`, `dense`, `conv`, `exemplars`, `zoo`, or the user's own.
        rows: its layers.
        given: numbers by column, where there are no layers to look at.
    """

    name: str
    family: str
    rows: tuple[Row, ...] = ()
    given: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of what it computes, whatever it is called: two networks of one key are one network."""
        content = repr(sorted(self.given.items())) + repr(self.rows)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def macs(self) -> float | None:
        """Multiply-accumulates; of a table the column of that name, None without one."""
        return self.given.get("macs") if self.given else sum(row.macs for row in self.rows)

    @property
    def depth(self) -> int:
        """Operators with products."""
        return sum(operator.macs > 0 for row in self.rows for operator in row.operators)

    @property
    def width(self) -> float:
        """Bytes of the largest operator's weights: a wider network has a larger one."""
        return max((operator.weight_bytes for row in self.rows for operator in row.operators), default=0.0)

    def __hash__(self) -> int:
        return hash((self.name, self.family))


# ---------------------------------------------------------------------------------------------- FBNet


def fbnet_block(inputs: int, side: int, row: tuple[int, int, int, int, int]) -> Row:
    """The row of a block on a map of that side."""
    kernel, outputs, stride, expansion, groups = row
    if not expansion:
        return Row(f"{inputs}_{outputs}_s{stride}_{side}_skip", tuple(convolution(inputs, outputs, side, 1, stride)))
    key = f"{inputs}_{outputs}_s{stride}_{side}_k{kernel}_e{expansion}_g{groups}"
    return Row(key, tuple(inverted(inputs, outputs, side, kernel, stride, expansion, groups)))


def stem(outputs: int, side: int, act: str = "relu") -> Row:
    """The row of the first convolution, 3 x 3 of stride 2, on a picture of that side."""
    return Row(f"stem_{outputs}_{side}{_of(act)}", tuple(convolution(3, outputs, side, 3, 2, act=act)))


def head(inputs: int, last: int, side: int, classes: int = CLASSES, act: str = "relu") -> Row:
    """The row of the last 1x1 convolution with pooling and classifier."""
    key = f"head_{inputs}_{last}_{classes}_{side}{_of(act)}"
    return Row(key, tuple(pooled_head(inputs, last, side, classes, act)))


def _of(act: str) -> str:
    return "" if act == "relu" else f"_{act}"


def fbnet_rows(candidates: Sequence[str], last: int, resolution: int = RESOLUTION) -> tuple[Row, ...]:
    """The rows of a network of the space from its stem to its head; an identity has none.

    Raises:
        UsageError: an unknown candidate, or not one for every place.
    """
    found = [stem(fbnet.STEM, resolution)]
    where = fbnet.places(resolution)
    rows = fbnet.rows_of(candidates)
    for place, row in zip(where, rows, strict=True):
        if row is not None:
            found.append(fbnet_block(place.inputs, place.side, row))
    final = where[-1]
    return (*found, head(final.outputs, last, -(-final.side // final.stride)))


def table_rows(resolution: int = RESOLUTION) -> dict[tuple[int, str], Row | None]:
    """The 22 x 9 rows of the table by place and candidate; None is the identity, which takes nothing."""
    found: dict[tuple[int, str], Row | None] = {}
    for number, place in enumerate(fbnet.places(resolution)):
        for candidate in fbnet.CANDIDATES:
            row = place.row(candidate)
            found[number, candidate] = None if row is None else fbnet_block(place.inputs, place.side, row)
    return found


def fbnet_network(name: str, resolution: int = RESOLUTION) -> Network:
    """`fbnet_a`, `fbnet_b`, `fbnet_c`, or `fbnet_random_7`, the seventh random network of the space with C's head.

    Raises:
        UsageError: another name.
    """
    plan = name.removeprefix("fbnet_")
    if plan in fbnet.RELEASED:
        return Network(name, "fbnet", fbnet_rows(fbnet.released(plan), fbnet.RELEASED[plan][0], resolution))
    number = plan.removeprefix("random_")
    if not number.isdigit():
        raise UsageError(f'no FBNet is called "{name}": fbnet_a, fbnet_b, fbnet_c or fbnet_random_<number>')
    return Network(name, "fbnet", fbnet_rows(fbnet.drawn(int(number)), fbnet.RELEASED["c"][0], resolution))


# ---------------------------------------------------------------------------------------------- MobileNetV2


@dataclass(frozen=True)
class MobileBlock:
    """One block of a MobileNetV2: channels that come in and go out, side of the map, stride, expansion."""

    inputs: int
    outputs: int
    side: int
    stride: int
    expansion: int

    @property
    def row(self) -> Row:
        """The block as a row; ReLU6 makes it another than FBNet's."""
        key = f"{self.inputs}_{self.outputs}_s{self.stride}_{self.side}_k3_e{self.expansion}_relu6"
        made = inverted(self.inputs, self.outputs, self.side, 3, self.stride, self.expansion, 1, "relu6")
        return Row(key, tuple(made))


def mobile_blocks(width: float, resolution: int = RESOLUTION) -> list[MobileBlock]:
    """The 17 blocks of a MobileNetV2 whose channels are multiplied by `width`."""
    before, side, found = rounded(MOBILE_STEM * width), -(-resolution // 2), []
    for expansion, channels, repeats, first in MOBILE_STAGES:
        for turn in range(repeats):
            stride = first if turn == 0 else 1
            found.append(MobileBlock(before, rounded(channels * width), side, stride, expansion))
            before, side = found[-1].outputs, -(-side // stride)
    return found


def mobile_last(width: float) -> int:
    """Channels of the last 1x1 layer, which narrow networks keep."""
    return rounded(MOBILE_LAST * max(1.0, width))


def mobilenetv2(percent: int, resolution: int = RESOLUTION) -> Network:
    """MobileNetV2 of a width in per cent: 100 is the plain one."""
    width = percent / 100
    blocks = mobile_blocks(width, resolution)
    final = blocks[-1]
    rows = [stem(blocks[0].inputs, resolution, "relu6"), *(block.row for block in blocks)]
    last = head(final.outputs, mobile_last(width), -(-final.side // final.stride), act="relu6")
    return Network(f"mobilenetv2_{percent}", "mobilenetv2", (*rows, last))


# ---------------------------------------------------------------------------------------------- generated networks


def dense_network(name: str, family: str, widths: Sequence[int]) -> Network:
    """Linear layers of these widths with ReLU between them."""
    pairs = list(pairwise(widths))
    rows = [
        Row(f"dense_{a}_{b}", tuple(dense(a, b, "relu" if place < len(pairs) - 1 else "")))
        for place, (a, b) in enumerate(pairs)
    ]
    return Network(name, family, tuple(rows))


def dense_widths(number: int) -> tuple[int, ...]:
    """Widths of the generated dense network of that number: 2 to 8 layers, 2 to 512 wide, even on a log scale."""
    generator = random.Random(f"dense {number}")
    return tuple(_log_even(generator, *WIDTHS) for _ in range(generator.randint(*LAYERS) + 1))


@dataclass(frozen=True)
class ConvPlan:
    """A generated convolutional network: side of its picture, channels, and the stride of every layer."""

    side: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]


def conv_plan(number: int) -> ConvPlan:
    """The generated convolutional network of that number: 2 to 6 layers of 3 x 3, 2 to 64 channels, a classifier."""
    generator = random.Random(f"conv {number}")
    depth = generator.randint(*CONV_LAYERS)
    channels = (3, *(_log_even(generator, *CONV_WIDTHS) for _ in range(depth)))
    return ConvPlan(generator.randint(*CONV_SIDES), channels, tuple(generator.choice((1, 1, 2)) for _ in range(depth)))


def conv_network(name: str, plan: ConvPlan) -> Network:
    """The rows of a generated convolutional network."""
    side, rows = plan.side, []
    for a, b, stride in zip(plan.channels, plan.channels[1:], plan.strides, strict=False):
        rows.append(Row(f"conv_{a}_{b}_s{stride}_{side}", tuple(convolution(a, b, side, CONV_KERNEL, stride))))
        side = -(-side // stride)
    last = plan.channels[-1]
    pool = Operator("pool", 0, 0, 4.0 * last * (side**2 + 1))
    return Network(name, "conv", (*rows, Row(f"pooled_{last}_{side}", (pool, *dense(last, CONV_CLASSES)))))


def _log_even(generator: random.Random, low: int, high: int) -> int:
    return round(math.exp(generator.uniform(math.log(low), math.log(high))))


def named(name: str, resolution: int = RESOLUTION) -> Network:
    """The network behind a name, as cohorts name their entries, on pictures of that side where it takes some.

    Raises:
        UsageError: no network has that name.
    """
    kind, _, rest = name.partition("_")
    if kind == "fbnet":
        return fbnet_network(name, resolution)
    if kind == "mobilenetv2" and rest.isdigit():
        return mobilenetv2(int(rest), resolution)
    if kind == "dense" and rest.isdigit():
        return dense_network(name, "dense", dense_widths(int(rest)))
    if kind == "conv" and rest.isdigit():
        return conv_network(name, conv_plan(int(rest)))
    if name in EXEMPLARS:
        return dense_network(name, "exemplars", EXEMPLARS[name])
    raise UsageError(f'no network is called "{name}"; {did_you_mean(name, EXEMPLARS)}')


# ---------------------------------------------------------------------------------------------- from records


def of_layers(name: str, family: str, layers: Sequence[Mapping[str, Any]]) -> Network:
    """A network as the table of layers of its record has it: a row from each layer with products to the next one."""
    return Network(name, family, tuple(Row("", tuple(group)) for group in _grouped(layers)))


def _grouped(layers: Sequence[Mapping[str, Any]]) -> Iterator[list[Operator]]:
    group: list[Operator] = []
    for layer in layers:
        operator = _of_layer(layer)
        if operator.macs and any(known.macs for known in group):
            yield group
            group = []
        group.append(operator)
    if group:
        yield group


def _of_layer(layer: Mapping[str, Any]) -> Operator:
    """The operators of one module as one; a convolution whose weights are its channels' filters is one per channel."""
    weights, macs = float(layer.get("weight_bytes") or 0), float(layer.get("macs") or 0)
    shapes = layer.get("output_shapes") or [[0]]
    out = shapes[0] if shapes and shapes[0] else [0]
    channels = out[1] if len(out) == 4 else 0
    alone = bool(channels and macs and weights and weights / 4 / channels <= 121 and macs / math.prod(out) <= 121)
    kernel = round(math.sqrt(macs / math.prod(out))) if alone else 0
    return Operator(str(layer.get("op")), macs, weights, float(layer.get("activation_bytes") or 0), kernel, alone)
