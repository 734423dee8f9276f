"""A weight as a low-rank product and the rows of the rest that matter most (MC-SMoE, arXiv 2310.01334, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.lowrank.factors import factors


class LowRankRows(nn.Module):
    """x (L R + S)^T with S stored as its kept rows."""

    rows: Tensor

    def __init__(self, left: Tensor, right: Tensor, kept: Tensor, rows: Tensor):
        super().__init__()
        self.left, self.right, self.kept = nn.Parameter(left), nn.Parameter(right), nn.Parameter(kept)
        self.register_buffer("rows", rows)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., out]."""
        low = F.linear(F.linear(x, self.right), self.left)
        return low.index_add(-1, self.rows, F.linear(x, self.kept)) if len(self.rows) else low

    @torch.no_grad()
    def merged(self) -> Tensor:
        """L R + S, [out, in]."""
        return (self.left @ self.right).index_add(0, self.rows, self.kept)


def low_rank_and_rows(linear: nn.Linear, rank: int, kept_rows: float, importance: Tensor | None) -> LowRankRows:
    """A weight [out, in] as a product of that rank and the rows of the rest that matter most.

    Args:
        linear: without bias.
        rank: of the product.
        kept_rows: share of rows, to the nearest whole number.
        importance: of the rows, [out]; None for the norms of the rest.
    """
    weight = linear.weight.detach()
    left, right = factors(weight, rank)
    rest = weight - left @ right
    count = round(kept_rows * len(weight))
    if weight.is_meta:
        rows = torch.arange(count, device=weight.device)
    else:
        order = rest.norm(dim=1) if importance is None else importance
        rows = order.topk(count).indices.sort().values
    return LowRankRows(left.contiguous(), right.contiguous(), rest[rows].clone(), rows)
