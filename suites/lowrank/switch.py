"""A Switch transformer: T5's encoder and decoder in which every second network is a mixture of experts.

Width d, hidden F, ReLU, no biases; attention has no scale; a learned bias by relative position in the first layer of
encoder and decoder is shared by the others; RMSNorm before every part; one table for both embeddings and the head.
A mixture (layers 1, 3, 5, ... counted from 0) has a router d x E and sends a token through the expert of its largest
probability, weighted with it. No token is dropped: the capacity is unbounded.

Experts are a list of the distinct ones and a table from the router's outputs to it, so that merged experts are stored
once (`alias`). Tokens are sorted by distinct expert and each is multiplied once, in all rows alike.

Text: the encoder reads the first half of a sequence, the decoder goes on from its last token; logits before it are
zeros, a uniform guess.

Source: Fedus et al. 2022 (arXiv 2101.03961), Raffel et al. 2020 (arXiv 1910.10683).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Generator
from suites.common.decoder_cache import Kept, Pair, pair

EPS = 1e-6
BUCKETS, FURTHEST = 32, 128


class Expert(nn.Module):
    """wo relu(wi x)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.wi: nn.Module = nn.Linear(width, hidden, bias=False)
        self.wo: nn.Module = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.wo(F.relu(self.wi(x)))


class Mixture(nn.Module):
    """Experts behind a router.

    Attributes:
        alias: for each output of the router, which distinct expert stands for it, [E].
        watch: a function that is given every choice [tokens] and the router's logits [tokens, E]; None for nobody.
    """

    alias: Tensor

    def __init__(self, width: int, hidden: int, count: int):
        super().__init__()
        self.router = nn.Linear(width, count, bias=False)
        self.experts: Any = nn.ModuleList(Expert(width, hidden) for _ in range(count))
        self.register_buffer("alias", torch.arange(count))
        self.watch: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape, [..., d]."""
        flat = x.reshape(-1, x.shape[-1])
        logits = self.router(flat)
        chance, picked = logits.softmax(dim=-1).max(dim=-1)
        if self.watch is not None:
            self.watch(picked, logits)
        out = self.experts[0](flat) if x.is_meta else self._sorted(flat, self.alias[picked])
        return (out * chance[:, None]).reshape(x.shape)

    def _sorted(self, x: Tensor, which: Tensor) -> Tensor:
        """Every token through its distinct expert, one product for each that was hit."""
        order = which.argsort(stable=True)
        numbers, counts = which.unique(return_counts=True)
        groups = x[order].split(counts.tolist())
        answers = [self.experts[number](group) for number, group in zip(numbers.tolist(), groups, strict=True)]
        return torch.empty_like(x).index_copy_(0, order, torch.cat(answers))


class SwitchAttention(nn.Module):
    """T5's attention of queries over keys, without scale and biases."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def queries(self, x: Tensor) -> Tensor:
        """[batch, heads, tokens, size]."""
        return self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of what is looked at, both [batch, heads, tokens, size]."""
        k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.k, self.v))
        return k, v

    def over(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """The output map of what is attended, [batch, tokens, width]; `bias` [1, heads, queries, keys]."""
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.out(attended.transpose(1, 2).flatten(2))


class SwitchBlock(nn.Module):
    """Self-attention, in the decoder attention over the encoder's features, and a network or a mixture."""

    def __init__(self, width: int, heads: int, network: nn.Module, cross: bool):
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=EPS)
        self.attention = SwitchAttention(width, heads)
        self.norm_cross = nn.RMSNorm(width, eps=EPS) if cross else None
        self.cross = SwitchAttention(width, heads) if cross else None
        self.norm2 = nn.RMSNorm(width, eps=EPS)
        self.network = network

    def read(self, x: Tensor, bias: Tensor) -> Tensor:
        """Features of the encoder."""
        y = self.norm1(x)
        x = x + self.attention.over(self.attention.queries(y), *self.attention.keys(y), bias)
        return x + self.network(self.norm2(x))

    def step(self, x: Tensor, bias: Tensor, before: Pair | None, memory: Pair) -> tuple[Tensor, Pair]:
        """Features of the decoder's tokens that follow, and the keys and values after them."""
        assert self.cross is not None and self.norm_cross is not None
        y = self.norm1(x)
        k, v = self.attention.keys(y)
        kept = pair(k, v) if before is None else before.extended(k, v)
        x = x + self.attention.over(self.attention.queries(y), kept.k.filled, kept.v.filled, bias)
        seen = self.cross.queries(self.norm_cross(x))
        x = x + self.cross.over(seen, memory.k.filled, memory.v.filled, None)
        return x + self.network(self.norm2(x)), kept


@dataclass(frozen=True)
class SwitchCache(Kept):
    """Per layer keys and values of the decoder's own tokens, and of the encoder's features."""

    own: tuple[Pair, ...]
    memory: tuple[Pair, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the filled positions."""
        return sum(part.bytes for part in (*self.own, *self.memory))

    @property
    def seen(self) -> int:
        """Tokens of the decoder."""
        return self.own[0].used


class Switch(Generator):
    """Encoder, decoder and head."""

    def __init__(self, width: int, heads: int, hidden: int, experts: int, layers: int, vocabulary: int, length: int):
        super().__init__()
        self.vocabulary, self.length, self.width = vocabulary, length, width
        self.embed = nn.Embedding(vocabulary, width)

        def block(place: int, cross: bool) -> SwitchBlock:
            network = Mixture(width, hidden, experts) if place % 2 else Expert(width, hidden)
            return SwitchBlock(width, heads, network, cross)

        self.encoder: Any = nn.ModuleList(block(place, False) for place in range(layers))
        self.decoder: Any = nn.ModuleList(block(place, True) for place in range(layers))
        self.reading, self.writing = nn.Embedding(BUCKETS, heads), nn.Embedding(BUCKETS, heads)
        self.norm_read, self.norm_write = nn.RMSNorm(width, eps=EPS), nn.RMSNorm(width, eps=EPS)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight
        self._initialise(width, hidden)

    def _initialise(self, width: int, hidden: int) -> None:
        """T5's: queries by 1 / sqrt(width x head), other maps by their inputs, so that attention needs no scale."""
        for name, weight in self.named_parameters():
            if weight.is_meta or weight.dim() < 2:
                continue
            inner = hidden if name.endswith("wo.weight") else width
            size = width // self.encoder[0].attention.heads if name.endswith(".q.weight") else 1
            std = 1.0 if name.startswith("embed") else (inner * size) ** -0.5
            nn.init.normal_(weight, std=0.1 if name.startswith(("reading", "writing")) else std)

    def mixtures(self) -> list[tuple[str, Mixture]]:
        """Mixtures by name in the order of the forward: those of the encoder, then those of the decoder."""
        return [(name, part) for name, part in self.named_modules() if isinstance(part, Mixture)]

    def encode(self, ids: Tensor) -> Tensor:
        """Features of the encoder, [batch, tokens, width]."""
        x = self.embed(ids)
        bias = self._bias(self.reading, 0, ids.shape[1], ids.shape[1], both_ways=True)
        for block in self.encoder:
            x = block.read(x, bias)
        return self.norm_read(x)

    def _memory(self, features: Tensor) -> tuple[Pair, ...]:
        seen = [block.cross.keys(features) for block in self.decoder]
        return tuple(pair(k, v, room=0) for k, v in seen)

    def _written(self, ids: Tensor, cache: SwitchCache) -> tuple[Tensor, SwitchCache]:
        """Logits [batch, tokens, vocabulary] of the decoder's tokens that follow, and the cache."""
        seen = cache.seen if cache.own else 0
        x = self.embed(ids)
        bias = self._bias(self.writing, seen, ids.shape[1], seen + ids.shape[1], both_ways=False)
        own = []
        for place, block in enumerate(self.decoder):
            x, kept = block.step(x, bias, cache.own[place] if cache.own else None, cache.memory[place])
            own.append(kept)
        # T5 scales what a tied head reads
        return self.head(self.norm_write(x) * self.width**-0.5), SwitchCache(tuple(own), cache.memory)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position, [batch, tokens, vocabulary]; zeros before the last token that the encoder reads."""
        half = (ids.shape[1] + 1) // 2
        memory = self._memory(self.encode(ids[:, :half]))
        said, _ = self._written(ids[:, half - 1 :], SwitchCache((), memory))
        return F.pad(said, (0, 0, half - 1, 0))

    def prefill(self, ids: Tensor) -> tuple[Tensor, SwitchCache]:
        """Logits after a prompt [batch, vocabulary], which the encoder reads, and the cache."""
        said, cache = self._written(ids[:, -1:], SwitchCache((), self._memory(self.encode(ids))))
        return said[:, -1], cache

    def decode(self, ids: Tensor, cache: SwitchCache) -> tuple[Tensor, SwitchCache]:
        """Logits of the next position after one more token, and the cache."""
        said, cache = self._written(ids, cache)
        return said[:, -1], cache

    def cache_bits(self) -> dict[str, float]:
        """Bits of one cached number: its own."""
        own = 8.0 * self.embed.weight.element_size()
        return {"nominal": own, "stored": own}

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids."""
        return (torch.randint(self.vocabulary, (batch, self.length), device=self.embed.weight.device),)

    def _bias(self, table: nn.Embedding, start: int, queries: int, keys: int, both_ways: bool) -> Tensor:
        """Added to the scores, [1, heads, queries, keys]; -inf where a decoder must not look."""
        device = table.weight.device
        place = torch.arange(start, start + queries, device=device)[:, None]
        distance = torch.arange(keys, device=device) - place
        bias = table(bucket(distance, both_ways)).permute(2, 0, 1)[None]
        return bias if both_ways else bias.masked_fill(distance > 0, -torch.inf)


def bucket(distance: Tensor, both_ways: bool) -> Tensor:
    """T5's bucket of a distance key - query: exact when near, logarithmic up to 128, of 32 in all."""
    buckets = BUCKETS // 2 if both_ways else BUCKETS
    offset = (distance > 0).long() * buckets if both_ways else torch.zeros_like(distance)
    far = distance.abs() if both_ways else (-distance).clamp(min=0)
    exact = buckets // 2
    grown = torch.log(far.clamp(min=1).float() / exact) / math.log(FURTHEST / exact) * (buckets - exact)
    return offset + torch.where(far < exact, far, (exact + grown.long()).clamp(max=buckets - 1))


def switch(
    *, width: PositiveInt = 768, heads: PositiveInt = 12, hidden: PositiveInt = 3072, experts: PositiveInt = 32,
    layers: PositiveInt = 12, vocabulary: PositiveInt = 32128, length: PositiveInt = 512,
) -> Switch:  # fmt: skip
    """A Switch transformer in evaluation mode with random weights; the defaults are Switch-base with 32 experts.

    Args:
        width: d.
        heads: of every attention.
        hidden: F of networks and experts.
        experts: E of a mixture.
        layers: of encoder and of decoder.
        vocabulary: number of token ids.
        length: tokens of the example: the first half is read.

    Raises:
        ValueError: the heads do not divide the width.
    """
    if width % heads:
        raise ValueError(f"heads={heads} does not divide width={width}: choose a divisor")
    return Switch(width, heads, hidden, experts, layers, vocabulary, length).eval()


def parameters(*, width: int, heads: int, hidden: int, experts: int, layers: int, vocabulary: int) -> int:
    """All parameters: V d + 12 L d^2 + networks, mixtures and routers + 5 L d + 2 d of norms + 2 x 32 heads."""
    attention = 3 * layers * 4 * width**2
    expert = 2 * width * hidden
    mixtures = layers // 2 * 2
    networks = (2 * layers - mixtures) * expert + mixtures * (experts * expert + width * experts)
    norms = (5 * layers + 2) * width
    return vocabulary * width + attention + networks + norms + 2 * BUCKETS * heads
