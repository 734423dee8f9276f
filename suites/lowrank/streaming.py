"""Factored parts of a BERT layer: unfused, and streamed in tiles (FlashSVD, arXiv 2508.01506).

Queries, keys and values are factored per head, W_h [C, d] ~ U_h [C, ra] V_h [ra, d]; biases stay. Unfused, full
queries, keys and values exist, and the whole hidden layer B L F. Streamed they never do:

- network: P = x U1 [B, L, rf]; over tiles of F, S += gelu(P V1[:, tile] + b1[tile]) U2[tile]; then S V2 + b2;
- attention: P_q, P_k, P_v = x U [B, H, L, ra]; per tile of queries, q = P_q V + b, then over tiles of keys k and v are
  rebuilt from P_k and P_v and enter a softmax with a running maximum; the tile of outputs goes through the factors of
  the output projection at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.cut_attention import CutAttention, CutMlp
from suites.lowrank.factors import FactoredLinear, factored, factors

#: Weights of the rows of each matrix of a layer, [in]; those of plain factors are missing.
Rows = Mapping[str, Tensor]


class HeadFactors(nn.Module):
    """U and V of all heads of one of queries, keys and values: x U_h V_h + b_h."""

    def __init__(self, weight: Tensor, bias: Tensor, heads: int, rank: int, rows: Tensor | None):
        super().__init__()
        u, v = factors(weight.unflatten(0, (heads, -1)).mT, rank, rows)  # of [H, C, d]
        self.heads, self.rank = heads, rank
        self.u = nn.Parameter(u.mT.flatten(0, 1).contiguous())  # [H ra, C]
        self.v = nn.Parameter(v.contiguous())  # [H, ra, d]
        self.bias = nn.Parameter(bias.unflatten(0, (heads, 1, -1)).clone())  # [H, 1, d]

    def low(self, x: Tensor) -> Tensor:
        """X U, [batch, heads, tokens, ra]."""
        return F.linear(x, self.u).unflatten(-1, (self.heads, self.rank)).transpose(1, 2)

    def full(self, low: Tensor) -> Tensor:
        """Rows of x U V + b of whichever tokens the low part is of, [batch, heads, tokens, d]."""
        return torch.matmul(low, self.v) + self.bias


class SvdAttention(nn.Module):
    """Factored attention; every query, key and value exists."""

    def __init__(self, plain: CutAttention, head_rank: int, out_rank: int, rows: Rows):
        super().__init__()
        self.heads = plain.heads
        weights, biases = plain.qkv.weight.detach().chunk(3), plain.qkv.bias.detach().chunk(3)
        self.q, self.k, self.v = (
            HeadFactors(weight, bias, plain.heads, head_rank, rows.get(name))
            for name, weight, bias in zip(("q", "k", "v"), weights, biases, strict=True)
        )
        self.proj = factored(plain.proj, out_rank, rows.get("proj"))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, None]:
        """Attended features [batch, tokens, width]; `seen` [batch, tokens] is false at padding."""
        q, k, v = (part.full(part.low(x)) for part in (self.q, self.k, self.v))
        mask = None if seen is None else seen[:, None, None, :]
        return self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)), None


class StreamedAttention(SvdAttention):
    """The same, tile by tile of queries and of keys."""

    def __init__(self, plain: CutAttention, head_rank: int, out_rank: int, rows: Rows, tile: int):
        super().__init__(plain, head_rank, out_rank, rows)
        self.tile = tile

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, None]:
        """Attended features [batch, tokens, width]; zeros from a query that sees no key."""
        low_q, low_k, low_v = self.q.low(x), self.k.low(x), self.v.low(x)
        out = torch.empty_like(x)
        for start in range(0, x.shape[1], self.tile):
            end = min(start + self.tile, x.shape[1])
            attended = self._of_queries(low_q[:, :, start:end], low_k, low_v, seen)
            out[:, start:end] = self.proj(attended.transpose(1, 2).flatten(2))
        return out, None

    def _of_queries(self, low_q: Tensor, low_k: Tensor, low_v: Tensor, seen: Tensor | None) -> Tensor:
        """Attention of one tile of queries over all tiles of keys, [batch, heads, queries, d]."""
        q = self.q.full(low_q) * self.v.v.shape[-1] ** -0.5
        top = q.new_full((*q.shape[:-1], 1), -torch.inf)
        total, mixed = torch.zeros_like(top), torch.zeros_like(q)
        for start in range(0, low_k.shape[2], self.tile):
            end = min(start + self.tile, low_k.shape[2])
            scores = q @ self.k.full(low_k[:, :, start:end]).mT
            if seen is not None:
                scores = scores.masked_fill(~seen[:, None, None, start:end], -torch.inf)
            new = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
            safe = new.masked_fill(new == -torch.inf, 0.0)  # nothing seen yet: exp(-inf - 0) is 0
            weights = torch.exp(scores - safe)
            kept = torch.exp(top - safe)
            total = total * kept + weights.sum(dim=-1, keepdim=True)
            mixed = mixed * kept + weights @ self.v.full(low_v[:, :, start:end])
            top = new
        return mixed / total.clamp(min=torch.finfo(total.dtype).tiny)


class SvdFfn(nn.Module):
    """The factored network; its whole hidden layer exists."""

    def __init__(self, plain: CutMlp, rank: int, rows: Rows):
        super().__init__()
        self.fc1: FactoredLinear = factored(plain.fc1, rank, rows.get("fc1"))
        self.fc2: FactoredLinear = factored(plain.fc2, rank, rows.get("fc2"))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class StreamedFfn(SvdFfn):
    """The same over tiles of its hidden layer; V1's rows and U2's columns are read once."""

    def __init__(self, plain: CutMlp, rank: int, rows: Rows, tile: int):
        super().__init__(plain, rank, rows)
        self.tile = tile

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        low = F.linear(x, self.fc1.u).flatten(0, -2)
        total = low.new_zeros(len(low), self.fc2.rank)
        hidden, bias = self.fc1.v.shape[0], self.fc1.bias
        assert bias is not None
        for start in range(0, hidden, self.tile):
            end = min(start + self.tile, hidden)
            part = F.gelu(F.linear(low, self.fc1.v[start:end], bias[start:end]))
            total.addmm_(part, self.fc2.u[:, start:end].mT)
            del part  # or the next tile would stand beside it
        return F.linear(total, self.fc2.v, self.fc2.bias).unflatten(0, x.shape[:-1])
