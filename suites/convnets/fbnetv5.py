"""FBNetV5, small: a supernet of parallel scales whose blocks and links are gates, one network cut out of it per task.

Source: Wu et al. 2021, FBNetV5, arXiv:2111.10007, section 3. No network was released, so widths, depths and tasks are
ours. The search over the gates is in `fbnetv5_search`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import conv_norm
from suites.common.inverted import InvertedBottleneck
from suites.common.tasks.digit_canvas import CANVAS, CELLS

SCALES = 4
#: The scale that each head reads, 0 the finest: pixels at stride 2, cells at stride 8, the digit at stride 16.
READS: Mapping[str, int] = {"ink": 0, "place": 2, "class": 3}
#: Probability that a gate is open while the supernet learns.
OPEN = 0.85
#: Of the norms.
GROUPS = 4

#: A gate: ("block", stage, scale, number) or ("link", stage, from scale, to scale).
Gate = tuple[str, int, int, int]


class Link(nn.Module):
    """A map of one scale brought to the width and size of another: strided 3x3 layers down, a 1x1 and nearest up."""

    def __init__(self, widths: list[int], source: int, goal: int):
        super().__init__()
        self.grow = 2 ** max(0, source - goal)
        if source > goal:
            self.layers = conv_norm(widths[source], widths[goal])
        else:
            steps = itertools.pairwise(range(source, goal + 1))
            self.layers = nn.Sequential(
                *(conv_norm(widths[a], widths[b], 3, 2, act=nn.ReLU if b < goal else None) for a, b in steps)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The map of the other scale."""
        y = self.layers(x)
        return F.interpolate(y, scale_factor=float(self.grow), mode="nearest") if self.grow > 1 else y


class Supernet(nn.Module):
    """Canvases [batch, 1, 32, 32] to the logits of one target; `answers` gives those of all heads that are there.

    A stage is a number of residual blocks at each of four scales, then links from every scale to every other, whose
    results are added. A block or link whose gate is closed is left out. While it learns, gates are drawn anew for
    every batch.
    """

    #: One training serves all targets; this one alone is answered.
    not_learned = ("target",)

    def __init__(self, width: int, stages: int, depth: int, target: str):
        super().__init__()
        self.target, self.channels = target, 1
        widths = [width + width // 2 * place for place in range(SCALES)]
        self.enter = nn.ModuleList(
            conv_norm(1 if place == 0 else widths[place - 1], widths[place], 3, 2, act=nn.ReLU)
            for place in range(SCALES)
        )
        self.blocks, self.links = nn.ModuleDict(), nn.ModuleDict()
        for stage, place in itertools.product(range(stages), range(SCALES)):
            for number in range(depth):
                block = InvertedBottleneck(widths[place], widths[place], hidden=3 * widths[place])
                self.blocks[f"{stage}-{place}-{number}"] = block
            for goal in set(range(SCALES)) - {place}:
                self.links[f"{stage}-{place}-{goal}"] = Link(widths, place, goal)
        self.heads = nn.ModuleDict(
            {
                "class": nn.Linear(widths[READS["class"]], 10),
                "place": nn.Conv2d(widths[READS["place"]], 1, 1),
                "ink": nn.Conv2d(widths[READS["ink"]], 4, 1),
            }
        )
        self.stages, self.depth = stages, depth
        _without_statistics(self)

    def gates(self) -> list[Gate]:
        """The gates of what is there, blocks before links."""
        return [*(_gate("block", name) for name in self.blocks), *(_gate("link", name) for name in self.links)]

    def live(self, gates: frozenset[Gate], targets: tuple[str, ...]) -> tuple[frozenset[Gate], set[int]]:
        """Of open gates those whose result some target's head reads, and the scales that must be entered."""
        wanted = {READS[target] for target in targets}
        kept = set[Gate]()
        for stage in reversed(range(self.stages)):
            links = {gate for gate in gates if gate[:2] == ("link", stage) and gate[3] in wanted}
            wanted = wanted | {gate[2] for gate in links}
            kept |= links | {gate for gate in gates if gate[:2] == ("block", stage) and gate[2] in wanted}
        return frozenset(kept), set(range(max(wanted) + 1))

    def answers(self, canvases: Tensor, gates: frozenset[Gate] | None = None) -> dict[str, Tensor]:
        """Logits by target: digits [batch, 10], cells [batch, 16], pixels [batch, 32, 32].

        Args:
            canvases: [batch, 1, 32, 32].
            gates: those that are open; None is all, and a random draw while the module learns.
        """
        there = frozenset(self.gates())
        if gates is None:
            gates = frozenset(g for g in there if not self.training or torch.rand(()) < OPEN)
        maps: list[Tensor | None] = [None] * SCALES
        x = canvases
        for place, layer in enumerate(self.enter):
            x = layer(x)
            maps[place] = x
        for stage in range(self.stages):
            maps = self._stage(stage, maps, gates & there)
        found = {}
        for target, head in self.heads.items():
            found[target] = _shaped(target, head(_seen(target, cast(Tensor, maps[READS[target]]))))
        return found

    def _stage(self, stage: int, maps: list[Tensor | None], gates: frozenset[Gate]) -> list[Tensor | None]:
        inside = list(maps)
        for place, number in itertools.product(range(SCALES), range(self.depth)):
            if ("block", stage, place, number) in gates:
                inside[place] = self.blocks[f"{stage}-{place}-{number}"](inside[place])
        after = list(inside)
        for place, goal in itertools.permutations(range(SCALES), 2):
            if ("link", stage, place, goal) in gates:
                linked = self.links[f"{stage}-{place}-{goal}"](inside[place])
                after[goal] = cast(Tensor, after[goal]) + linked
        return after

    def forward(self, canvases: Tensor) -> Tensor:
        """The target's logits."""
        return self.answers(canvases)[self.target]

    def cut(self, gates: frozenset[Gate]) -> Supernet:
        """The network of the target alone: what is closed or feeds no head is gone, from weights and from work."""
        kept, entered = self.live(gates, (self.target,))
        for kind, table in (("block", self.blocks), ("link", self.links)):
            for name in [name for name in table if _gate(kind, name) not in kept]:
                del table[name]
        self.enter = self.enter[: len(entered)]
        self.heads = nn.ModuleDict({self.target: self.heads[self.target]})
        return self

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Noisy canvases."""
        like = next(self.parameters())
        return (torch.randn(batch, 1, CANVAS, CANVAS, device=like.device, dtype=like.dtype),)


def _without_statistics(module: nn.Module) -> None:
    """Put group norms where batch norms are: running statistics of many architectures would fit none of them."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(GROUPS, child.num_features))
        else:
            _without_statistics(child)


def _gate(kind: str, name: str) -> Gate:
    stage, one, other = (int(word) for word in name.split("-"))
    return kind, stage, one, other


def _seen(target: str, x: Tensor) -> Tensor:
    """What a head is given of a map: for the digit the most of each channel, wherever on the canvas it is."""
    return x.amax((2, 3)) if target == "class" else x


def _shaped(target: str, logits: Tensor) -> Tensor:
    """Logits as they are scored: a cell each of 4 x 4, or a pixel each."""
    if target == "place":
        return F.adaptive_avg_pool2d(logits, CELLS).flatten(1)
    return F.pixel_shuffle(logits, 2).squeeze(1) if target == "ink" else logits


def gate_macs(network: Supernet) -> dict[Gate, int]:
    """MACs of one canvas that each gate opens: a closed form over the layers behind it."""
    side = {place: CANVAS >> place + 1 for place in range(SCALES)}
    found = {
        gate: _conv_macs(network.blocks[_name(gate)], side[gate[2]]) for gate in network.gates() if gate[0] == "block"
    }
    for gate in network.gates():
        if gate[0] == "link":
            found[gate] = _conv_macs(network.links[_name(gate)], side[gate[2]])
    return found


def fixed_macs(network: Supernet, targets: tuple[str, ...], entered: int) -> int:
    """MACs of one canvas that no gate saves: the layers that make the first `entered` scales, and the heads."""
    total, side = 0, CANVAS
    for layer in network.enter[:entered]:
        total += _conv_macs(layer, side)
        side //= 2
    for target in targets:
        head = network.heads[target]
        whole = sum(parameter.numel() for name, parameter in head.named_parameters() if name == "weight")
        total += whole if target == "class" else _conv_macs(head, CANVAS >> READS[target] + 1)
    return total


def _name(gate: Gate) -> str:
    return "-".join(str(number) for number in gate[1:])


def _conv_macs(module: nn.Module, side: int) -> int:
    """MACs of a chain of convolutions on maps of a side, one picture."""
    total = 0
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            side //= layer.stride[0]
            total += layer.weight.numel() * side * side
    return total


def fbnetv5_supernet(
    *,
    target: Literal["class", "place", "ink"] = "class",
    width: PositiveInt = 16,
    stages: PositiveInt = 2,
    depth: PositiveInt = 2,
) -> Supernet:
    """A supernet of four scales for three tasks on one canvas.

    Args:
        target: which answer comes out: the digit, its cell or its pixels. Weights are the same for all.
        width: channels of the finest scale, a multiple of 8; each next has half as many more.
        stages: blocks at every scale and then links between all.
        depth: blocks at a scale in a stage.

    Raises:
        UsageError: a width that its norms cannot share out.
    """
    if width % (2 * GROUPS):
        raise UsageError(f"fbnetv5_supernet: width={width} must be a multiple of {2 * GROUPS}")
    return Supernet(width, stages, depth, target).eval()
