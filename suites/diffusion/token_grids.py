"""Sparse grids of tokens along a chain, and the way between a sparse and a dense one (FlexDiT, arXiv 2412.06028)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SparseSides:
    """How large the sparse grid is: r_max of the tokens are pruned at first, r_min in the end; `fixed` is one number.

    `fixed` = 0 follows the chain.
    """

    r_min: float
    r_max: float
    fixed: int = 0

    def side(self, dense_side: int, done: float) -> int:
        """Side of the sparse grid after a share `done` of the chain: fixed for a quarter, then linear in r."""
        if self.fixed:
            return round(self.fixed**0.5)
        gone = max(0.0, (done - 0.25) / 0.75)
        r = self.r_max + (self.r_min - self.r_max) * gone
        return max(1, round((dense_side**2 * (1 - r)) ** 0.5))


def regridded(tokens: Tensor, side: int) -> Tensor:
    """Tokens of a square grid pooled to a smaller one, or repeated to a larger one."""
    own = round(tokens.shape[1] ** 0.5)
    if own == side:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(-1, (own, own))
    new = F.adaptive_avg_pool2d(maps, side) if side < own else F.interpolate(maps, size=(side, side), mode="nearest")
    return new.flatten(2).transpose(1, 2)


def merging(width: int) -> tuple[nn.Linear, nn.Linear]:
    """The maps of sparse and of dense tokens whose sum a recovery goes on with: 0 and the identity at first."""
    of_sparse, of_dense = nn.Linear(width, width), nn.Linear(width, width)
    with torch.no_grad():
        for each in (of_sparse.weight, of_sparse.bias, of_dense.bias):
            each.zero_()
        of_dense.weight.copy_(torch.eye(width))
    return of_sparse, of_dense
