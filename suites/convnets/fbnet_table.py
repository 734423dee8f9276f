"""FBNet's table of latencies: every layer of its networks as a row of its own, and what sums of them say of networks.

Source: Wu et al. 2019, FBNet, arXiv:1812.03443, section 3.2.2: the latency of a network is the sum over its layers of
what each takes alone. Theirs was measured on a phone; this one is measured wherever the grid `table` is run:

    python -m bench suite=convnets grid=table protocol=quick
    python -c 'import bench; from suites.convnets.fbnet_table import told; print(told(bench.load("results")))'
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.catalogue import parse_spec
from bench.config.settings import Count, PositiveInt
from bench.errors import UsageError
from bench.line_fit import log_line
from suites.common.conv_blocks import PooledHead, conv_norm
from suites.common.fbnet import PLANS, STEM, Row, from_rows
from suites.common.inverted import InvertedBottleneck

#: At which the grid measures layers and networks.
RESOLUTION = 96
#: Blocks after which a random member stops repeating those of one stage.
MOST_BLOCKS = 24


@dataclass(frozen=True)
class Layer:
    """One layer of a network on a map of `side` pixels; without a kernel it is the last 1x1 layer and the head.

    The stem is the block with 3 inputs.
    """

    inputs: int
    outputs: int
    side: int
    kernel: int = 0
    stride: int = 1
    expansion: int = 1
    groups: int = 1

    def made(self, classes: int) -> nn.Module:
        """The layer."""
        if not self.kernel:
            return nn.Sequential(conv_norm(self.inputs, self.outputs, act=nn.ReLU), PooledHead(self.outputs, classes))
        if self.inputs == 3:
            return conv_norm(3, self.outputs, self.kernel, self.stride, act=nn.ReLU)
        return InvertedBottleneck(
            self.inputs, self.outputs, hidden=self.inputs * self.expansion, kernel=self.kernel, stride=self.stride,
            groups=self.groups, widen=self.expansion > 1,
        )  # fmt: skip

    @property
    def spec(self) -> str:
        """The row of the table as a grid names it, without what is as by default."""
        plain = {field.name: field.default for field in fields(self)}
        said = [f"{name}={value}" for name, value in vars(self).items() if value != plain[name]]
        return f"fbnet_layer({', '.join(said)})"


def layers_of(rows: Iterable[Row], last: int, resolution: int = RESOLUTION) -> list[Layer]:
    """The layers of a network from its stem to its head, in order; skipped blocks have none."""
    found = [Layer(3, STEM, resolution, 3, 2)]
    before, side = STEM, -(-resolution // 2)
    for row in rows:
        if row is None:
            continue
        kernel, outputs, stride, expansion, groups = row
        found.append(Layer(before, outputs, side, kernel, stride, expansion, groups))
        before, side = outputs, -(-side // stride)
    return [*found, Layer(before, last, side)]


def member(number: int) -> tuple[int, tuple[Row, ...]]:
    """A random member of the search space whose layers are all in the table: in every place one of A's, B's or C's.

    A place is a number of channels and a side that come in; a walk goes on wherever one of the three networks does.
    """
    generator = random.Random(number)
    onward: dict[tuple[int, int], list[tuple[Row, int, int]]] = {}
    for last, rows in PLANS.values():
        before, side = STEM, 0
        for row in rows:
            if row is None:
                continue
            onward.setdefault((before, side), []).append((row, row[1], side + (row[2] == 2)))
            before, side = row[1], side + (row[2] == 2)
        onward.setdefault((before, side), []).append((None, last, -1))
    place, walk, last = (STEM, 0), list[Row](), 0
    while not last:
        ways = onward[place]
        if len(walk) > MOST_BLOCKS:
            ways = [way for way in ways if way[1:] != place]  # leaves the stage: every network does
        row, outputs, side = generator.choice(ways)
        if row is None:
            last = outputs
        else:
            walk.append(row)
            place = outputs, side
    return last, tuple(walk)


class FbnetLayer(nn.Module):
    """A layer beside the inputs that it has in its network."""

    def __init__(self, layer: Layer, classes: int):
        super().__init__()
        self.inputs, self.side = layer.inputs, layer.side
        self.layer = layer.made(classes)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of a map [batch, inputs, side, side]."""
        return self.layer(x)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """A random map."""
        like = next(self.parameters())
        return (torch.randn(batch, self.inputs, self.side, self.side, device=like.device, dtype=like.dtype),)


def fbnet_layer(
    *, inputs: PositiveInt = 24, outputs: PositiveInt = 24, side: PositiveInt = 24, kernel: Count = 0,
    stride: PositiveInt = 1, expansion: PositiveInt = 1, groups: PositiveInt = 1, classes: PositiveInt = 1000,
) -> FbnetLayer:  # fmt: skip
    """One layer of the table, on maps [batch, inputs, side, side].

    Args:
        inputs: channels that come in; 3 is the stem.
        outputs: channels that go out.
        side: of the map.
        kernel: of the depthwise layer; 0 is the last 1x1 layer with the head.
        stride: of the depthwise layer.
        expansion: of the channels in between.
        groups: of the 1x1 layers.
        classes: logits of the head.
    """
    return FbnetLayer(Layer(inputs, outputs, side, kernel, stride, expansion, groups), classes).eval()


def fbnet_member(*, number: Count = 1, classes: PositiveInt = 1000, resolution: PositiveInt = 224) -> nn.Sequential:
    """A random network of the layers that FBNet-A, -B and -C have, of images [batch, 3, height, width].

    Args:
        number: which one.
        classes: logits.
        resolution: side of the input.
    """
    last, rows = member(number)
    return from_rows(rows, last, classes, resolution)


def plan_of(spec: str) -> tuple[int, tuple[Row, ...]] | None:
    """The last width and the rows of a network by its name in a grid; None if it is no FBNet."""
    name, settings = parse_spec(spec)
    if name == "fbnet_member":
        return member(int(settings.get("number", 1)))
    return PLANS.get(name.removeprefix("fbnet_")) if name.startswith("fbnet_") else None


def compared(times: Mapping[str, float], resolution: int = RESOLUTION) -> dict[str, tuple[float, float]]:
    """Predicted and measured milliseconds of each network whose layers are all there.

    Args:
        times: milliseconds by model, as grids name layers and networks, in any order of settings.
        resolution: at which the networks were measured.
    """
    known = {_canonical(spec): value for spec, value in times.items()}
    found = {}
    for spec, value in times.items():
        plan = plan_of(spec)
        if plan is None:
            continue
        parts = [known.get(_canonical(layer.spec)) for layer in layers_of(plan[1], plan[0], resolution)]
        if None not in parts:
            found[spec] = (sum(part for part in parts if part is not None), value)
    return found


def _canonical(spec: str) -> tuple[str, frozenset[tuple[str, object]]]:
    name, settings = parse_spec(spec)
    plain = {field.name: field.default for field in fields(Layer)}
    return name, frozenset((key, value) for key, value in settings.items() if value != plain.get(key))


def rank_correlation(pairs: Iterable[tuple[float, float]]) -> float:
    """Spearman's, without ties: 1 - 6 sum d^2 / (n (n^2 - 1))."""
    listed = list(pairs)
    ranks = [sorted(range(len(listed)), key=lambda i, side=side: listed[i][side]) for side in (0, 1)]  # type: ignore[misc]
    places = [{item: place for place, item in enumerate(order)} for order in ranks]
    apart = sum((places[0][i] - places[1][i]) ** 2 for i in range(len(listed)))
    return 1 - 6 * apart / (len(listed) * (len(listed) ** 2 - 1))


def summary(found: Mapping[str, tuple[float, float]]) -> str:
    """The comparison as a table, with the mean error, the ranks and the line through both.

    Raises:
        UsageError: fewer than four networks could be predicted.
    """
    if len(found) < 4:
        raise UsageError(
            f"{len(found)} networks have all of their layers in the table, and 4 are needed: run "
            "`python -m bench suite=convnets grid=table` into this folder first"
        )
    lines = ["| network | predicted (ms) | measured (ms) | predicted / measured |", "|---|---|---|---|"]
    lines += [
        f"| {name.removesuffix('()')} | {said:.2f} | {took:.2f} | {said / took:.2f} |"
        for name, (said, took) in sorted(found.items(), key=lambda item: item[1][1])
    ]
    error = sum(abs(said / took - 1) for said, took in found.values()) / len(found)
    fit = log_line([said for said, _ in found.values()], [took for _, took in found.values()])
    lines += [
        "",
        f"Mean error {100 * error:.0f} %; rank correlation {rank_correlation(found.values()):.2f} of {len(found)} "
        f"networks; Pearson's r of the logarithms {fit.correlation:.3f}.",
    ]
    return "\n".join(lines)


def told(frame: Any) -> str:
    """The comparison of a results folder.

    Args:
        frame: what `bench.load` gives of it.

    Raises:
        UsageError: fewer than four networks could be predicted.
    """
    whole = frame[(frame["metric"] == "latency_ms") & (frame["batch"] == 1) & (frame["part"] == "forward")]
    rows = whole[["model", "model_settings", "value"]].itertuples(index=False)
    return summary(compared({f"{model}({settings or ''})": float(value) for model, settings, value in rows}))
