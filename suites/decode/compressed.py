"""A cache whose newest tokens are plain and whose older ones are packed, a chunk at a time, under one softmax."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from suites.common.decoder_cache import (
    Keeper,
    Kept,
    Pair,
    attend,
    behind,
    grouped_mix,
    grouped_scores,
    pair,
    tensors_of,
)


@dataclass(frozen=True)
class Compressed(Kept):
    """Packed older tokens (None while there are none) and the plain newest ones."""

    old: Any
    count: int
    recent: Pair

    @property
    def bytes(self) -> int:
        """Bytes of packed tensors and filled plain positions."""
        return sum(t.numel() * t.element_size() for t in tensors_of(self.old)) + self.recent.bytes


def packed_tokens(seen: int, residual: int, chunk: int) -> int:
    """How many of `seen` tokens are packed: whole chunks, so that at least `residual` newest ones stay plain."""
    return chunk * max(0, (seen - residual) // chunk)


def concatenated(first: Any, second: Any, axes: dict[str, int]) -> Any:
    """Two packed parts joined field by field along each field's token axis."""
    return replace(
        first, **{name: torch.cat([getattr(first, name), getattr(second, name)], dim) for name, dim in axes.items()}
    )


class CompressingKeeper(Keeper):
    """Packs the tokens before the newest `residual` ones in chunks; the prompt itself is attended exactly.

    A subclass defines `pack`, `unpack` and `join`; one that multiplies without unpacking overrides `scores` and `mix`.
    """

    def __init__(self, residual: int, chunk: int):
        super().__init__()
        self.residual, self.chunk = residual, chunk

    def pack(self, k: Tensor, v: Tensor, old: Any = None) -> Any:
        """The packed form of keys and values [batch, kv heads, tokens, size]; `old` is what is packed already."""
        raise NotImplementedError(f"{type(self).__name__} does not define pack")

    def unpack(self, old: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values that a packed form stands for."""
        raise NotImplementedError(f"{type(self).__name__} does not define unpack")

    def join(self, first: Any, second: Any) -> Any:
        """One packed form of two, in order."""
        raise NotImplementedError(f"{type(self).__name__} does not define join")

    def scores(self, q: Tensor, old: Any) -> Tensor:
        """Q k^T with the packed keys, [batch, heads, queries, tokens], unscaled."""
        return grouped_scores(q, self.unpack(old, q.dtype)[0])

    def mix(self, weights: Tensor, old: Any) -> Tensor:
        """Weights x packed values, [batch, heads, queries, value size]."""
        return grouped_mix(weights, self.unpack(old, weights.dtype)[1])

    def keep(self, q: Tensor, k: Tensor, v: Tensor) -> Compressed:
        """The prompt, its older tokens packed."""
        count = packed_tokens(k.shape[2], self.residual, self.chunk)
        old = self.pack(k[:, :, :count], v[:, :, :count]) if count else None
        room = self.residual + self.chunk
        return Compressed(old, count, pair(k[:, :, count:], v[:, :, count:], room))

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Compressed) -> tuple[Tensor, Compressed]:
        """Attention over packed and plain tokens; afterwards full chunks are packed."""
        kept = replace(kept, recent=kept.recent.extended(k, v, self.residual + self.chunk))
        return self.attend_to(q, kept), self.flushed(kept)

    def attend_to(self, q: Tensor, kept: Compressed) -> Tensor:
        """One softmax over packed and plain tokens."""
        queries, keys, values = q.shape[2], kept.recent.k.filled, kept.recent.v.filled
        mask = None if queries == 1 else behind(queries, kept.count + kept.recent.used, q.device)
        if kept.old is None:
            return attend(q, keys, values, mask)
        weights = self.weights(q, kept, mask)
        far, near = weights.split([kept.count, kept.recent.used], dim=-1)
        return self.mix(far, kept.old) + grouped_mix(near, values)

    def weights(self, q: Tensor, kept: Compressed, mask: Tensor | None) -> Tensor:
        """Attention weights over packed, then plain tokens, [batch, heads, queries, tokens]."""
        near = grouped_scores(q, kept.recent.k.filled)
        parts = [near] if kept.old is None else [self.scores(q, kept.old), near]
        scores = torch.cat(parts, dim=-1) * q.shape[-1] ** -0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)

    def flushed(self, kept: Compressed) -> Compressed:
        """The cache with its full chunks packed."""
        count = packed_tokens(kept.recent.used, self.residual, self.chunk)
        if not count:
            return kept
        k, v = kept.recent.k.filled, kept.recent.v.filled
        packed = self.pack(k[:, :, :count], v[:, :, :count], kept.old)
        old = packed if kept.old is None else self.join(kept.old, packed)
        recent = pair(k[:, :, count:], v[:, :, count:], self.residual + self.chunk)
        return Compressed(old, kept.count + count, recent)
