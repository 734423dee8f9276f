"""Kinetics: test-time search priced with memory traffic (Sadhukhan et al. 2025, arXiv 2506.05333).

Its remedy is block top-k attention. Remedy: in decode keys stand in pages of 16; a page scores by query . mean key,
summed over the queries that share a key head, and a key head attends to its best pages and to the newest tokens. Cost,
in operations, of t trials of g tokens after a context c, N parameters, H query and k key heads, head size summed over
layers D:

    compute = t (2 N g + 2 (2 c + g) g H D)        memory = I 2 (2 c + g t) g k D

I is what a device computes while it moves one 2-byte number. The prompt is shared by the trials; weights are not
charged. With at most b keys a step, (2 c + g) g becomes 2 (b g - max(0, b - c)^2 / 2), and the search for pages adds
(2 c + g) / page g H D operations and as many bytes' worth over the key heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.decoder import Decoder, as_decoder
from suites.common.decoder_cache import Keeper, Kept, Line, Pair, attend, line, pair

#: What the paper's files take for a device of 2.25 PFLOP/s and 8 TB/s, per 2-byte number.
PAPER_INTENSITY = 562.5


def block_topk(model: nn.Module, *, pages: PositiveInt = 64, page: PositiveInt = 16, window: Count = 64) -> Decoder:
    """The decoder whose steps attend to the best pages of the cache and to its newest tokens.

    Args:
        model: a decoder with a plain cache.
        pages: how many pages a key head reads.
        page: tokens of a page.
        window: newest tokens that are always read; the page that the window begins in is read whole.

    Raises:
        ValueError: not such a model.
    """
    decoder = as_decoder(model, "block_topk")
    for block in decoder.blocks:
        block.attention.keeper = PageKeeper(pages, page, window)
    return decoder


@dataclass(frozen=True)
class Paged(Kept):
    """Keys and values, and the mean key of every full page."""

    pair: Pair
    means: Line

    @property
    def bytes(self) -> int:
        """Bytes of filled positions and means."""
        return self.pair.bytes + self.means.bytes


class PageKeeper(Keeper):
    """Attends to chosen pages; a prompt and several tokens at once see everything."""

    def __init__(self, pages: int, page: int, window: int):
        super().__init__()
        self.pages, self.page, self.window = pages, page, window

    def keep(self, q: Tensor, k: Tensor, v: Tensor) -> Paged:
        """The whole prompt and its pages' means."""
        self.stored_bits = 8.0 * k.element_size() * (1 + 1 / (2 * self.page))  # a mean key beside keys and values
        return Paged(pair(k, v), line(self._means(k, 0), room=16))

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Paged) -> tuple[Tensor, Paged]:
        """Attention over the best pages and the newest tokens."""
        if q.shape[2] > 1:
            out, whole = super().step(q, k, v, kept.pair)
            assert isinstance(whole, Pair)
            return out, Paged(whole, self._completed(whole, kept.means))
        whole = kept.pair.extended(k, v)
        means = self._completed(whole, kept.means)
        return self._attend(q, whole, means), Paged(whole, means)

    def _completed(self, whole: Pair, means: Line) -> Line:
        """The means, with those of the pages that have become full."""
        if whole.used // self.page == means.used:
            return means
        return means.extended(self._means(whole.k.filled, means.used), room=16)

    def _means(self, k: Tensor, start: int) -> Tensor:
        full = k.shape[2] // self.page
        return k[:, :, start * self.page : full * self.page].unflatten(2, (-1, self.page)).mean(dim=3)

    def _attend(self, q: Tensor, cache: Pair, means: Line) -> Tensor:
        candidates = max(0, cache.used - self.window) // self.page
        keys, values = cache.k.filled, cache.v.filled
        if candidates <= self.pages:
            return attend(q, keys, values)
        chosen = self.chosen(q, means.filled[:, :, :candidates])
        offsets = torch.arange(self.page, device=q.device)
        places = (chosen[..., None] * self.page + offsets).flatten(2)
        newest = torch.arange(candidates * self.page, cache.used, device=q.device).expand(*places.shape[:2], -1)
        rows = torch.cat([places, newest], dim=2)[..., None].expand(-1, -1, -1, keys.shape[3])
        return attend(q, keys.gather(2, rows), values.gather(2, rows))

    def chosen(self, q: Tensor, means: Tensor) -> Tensor:
        """The best pages of each key head, [batch, kv heads, pages]."""
        groups = means.shape[1]
        folded = q[:, :, 0].unflatten(1, (groups, -1)).sum(dim=2, keepdim=True)
        return (folded @ means.transpose(-2, -1))[:, :, 0].topk(self.pages, dim=-1).indices


def keys_read(used: int, pages: int, page: int, window: int) -> int:
    """Positions that a step attends to when the cache holds `used`, the new one included."""
    candidates = max(0, used - window) // page
    return used if candidates <= pages else pages * page + used - candidates * page


@dataclass(frozen=True)
class Cost:
    """Operations of the arithmetic, and of the traffic at the device's intensity."""

    compute: float
    memory: float

    @property
    def total(self) -> float:
        """Both."""
        return self.compute + self.memory


def dense_cost(
    *,
    parameters: float,
    heads: int,
    kv_heads: int,
    sizes: int,
    context: float,
    new: float,
    trials: int = 1,
    intensity: float = PAPER_INTENSITY,
) -> Cost:
    """The cost of dense attention; `sizes` is the head size summed over layers."""
    seen = (2 * context + new) * new
    compute = trials * (2 * parameters * new + 2 * seen * heads * sizes)
    return Cost(compute, intensity * 2 * (2 * context + new * trials) * new * kv_heads * sizes)


def sparse_cost(
    *,
    parameters: float,
    heads: int,
    kv_heads: int,
    sizes: int,
    context: float,
    new: float,
    budget: float,
    page: int = 16,
    trials: int = 1,
    intensity: float = PAPER_INTENSITY,
) -> Cost:
    """The cost of block top-k with at most `budget` keys a step; each trial reads keys of its own."""
    budget = min(budget, context + new)  # there are no more keys than that
    seen = 2 * (budget * new - 0.5 * max(0.0, budget - context) ** 2)
    search = (2 * context + new) / page * new
    compute = trials * (2 * parameters * new + 2 * seen * heads * sizes + search * heads * sizes)
    return Cost(compute, trials * intensity * (2 * seen + search) * kv_heads * sizes)


def predicted_seconds(cost: Cost, peak_ops: float) -> float:
    """Time that a cost stands for on a device of `peak_ops` op/s; the intensity must be the device's own."""
    return cost.total / peak_ops
