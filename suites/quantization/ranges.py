"""Ranges and granularity: which numbers share a scale, and what the scale is taken from.

A weight is seen as a matrix [outputs, inputs x places of the kernel]. `tensor` shares one scale, `channel` has one per
output, `group` one per `size` inputs of an output, `block` one per square of `size`; `token` is a row of activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Granularity = Literal["tensor", "channel", "group", "block"]
RangeRule = Literal["minmax", "percentile", "mse"]
#: Candidates of the line search, as shares of the largest magnitude: few bits and a long tail ask for a small one.
SHARES = tuple(i / 50 for i in range(1, 51))
#: Numbers that the error of a whole tensor is told by.
SEARCHED = 65_536


def grouped(weight: Tensor, granularity: str, size: int = 128) -> Tensor:
    """The matrix of a weight with numbers that share a scale in the last axis: [groups.., numbers]; zeros fill up.

    Raises:
        ValueError: no such granularity.
    """
    matrix = weight.flatten(1)
    if granularity == "tensor":
        return matrix.reshape(1, -1)
    if granularity in ("channel", "token"):
        return matrix
    if granularity == "group":
        return F.pad(matrix, (0, -matrix.shape[1] % size)).unflatten(1, (-1, size))
    if granularity == "block":
        padded = F.pad(matrix, (0, -matrix.shape[1] % size, 0, -matrix.shape[0] % size))
        tiles = padded.unflatten(1, (-1, size)).unflatten(0, (-1, size)).transpose(1, 2)
        return tiles.flatten(2)
    raise ValueError(f'granularity "{granularity}" is unknown: tensor, channel, group or block')


def ungrouped(groups: Tensor, like: Tensor, granularity: str, size: int = 128) -> Tensor:
    """Numbers of `grouped` back in the shape of the weight."""
    rows, columns = len(like), like[0].numel()
    if granularity == "tensor":
        return groups.reshape(like.shape)
    if granularity in ("channel", "token"):
        return groups.reshape(like.shape)
    if granularity == "group":
        return groups.flatten(1)[:, :columns].reshape(like.shape)
    tiles = groups.unflatten(2, (size, size)).transpose(1, 2).flatten(2).flatten(0, 1)
    return tiles[:rows, :columns].reshape(like.shape)


def in_whole_groups(codes: Tensor, size: int) -> Tensor:
    """Codes [rows, columns] as [rows, groups, size]; zeros fill up the last group."""
    missing = -codes.shape[1] % size
    return (F.pad(codes, (0, missing)) if missing else codes).unflatten(1, (-1, size))


def in_groups(weight: Tensor, rounding: Callable[[Tensor], Tensor], granularity: str, size: int = 128) -> Tensor:
    """A weight after a rounding that sees the groups in the last axis."""
    return ungrouped(rounding(grouped(weight, granularity, size)), weight, granularity, size)


def largest_of(x: Tensor) -> Tensor:
    """Max |x| over the last axis, kept."""
    return x.abs().amax(dim=-1, keepdim=True)


def places(total: int, most: int) -> Tensor:
    """Up to `most` places of `total`, rising: one drawn in each of as many equal stretches, the same in every call.

    Places at even distances would keep step with the axes: every 32nd number of activations of 32 channels is of one
    channel, and every 64th row of a batch of texts is its first token.

    Source: stratified sampling with one unit for each stratum, e.g. W. G. Cochran, Sampling Techniques, 3rd edition
    1977, section 8.4.
    """
    if total <= most:
        return torch.arange(total)
    drawn = torch.rand(most, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ((torch.arange(most) + drawn) * total / most).long().clamp_(max=total - 1)


def best_range_of_all(x: Tensor, rounding: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The `best_range` of all numbers of x together, [1]; the error is that of `SEARCHED` of them, by `places`."""
    flat = x.flatten()
    return best_range(sampled(flat), rounding, whole=largest_of(flat))


def sampled(x: Tensor) -> Tensor:
    """`SEARCHED` numbers of x, flat, by `places`; all of them where there are no more."""
    flat = x.flatten()
    return flat if len(flat) <= SEARCHED else flat[places(len(flat), SEARCHED).to(flat.device)]


def best_range(
    x: Tensor,
    rounding: Callable[[Tensor, Tensor], Tensor],
    shares: tuple[float, ...] = SHARES,
    whole: Tensor | None = None,
) -> Tensor:
    """The range, a share of max |x|, with the least squared error of `rounding(x, range)` along the last axis.

    Args:
        x: numbers, those that share a range in the last axis.
        rounding: x on the grid of a range.
        shares: candidates.
        whole: what they are shares of; None for max |x|. Where x is a sample, the largest of all.
    """
    whole = largest_of(x) if whole is None else whole
    best, least = whole, torch.full_like(whole, torch.inf)
    for share in shares:
        candidate = whole * share
        error = (rounding(x, candidate) - x).square().sum(dim=-1, keepdim=True)
        better = error < least
        best, least = torch.where(better, candidate, best), torch.where(better, error, least)
    return best


class Observer:
    """Least and largest value, per tensor or per last axis, over everything that it is shown."""

    def __init__(self, percentile: float = 100.0, decay: float | None = None):
        """Nothing seen yet.

        Args:
            percentile: of the magnitudes that the range keeps, averaged over calls where below 100.
            decay: of moving averages of the ends; None for the extremes of all calls.

        Raises:
            ValueError: no percentile.
        """
        if not 50 < percentile <= 100:
            raise ValueError(f"percentile={percentile}: between 50 and 100")
        self.percentile, self.decay = percentile, decay
        self.least: Tensor | None = None
        self.largest: Tensor | None = None
        self.calls = 0

    def see(self, x: Tensor) -> None:
        """Take these numbers into the range."""
        least, largest = self._ends(x.detach())
        self.calls += 1
        if self.least is None or self.largest is None:
            self.least, self.largest = least, largest
        elif self.decay is not None:
            self.least = self.decay * self.least + (1 - self.decay) * least
            self.largest = self.decay * self.largest + (1 - self.decay) * largest
        elif self.percentile < 100:  # a mean of quantiles: their extreme would grow with the number of calls
            self.least = self.least + (least - self.least) / self.calls
            self.largest = self.largest + (largest - self.largest) / self.calls
        else:
            self.least, self.largest = torch.minimum(self.least, least), torch.maximum(self.largest, largest)

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.percentile == 100:
            return x.amin(), x.amax()
        ordered = x.flatten().sort().values
        last = len(ordered) - 1
        share = self.percentile / 100
        return ordered[round((1 - share) * last)], ordered[round(share * last)]
