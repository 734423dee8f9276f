"""ZipVL: per layer the fewest tokens that hold a share of the attention (He et al. 2024, arXiv 2410.08584).

A few probe queries see the whole prompt; p is the smallest number of keys whose summed attention reaches tau of the
total. The p tokens of the highest attention per query that can see them take part in this layer's attention, queries,
keys and values alike; the others pass by the residual. They also get more bits in the cache; the others get fewer
(version 1) or are dropped (version 2). The newest tokens stay plain and are packed every `residual` steps by the same
rule.

Reconstructed: the probes are the last 64 and 64 random queries; the last token always takes part, since its logits are
asked for; a batch shares the largest p of its samples, each with a set of its own; numbers are quantised per token and
head with a two-byte scale and minimum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.decoder import Decoder, as_decoder
from suites.common.decoder_cache import Kept, attend, behind, grouped_mix, pair, probabilities
from suites.decode.bits import packed, quantised, restored, unpacked
from suites.decode.compressed import Compressed, CompressingKeeper, packed_tokens


def zipvl(
    model: nn.Module,
    *,
    tau: Rate = 0.975,
    version: Literal["v1", "v2"] = "v1",
    high_bits: Literal[2, 4, 8, 16] = 4,
    low_bits: Literal[2, 4, 8, 16] = 2,
    residual: PositiveInt = 100,
    recent_probes: PositiveInt = 64,
    random_probes: Count = 64,
) -> Decoder:
    """The decoder that attends to, and keeps well, only the tokens that hold `tau` of a layer's attention.

    Args:
        model: a decoder with a plain cache.
        tau: share of the attention mass.
        version: v1 keeps the other tokens at `low_bits`, v2 drops them.
        high_bits: bits of the important tokens; 16 leaves numbers as they are.
        low_bits: bits of the others.
        residual: newest tokens that stay plain, and steps between two packings.
        recent_probes: probe queries at the end of the prompt.
        random_probes: probe queries drawn from the rest of it.

    Raises:
        ValueError: not such a model.
    """
    decoder = as_decoder(model, "zipvl")
    if tau == 1 and high_bits == 16:
        return decoder
    for block in decoder.blocks:
        block.attention.keeper = ZipKeeper(
            tau, high_bits, None if version == "v2" else low_bits, residual, recent_probes, random_probes
        )
    return decoder


def probe_queries(tokens: int, recent: int, drawn: int, device: torch.device) -> Tensor:
    """Ascending positions of the probes: the last `recent` ones and `drawn` seeded random ones before them."""
    start = max(0, tokens - recent)
    last = torch.arange(start, tokens, device=device)
    order = torch.randperm(start, generator=torch.Generator().manual_seed(tokens))[:drawn].to(device)
    return torch.cat([order.sort().values, last])


def fewest(mass: Tensor, tau: float) -> int:
    """Smallest number of tokens that hold `tau` of the mass [batch, tokens] in every sample."""
    share = mass.sort(dim=-1, descending=True).values.cumsum(dim=-1)
    wanted = tau * share[:, -1:]
    reached = (share < wanted).sum(dim=-1) + 1
    return min(int(reached.max()), mass.shape[1])


@dataclass(frozen=True)
class Tokens(Kept):
    """Codes [batch, heads, tokens, bytes] with scale and minimum per token, or plain numbers at 16 bits."""

    codes: Tensor
    scale: Tensor | None
    low: Tensor | None


@dataclass(frozen=True)
class Zipped(Kept):
    """Keys and values of important tokens, then those of the others (None where they are dropped)."""

    high: tuple[Tokens, Tokens]
    rest: tuple[Tokens, Tokens] | None


@dataclass(frozen=True)
class ZipCache(Compressed):
    """A compressed cache that also holds how much attention each plain token has had, and by how many queries."""

    mass: Tensor
    queries: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of packed and plain tokens and of the counts."""
        counts = self.mass.numel() * self.mass.element_size() + self.queries.numel() * self.queries.element_size()
        return super().bytes + counts


class ZipKeeper(CompressingKeeper):
    """Chooses tokens by probes in the prompt and by the attention of the steps afterwards."""

    def __init__(self, tau: float, high: int, low: int | None, residual: int, recent: int, drawn: int):
        super().__init__(residual=0, chunk=residual)
        self.tau, self.high, self.low, self.recent, self.drawn = tau, high, low, recent, drawn

    def prefill(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Kept]:
        """Attention among the important tokens, zeros for the others, and the packed prompt."""
        chosen, others = self.chosen(q, k)
        attended = attend(_rows(q, chosen), _rows(k, chosen), _rows(v, chosen), causal=True)
        out = torch.zeros_like(q).scatter(2, chosen[:, None, :, None].expand_as(attended), attended)
        old = self._pack_sets(k, v, chosen, others)
        empty = pair(k[:, :, :0], v[:, :, :0], self.chunk)
        nothing = q.new_zeros(q.shape[0], 0)
        share = chosen.shape[1] / q.shape[2]
        self.nominal_bits = nominal_bits(share, self.high, self.low or 0)
        self.stored_bits = 8.0 * old.bytes / (2 * k.numel())
        return out, ZipCache(old, self._stored(chosen, others), empty, nothing, nothing)

    def chosen(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Ascending positions of important tokens [batch, p] and of the others [batch, tokens - p]."""
        tokens = q.shape[2]
        probes = probe_queries(tokens, self.recent, self.drawn, q.device)
        visible = probes[:, None] >= torch.arange(tokens, device=q.device)[None, :]
        weights = probabilities(q[:, :, probes], k, visible)
        mass = weights.mean(dim=1).sum(dim=1)
        return self._split(mass, visible.sum(dim=0))

    def _split(self, mass: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        count = mass.shape[1] if self.tau >= 1 else fewest(mass, self.tau)
        importance = mass / queries.clamp(min=1)
        importance[:, -1] = torch.inf
        order = importance.argsort(dim=-1, descending=True)
        return order[:, :count].sort(dim=-1).values, order[:, count:].sort(dim=-1).values

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Compressed) -> tuple[Tensor, Compressed]:
        """Attention over what is kept; every `residual` steps plain tokens are packed by the attention they had."""
        assert isinstance(kept, ZipCache)
        recent = kept.recent.extended(k, v, self.chunk)
        kept = replace(kept, recent=recent)
        mask = None if q.shape[2] == 1 else behind(q.shape[2], kept.count + recent.used, q.device)
        weights = self.weights(q, kept, mask)
        far, near = weights.split([kept.count, recent.used], dim=-1)
        out = self.mix(far, kept.old) + grouped_mix(near, recent.v.filled)
        return out, self._packed_when_full(self._counted(kept, near))

    def _counted(self, kept: ZipCache, near: Tensor) -> ZipCache:
        new = near.shape[2]
        seen_by = behind(new, near.shape[3], near.device).sum(dim=0).expand(len(near), -1)
        mass, queries = (nn.functional.pad(x, (0, new)) for x in (kept.mass, kept.queries))
        return replace(kept, mass=mass + near.mean(dim=1).sum(dim=1), queries=queries + seen_by)

    def _packed_when_full(self, kept: ZipCache) -> ZipCache:
        count = packed_tokens(kept.recent.used, 0, self.chunk)
        if not count:
            return kept
        k, v = kept.recent.k.filled, kept.recent.v.filled
        chosen, others = self._split(kept.mass[:, :count].clone(), kept.queries[:, :count])
        old = self.join(kept.old, self._pack_sets(k, v, chosen, others))
        recent = pair(k[:, :, count:], v[:, :, count:], self.chunk)
        stored = kept.count + self._stored(chosen, others)
        return ZipCache(old, stored, recent, kept.mass[:, count:], kept.queries[:, count:])

    def _stored(self, chosen: Tensor, others: Tensor) -> int:
        return chosen.shape[1] + (0 if self.low is None else others.shape[1])

    def _pack_sets(self, k: Tensor, v: Tensor, chosen: Tensor, others: Tensor) -> Zipped:
        high = _coded(_rows(k, chosen), self.high), _coded(_rows(v, chosen), self.high)
        if self.low is None:
            return Zipped(high, None)
        return Zipped(high, (_coded(_rows(k, others), self.low), _coded(_rows(v, others), self.low)))

    def unpack(self, old: Zipped, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values, the important ones first."""
        high = [_decoded(part, self.high, dtype) for part in old.high]
        if old.rest is None or self.low is None:
            return high[0], high[1]
        rest = [_decoded(part, self.low, dtype) for part in old.rest]
        return torch.cat([high[0], rest[0]], dim=2), torch.cat([high[1], rest[1]], dim=2)

    def join(self, first: Zipped, second: Zipped) -> Zipped:
        """Important tokens after important ones, others after others."""
        high = _joined(first.high[0], second.high[0]), _joined(first.high[1], second.high[1])
        if first.rest is None or second.rest is None:
            return Zipped(high, None)
        return Zipped(high, (_joined(first.rest[0], second.rest[0]), _joined(first.rest[1], second.rest[1])))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def _coded(x: Tensor, bits: int) -> Tokens:
    if bits == 16:
        return Tokens(x, None, None)
    codes, scale, low = quantised(x, bits, dim=3)
    return Tokens(packed(codes, bits), scale, low)


def _decoded(part: Tokens, bits: int, dtype: torch.dtype) -> Tensor:
    if part.scale is None or part.low is None:
        return part.codes
    return restored(unpacked(part.codes, bits), part.scale, part.low, dtype)


def _joined(first: Tokens, second: Tokens) -> Tokens:
    codes = torch.cat([first.codes, second.codes], dim=2)
    if first.scale is None or second.scale is None or first.low is None or second.low is None:
        return Tokens(codes, None, None)
    return Tokens(codes, torch.cat([first.scale, second.scale], dim=2), torch.cat([first.low, second.low], dim=2))


def attention_saving(share: float) -> float:
    """Share of a prompt's attention products that fall away when `share` of the tokens take part: 1 - r^2."""
    return 1 - share**2


def nominal_bits(share: float, high: float = 4, low: float = 2) -> float:
    """Bits of one cached number without scales: r high + (1 - r) low; low 0 for version 2."""
    return share * high + (1 - share) * low
