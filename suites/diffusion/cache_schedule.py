"""Which steps of a chain are full, and how kept features are brought nearest to those of their step; arXiv 2503.01323.

Features of a calibration run are [steps, images, channels, side, side]; branches of guidance are images of their own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Factors and offsets of all channels, by the number of a skipped step.
Factors = dict[int, tuple[Tensor, Tensor]]


def chosen(features: Tensor, interval: int, schedule: str, correction: bool) -> tuple[list[int], Factors]:
    """First steps of ceil(T / I) groups, by the dynamic program (`dp`) or evenly, and the corrections of the others."""
    count = len(features)
    groups = math.ceil(count / interval)
    even = even_firsts(count, groups)
    firsts = best_firsts(distances(features), groups, interval) if schedule == "dp" else even
    return firsts, corrections(features, firsts) if correction else {}


def corrected(feature: Tensor, factors: tuple[Tensor, Tensor] | None) -> Tensor:
    """A F + b per channel; F itself where nothing was fitted."""
    if factors is None:
        return feature
    a, b = (each.to(feature)[None, :, None, None] for each in factors)
    return a * feature + b


def distances(features: Tensor) -> Tensor:
    """Sums of absolute differences between the features of all pairs of steps, [steps, steps]."""
    flat = features.flatten(1).double()
    return torch.stack([(flat - row).abs().sum(1) for row in flat])


def even_firsts(count: int, groups: int) -> list[int]:
    """First steps of groups of lengths that differ by one at most."""
    return [-(-count * place // groups) for place in range(groups)]


def bounds(count: int, groups: int, interval: int) -> tuple[int, int]:
    """Least and greatest length of a group: ceil(I / 2) and 2 I, or what so many steps allow."""
    return min(math.ceil(interval / 2), count // groups), max(2 * interval, -(-count // groups))


def best_firsts(distance: Tensor, groups: int, interval: int) -> list[int]:
    """First steps of consecutive groups with the least sum of distances from each group's first; exact.

    Args:
        distance: [steps, steps].
        groups: how many.
        interval: I, which bounds the lengths of groups.
    """
    table, count = distance.tolist(), len(distance)
    least, most = bounds(count, groups, interval)
    best: list[dict[int, tuple[float, list[int]]]] = [{0: (0.0, [])}]
    for _ in range(groups):
        new: dict[int, tuple[float, list[int]]] = {}
        for begin, (cost, firsts) in best[-1].items():
            for end in range(begin + least, min(begin + most, count) + 1):
                total = cost + sum(table[begin][begin:end])
                if end not in new or total < new[end][0]:
                    new[end] = (total, [*firsts, begin])
        best.append(new)
    return best[-1][count][1]


def schedule_cost(distance: Tensor, firsts: list[int]) -> float:
    """Sum of distances of all steps from the first of their group."""
    ends = [*firsts[1:], len(distance)]
    return sum(float(distance[begin, begin:end].sum()) for begin, end in zip(firsts, ends, strict=True))


def corrections(features: Tensor, firsts: list[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """Per skipped step the factors and offsets of all channels that bring the kept feature nearest to its own."""
    found = {}
    for index in range(len(features)):
        first = max(each for each in firsts if each <= index)
        if first != index:
            found[index] = fitted(features[first], features[index])
    return found


def fitted(kept: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares per channel, a = cov / var and b, of maps [images, channels, side, side]."""
    x, y = (each.transpose(0, 1).flatten(1).double() for each in (kept, wanted))
    mean_x, mean_y = x.mean(1), y.mean(1)
    spread = (x - mean_x[:, None]).square().mean(1)
    together = ((x - mean_x[:, None]) * (y - mean_y[:, None])).mean(1)
    a = torch.where(spread > 0, together / spread.clamp(min=1e-30), torch.ones_like(spread))
    return a.to(kept.dtype), (mean_y - a * mean_x).to(kept.dtype)
