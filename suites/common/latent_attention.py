"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) in its three equal forms.

A token leaves a normalised latent vector c (rank r) and one rotated key part for all heads. Head h's key is [W_UK,h c ;
k_pe] and its value W_UV,h c. `expanded` caches keys and values; `recomputed` caches c and expands all of it at every
step; `absorbed` multiplies W_UK into the query and W_UV into the output, so that a step is attention of all heads over
one shared key of r + rope numbers whose first r are the value.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.decoder_cache import Kept, Line, Pair, behind, line, pair
from suites.common.decoder_shape import LayerShape
from suites.common.rotary import Rotation, rotated

LatentCache = Literal["auto", "absorbed", "recomputed", "expanded"]
EPS = 1e-6


class LatentAttention(nn.Module):
    """Latent attention; a prompt is always attended in the expanded form, a step in `form`: auto is absorbed."""

    def __init__(self, width: int, layer: LayerShape, form: LatentCache = "auto"):
        super().__init__()
        assert layer.latent is not None
        self.size, self.heads, self.form = layer.latent, layer.heads, form
        size, heads = self.size, layer.heads
        query = heads * (size.nope + size.rope)
        self.q_down = self.q_norm = None
        if size.query_rank is not None:
            self.q_down = nn.Linear(width, size.query_rank, bias=False)
            self.q_norm = nn.RMSNorm(size.query_rank, eps=EPS)
        self.q = nn.Linear(size.query_rank or width, query, bias=False)
        self.down = nn.Linear(width, size.rank + size.rope, bias=False)
        self.norm = nn.RMSNorm(size.rank, eps=EPS)
        self.up = nn.Linear(size.rank, heads * (size.nope + size.value), bias=False)
        self.out = nn.Linear(heads * size.value, width, bias=False)

    @property
    def scale(self) -> float:
        """One over the root of a query's size."""
        return (self.size.nope + self.size.rope) ** -0.5

    def queries(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Plain and rotated parts of the queries, [batch, heads, tokens, size]."""
        if self.q_down is not None and self.q_norm is not None:
            x = self.q_norm(self.q_down(x))
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, rope = q.split([self.size.nope, self.size.rope], dim=-1)
        return nope, rotated(rope, rotation)

    def latents(self, x: Tensor, rotation: Rotation) -> Tensor:
        """What is cached of each token: latent and rotated key part side by side, [batch, 1, tokens, rank + rope]."""
        c, pe = self.down(x).split([self.size.rank, self.size.rope], dim=-1)
        return torch.cat([self.norm(c)[:, None], rotated(pe[:, None], rotation)], dim=-1)

    def expand(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all heads from the latents."""
        c, pe = latents.split([self.size.rank, self.size.rope], dim=-1)
        both = self.up(c[:, 0]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, v = both.split([self.size.nope, self.size.value], dim=-1)
        return torch.cat([nope, pe.expand(-1, self.heads, -1, -1)], dim=-1), v

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """Causal attention of a whole sequence."""
        return self.prefill(x, rotation)[0]

    def prefill(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Kept]:
        """Attention of a prompt, and what it leaves behind."""
        q = torch.cat(self.queries(x, rotation), dim=-1)
        latents = self.latents(x, rotation)
        k, v = self.expand(latents)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        return self._merged(attended), pair(k, v) if self.form == "expanded" else line(latents)

    def step(self, x: Tensor, rotation: Rotation, kept: Any) -> tuple[Tensor, Kept]:
        """Attention of tokens that follow, and what is kept afterwards."""
        nope, rope = self.queries(x, rotation)
        new = self.latents(x, rotation)
        if isinstance(kept, Pair):
            kept = kept.extended(*self.expand(new))
            return self.expanded(nope, rope, kept.k.filled, kept.v.filled), kept
        assert isinstance(kept, Line)
        kept = kept.extended(new)
        if self.form == "recomputed":
            return self.expanded(nope, rope, *self.expand(kept.filled)), kept
        return self.absorbed(nope, rope, kept.filled), kept

    def expanded(self, nope: Tensor, rope: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the newest tokens' queries over keys and values of all heads, through the output map."""
        mask = None if nope.shape[2] == 1 else behind(nope.shape[2], k.shape[2], k.device)
        q = torch.cat([nope, rope], dim=-1)
        return self._merged(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale))

    def absorbed(self, nope: Tensor, rope: Tensor, latents: Tensor) -> Tensor:
        """The same over latents: the up-maps go into the query and the output."""
        up_k, up_v = self.up.weight.unflatten(0, (self.heads, -1)).split([self.size.nope, self.size.value], dim=1)
        q = torch.cat([nope @ up_k, rope], dim=-1)  # [batch, heads, tokens, rank + rope]
        batch, heads, count, size = q.shape
        keys = latents.shape[2]
        scores = (q.reshape(batch, 1, heads * count, size) @ latents.transpose(-2, -1)) * self.scale
        scores = scores.reshape(batch, heads, count, keys)
        if count > 1:
            scores = scores.masked_fill(~behind(count, keys, q.device), -torch.inf)
        weights = scores.softmax(dim=-1).reshape(batch, 1, heads * count, keys)
        mixed = (weights @ latents[..., : self.size.rank]).reshape(batch, heads, count, -1)
        return self._merged(mixed @ up_v.transpose(-2, -1))

    def _merged(self, heads: Tensor) -> Tensor:
        return self.out(heads.transpose(1, 2).flatten(2))
