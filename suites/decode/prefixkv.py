"""PrefixKV: one attention mass for all layers sets each layer's cache size (Wang et al. 2024, arXiv 2412.03409).

A key's importance in a layer is the attention it receives in the prompt, summed over queries, mean over heads. Sorted,
normalised and cumulated it says how many tokens hold a mass p. One p for all layers, found by binary search, makes the
total equal to the budget. In decode a layer whose cache exceeds its ratio of the seen length drops the token 25 before
the end, of a shorter cache the oldest behind the first. Online the ratios come from the prompt itself; offline a fixed
list of ratios, averaged over samples, is given.

A batch shares the sizes, found on the mean of its cumulated masses; each sample has a set of its own. Keys keep the
rotary position that they were written with. The released ratios are shares forgotten; here a ratio is the share kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import KeepRate, PositiveInt
from suites.common.decoder import Decoder, DecoderCache, Generator, as_decoder
from suites.common.decoder_cache import Keeper, Kept, Line, Pair, grouped_mix, pair, probabilities

#: Queries whose attention map is held at once.
QUERY_BLOCK = 256


def prefixkv(
    model: nn.Module,
    *,
    budget: KeepRate = 0.5,
    ratios: list[KeepRate] | None = None,
    drop_before_end: PositiveInt = 25,
) -> Generator:
    """The decoder that keeps `budget` of the prompt, parted among layers by one attention mass.

    Args:
        model: a decoder with a plain cache.
        budget: share of all layers' tokens that is kept.
        ratios: share kept per layer, the offline recipe; None finds it on every prompt.
        drop_before_end: which token goes when a layer's cache is too long, counted from the end; the first stays.

    Raises:
        ValueError: not such a model, or not one ratio per layer.
    """
    decoder = as_decoder(model, "prefixkv")
    if ratios is not None and len(ratios) != len(decoder.blocks):
        raise ValueError(
            f"ratios has {len(ratios)} entries, the decoder {len(decoder.blocks)} layers: give one per layer"
        )
    if budget == 1 and ratios is None:
        return decoder
    return PrefixKV(decoder, budget, ratios, drop_before_end)


@dataclass(frozen=True)
class Scored(Kept):
    """A prompt's keys and values with the importance of each key, [batch, tokens]."""

    k: Tensor
    v: Tensor
    importance: Tensor


@dataclass(frozen=True)
class Trimmed(Kept):
    """A cache of what a layer has kept, the share it may keep, and how many tokens it has seen."""

    pair: Pair
    ratio: float
    seen: int

    @property
    def bytes(self) -> int:
        """Bytes of the filled positions."""
        return self.pair.bytes


class PrefixKeeper(Keeper):
    """Scores the prompt's keys; in decode drops one token where the cache exceeds its share."""

    def __init__(self, drop_before_end: int, scored: bool):
        super().__init__()
        self.drop_before_end, self.scored = drop_before_end, scored

    def prefill(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Kept]:
        """Attention with its map written out, block of queries by block, and the keys' importance."""
        if not self.scored:
            return self.attend(q, k, v), Scored(k, v, recent_importance(q, k))
        tokens, out = q.shape[2], []
        importance = q.new_zeros(q.shape[0], tokens)
        for start in range(0, tokens, QUERY_BLOCK):
            queries = q[:, :, start : start + QUERY_BLOCK]
            places = torch.arange(start, start + queries.shape[2], device=q.device)
            seen = places[:, None] >= torch.arange(tokens, device=q.device)[None, :]
            weights = probabilities(queries, k, seen)
            importance += weights.mean(dim=1).sum(dim=1)
            out.append(grouped_mix(weights, v))
        return torch.cat(out, dim=2), Scored(k, v, importance)

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Trimmed) -> tuple[Tensor, Trimmed]:
        """Attention over what is kept and the new tokens; afterwards the cache fits its share again."""
        out, longer = super().step(q, k, v, kept.pair)
        assert isinstance(longer, Pair)
        seen = kept.seen + k.shape[2]
        while longer.used > max(1, round(kept.ratio * seen)):
            longer = _without(longer, place_to_drop(longer.used, self.drop_before_end))
        return out, Trimmed(longer, kept.ratio, seen)


def place_to_drop(used: int, before_end: int) -> int:
    """Which position of `used` goes: so many before the end; where there are fewer, the oldest behind the first."""
    return max(min(1, used - 2), used - before_end)


def recent_importance(q: Tensor, k: Tensor, queries: int = 64) -> Tensor:
    """Importance of keys [batch, tokens] by the last queries alone, as an offline recipe uses it, without a map."""
    start = max(0, q.shape[2] - queries)
    places = torch.arange(start, q.shape[2], device=q.device)
    seen = places[:, None] >= torch.arange(k.shape[2], device=q.device)[None, :]
    return probabilities(q[:, :, start:], k, seen).mean(dim=1).sum(dim=1)


def _without(cache: Pair, place: int) -> Pair:
    """The pair without one position; the few behind it move up by one."""
    return Pair(_closed(cache.k, place), _closed(cache.v, place))


def _closed(cache: Line, place: int) -> Line:
    behind = cache.used - 1 - place
    cache.x.narrow(2, place, behind).copy_(cache.x.narrow(2, place + 1, behind).clone())
    return Line(cache.x, cache.used - 1)


class PrefixKV(Generator):
    """A decoder whose prompt is trimmed when all layers have scored it."""

    def __init__(self, decoder: Decoder, budget: float, ratios: list[float] | None, drop_before_end: int):
        super().__init__()
        self.decoder, self.budget, self.ratios = decoder, budget, ratios
        self.vocabulary, self.shape = decoder.vocabulary, decoder.shape
        for block in decoder.blocks:
            block.attention.keeper = PrefixKeeper(drop_before_end, scored=ratios is None)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position without a cache: the plain decoder's."""
        return self.decoder(ids)

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position, and the trimmed cache."""
        logits, cache = self.decoder.prefill(ids)
        tokens = ids.shape[1]
        if self.ratios is None:
            sizes = layer_sizes([part.importance for part in cache.kept], self.budget)
        else:
            sizes = [kept_tokens(tokens, ratio) for ratio in self.ratios]
        kept = tuple(trimmed(part, size) for part, size in zip(cache.kept, sizes, strict=True))
        return logits, DecoderCache(kept, cache.seen)

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position, and the cache."""
        return self.decoder.decode(ids, cache)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number of the dense cache: the share kept x a number's own."""
        own = 8.0 * self.decoder.embed.weight.element_size()
        share = self.budget if self.ratios is None else sum(self.ratios) / len(self.ratios)
        return {"nominal": own * share, "stored": own * share}


def kept_tokens(tokens: int, ratio: float) -> int:
    """How many tokens a layer keeps: all but round((1 - ratio) tokens), at least one."""
    return max(1, tokens - round((1 - ratio) * tokens))


def curves(importances: list[Tensor]) -> list[Tensor]:
    """Per layer the mass that its most important 1, 2, ... tokens hold, mean over the batch, [tokens]."""
    out = []
    for importance in importances:
        ordered = importance.double().sort(dim=-1, descending=True).values
        out.append((ordered / ordered.sum(dim=-1, keepdim=True)).cumsum(dim=-1).mean(dim=0))
    return out


def sizes_at(masses: list[Tensor], p: float) -> list[int]:
    """Per layer the fewest tokens that hold the mass p."""
    return [min(int((mass < p).sum()) + 1, len(mass)) for mass in masses]


def prefix_mass(masses: list[Tensor], wanted: int) -> float:
    """The mass p at which all layers together keep as near to `wanted` tokens as binary search gets."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if sum(sizes_at(masses, middle)) > wanted:
            high = middle
        else:
            low = middle
    return low


def layer_sizes(importances: list[Tensor], budget: float) -> list[int]:
    """Tokens that each layer keeps; their sum is the budget exactly."""
    masses = curves(importances)
    tokens, layers = len(masses[0]), len(masses)
    wanted = max(layers, round(budget * tokens * layers))
    sizes = sizes_at(masses, prefix_mass(masses, wanted))
    return _rescaled(sizes, wanted, tokens)


def _rescaled(sizes: list[int], wanted: int, most: int) -> list[int]:
    """The sizes moved evenly, largest room first, until they sum to `wanted`."""
    sizes = list(sizes)
    while sum(sizes) != wanted:
        missing = wanted - sum(sizes)
        room = [most - size if missing > 0 else size - 1 for size in sizes]
        movable = [i for i, free in enumerate(room) if free > 0]
        share = max(1, abs(missing) // len(movable))
        for i in sorted(movable, key=lambda i: -room[i])[: abs(missing)]:
            sizes[i] += min(share, room[i]) * (1 if missing > 0 else -1)
    return sizes


def trimmed(part: Scored, size: int) -> Trimmed:
    """A layer's cache with its `size` most important tokens in order; the first and the last are always among them."""
    importance, tokens = part.importance.clone(), part.importance.shape[1]
    importance[:, -1] = torch.inf
    if size > 1:
        importance[:, 0] = torch.inf
    index = importance.topk(size, dim=-1).indices.sort(dim=-1).values
    rows = index[:, None, :, None].expand(-1, part.k.shape[1], -1, part.k.shape[3])
    return Trimmed(pair(part.k.gather(2, rows), part.v.gather(2, rows)), size / tokens, tokens)


def recipe(model: Decoder, samples: list[Tensor], budget: float) -> list[float]:
    """Offline ratios: per layer the mean over samples (ids [batch, tokens]) of the share that it keeps online."""
    online: Any = PrefixKV(model, budget, None, 25)
    totals = torch.zeros(len(model.blocks), dtype=torch.double)
    with torch.no_grad():
        for ids in samples:
            _, cache = online.prefill(ids)
            totals += torch.tensor([part.ratio for part in cache.kept], dtype=torch.double)
    return (totals / len(samples)).tolist()
