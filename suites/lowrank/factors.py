"""Truncated factors of a weight, plain or with weighted rows, and linear maps made of them.

A weight is written as papers do, W [in, out] with y = x W. W ~ U V with U [in, r], V [r, out] and the singular values
in U. With positive row weights D (square roots of summed squared gradients, FWSVD; sizes of the inputs, ASVD) the
closest product to D W is taken and D removed from U.

Of D W = B the best product of rank r is its projection on the r leading singular vectors of one side, which are
eigenvectors of the smaller of B B^T and B^T B: at full rank it reproduces W whatever rounding does to the least ones.

Source: Eckart & Young 1936; Hsu et al. 2022, FWSVD (arXiv 2207.00112); Yuan et al. 2023, ASVD (arXiv 2312.05821).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def factors(weight: Tensor, rank: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """U [..., in, rank] and V [..., rank, out] of weights [..., in, out], in their dtype.

    Args:
        weight: one or several matrices.
        rank: r, at most the smaller side.
        rows: positive weights of the rows, [in]; None for the plain product.

    Raises:
        ValueError: the rank is above the smaller side.
    """
    inner, outer = weight.shape[-2:]
    if rank > min(inner, outer):
        raise ValueError(f"rank {rank} is above min({inner}, {outer}) of the weight: take at most {min(inner, outer)}")
    if weight.is_meta:
        lead = weight.shape[:-2]
        return weight.new_empty(*lead, inner, rank), weight.new_empty(*lead, rank, outer)
    exact = weight.double()
    scale = None if rows is None else rows.double().clamp(min=1e-12)[:, None]
    scaled = exact if scale is None else scale * exact
    if inner <= outer:
        left = _leading(scaled @ scaled.mT, rank)  # [in, r]
        v = left.mT @ scaled
        u = left if scale is None else left / scale
        values = v.norm(dim=-1).clamp(min=1e-300)
        return (u * values.unsqueeze(-2)).to(weight.dtype), (v / values.unsqueeze(-1)).to(weight.dtype)
    right = _leading(scaled.mT @ scaled, rank)  # [out, r]
    return (exact @ right).to(weight.dtype), right.mT.to(weight.dtype)


def _leading(gram: Tensor, rank: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues, [n, rank], the largest first."""
    return torch.linalg.eigh(gram).eigenvectors[..., -rank:].flip(-1)


class FactoredLinear(nn.Module):
    """x U V + b with both products in full."""

    def __init__(self, u: Tensor, v: Tensor, bias: Tensor | None):
        super().__init__()
        self.u = nn.Parameter(u.mT.contiguous())  # [r, in], as a linear map keeps it
        self.v = nn.Parameter(v.mT.contiguous())  # [out, r]
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def rank(self) -> int:
        """R."""
        return self.u.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, [..., out]."""
        return F.linear(F.linear(x, self.u), self.v, self.bias)


def factored(linear: nn.Linear, rank: int, rows: Tensor | None = None) -> FactoredLinear:
    """A linear map as two factors."""
    u, v = factors(linear.weight.mT, rank, rows)
    return FactoredLinear(u, v, linear.bias)
