"""A table of latencies of one transformer block over its sizes, linear in between: what a unit costs in time here.

Source: NViT (Yang et al. 2023, arXiv:2110.04869, section 3.3): latency is looked up over embedding, heads, query/key,
value and MLP sizes. Attention does not depend on the MLP's size nor the MLP on the heads', so two tables are enough.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from suites.common.cut_attention import CutAttention, CutMlp

#: Axes of the two tables.
ATTENTION, MLP = ("hidden", "head", "qk", "v"), ("hidden", "mlp")
#: Shares of every size at which latency is measured; linear between them and beyond.
SHARES = (0.25, 0.5, 1.0)
#: Runs of which the median is kept, after one that is not, and images of a run.
RUNS, BATCH = 5, 8


@dataclass(frozen=True)
class Table:
    """Values over a grid of sizes.

    Attributes:
        axes: sizes of each axis, rising.
        values: one axis a size, in milliseconds.
    """

    axes: tuple[tuple[int, ...], ...]
    values: Tensor

    def at(self, place: Sequence[float]) -> float:
        """The value there, linear along every axis."""
        values = self.values
        for points, wanted in zip(self.axes, place, strict=True):
            if len(points) == 1:
                values = values[0]
                continue
            low = max(0, min(len(points) - 2, sum(point <= wanted for point in points) - 1))
            share = (wanted - points[low]) / (points[low + 1] - points[low])
            values = values[low] * (1 - share) + values[low + 1] * share
        return float(values)


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of a block's two parts."""

    attention: Table
    mlp: Table

    def block(self, sizes: Mapping[str, int]) -> float:
        """Milliseconds of one block of these sizes: hidden, head, qk, v, mlp."""
        return self.attention.at([sizes[name] for name in ATTENTION]) + self.mlp.at([sizes[name] for name in MLP])


def points_of(size: int) -> tuple[int, ...]:
    """Sizes at which one axis is measured, distinct and rising."""
    return tuple(sorted({max(1, round(share * size)) for share in SHARES}))


def measured(sizes: Mapping[str, int], tokens: int) -> LatencyTable:
    """The table of a block of these sizes and smaller ones, measured on this machine's CPU with torch's threads.

    Args:
        sizes: hidden, head, qk, v, mlp of the dense block.
        tokens: of an image.
    """
    with torch.random.fork_rng(devices=[]):
        attention = _table([points_of(sizes[name]) for name in ATTENTION], CutAttention, tokens)
        return LatencyTable(attention, _table([points_of(sizes[name]) for name in MLP], CutMlp, tokens))


def _table(axes: list[tuple[int, ...]], part: type[nn.Module], tokens: int) -> Table:
    grid = torch.cartesian_prod(*(torch.tensor(points) for points in axes)).tolist()
    values = torch.tensor([_milliseconds(part(*place), place[0], tokens) for place in grid], dtype=torch.float64)
    return Table(tuple(axes), values.view([len(points) for points in axes]))


@torch.no_grad()
def _milliseconds(part: nn.Module, width: int, tokens: int) -> float:
    x = torch.randn(BATCH, tokens, width)
    part.eval()(x)
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter_ns()
        part(x)
        taken.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(taken)
