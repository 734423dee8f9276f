"""A GPT with pre-norm LayerNorm blocks, biases and a GELU network, small enough to learn bytes or of a paper's size.

A block is x + out(attention(qkv(norm1 x))), then x + fc2(gelu(fc1(norm2 x))). Positions are rotary or a learned table.
Of width d, F = hidden, H query heads and g key heads of size h:

- parameters of a block: d (H + 2 g) h + H h d + 2 d F weights, (H + 2 g) h + d + F + d biases, 4 d of two norms;
- the whole: blocks, V d of the embedding (again V d for an own head), 2 d of the last norm, T d of learned positions;
- products of N tokens: N x (weights of the blocks + V d) + 2 sum(H h) N^2.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import DecoderCache, Generator
from suites.common.decoder_cache import Keeper, Kept
from suites.common.initial import draw
from suites.common.rotary import rotated, rotation

Rotation = tuple[Tensor, Tensor]


class GptAttention(nn.Module):
    """Causal attention with biases; queries, keys and values come from one linear map or from three."""

    def __init__(self, width: int, heads: int, kv_heads: int, head: int, fused: bool):
        super().__init__()
        self.heads, self.kv_heads, self.head = heads, kv_heads, head
        sizes = [heads * head, kv_heads * head, kv_heads * head]
        self.qkv = nn.Linear(width, sum(sizes)) if fused else None
        self.q = None if fused else nn.Linear(width, sizes[0])
        self.k = None if fused else nn.Linear(width, sizes[1])
        self.v = None if fused else nn.Linear(width, sizes[2])
        self.sizes = sizes
        self.out = nn.Linear(heads * head, width)
        self.keeper = Keeper()

    def project(self, x: Tensor, by: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch, its heads, tokens, head], rotated where positions are rotary."""
        if self.qkv is not None:
            parts = self.qkv(x).split(self.sizes, dim=-1)
        else:
            assert self.q is not None and self.k is not None and self.v is not None
            parts = self.q(x), self.k(x), self.v(x)
        q, k, v = (part.unflatten(-1, (-1, self.head)).transpose(1, 2) for part in parts)
        return (q, k, v) if by is None else (rotated(q, by), rotated(k, by), v)

    def merge(self, attended: Tensor) -> Tensor:
        """The output map over all heads, [batch, tokens, width]."""
        return self.out(attended.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, by: Rotation | None) -> Tensor:
        """Attention of a whole sequence."""
        return self.merge(self.keeper.attend(*self.project(x, by)))

    def prefill(self, x: Tensor, by: Rotation | None) -> tuple[Tensor, Kept]:
        """Attention of a prompt, and what it leaves behind."""
        attended, kept = self.keeper.prefill(*self.project(x, by))
        return self.merge(attended), kept

    def step(self, x: Tensor, by: Rotation | None, kept: Any) -> tuple[Tensor, Kept]:
        """Attention of tokens that follow, and what is kept afterwards."""
        attended, kept = self.keeper.step(*self.project(x, by), kept)
        return self.merge(attended), kept


class Ffn(nn.Module):
    """fc2(gelu(fc1 x)); each map may be replaced by one with the same ends."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1: nn.Module = nn.Linear(width, hidden)
        self.fc2: nn.Module = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class GptBlock(nn.Module):
    """Pre-norm attention and network, each beside a residual."""

    def __init__(self, width: int, attention: GptAttention, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width)
        self.network = Ffn(width, hidden)

    def forward(self, x: Tensor, by: Rotation | None) -> Tensor:
        """Features of a whole sequence, [batch, tokens, width]."""
        x = x + self.attention(self.norm1(x), by)
        return x + self.network(self.norm2(x))

    def prefill(self, x: Tensor, by: Rotation | None) -> tuple[Tensor, Kept]:
        """Features of a prompt, and what it leaves behind."""
        attended, kept = self.attention.prefill(self.norm1(x), by)
        x = x + attended
        return x + self.network(self.norm2(x)), kept

    def step(self, x: Tensor, by: Rotation | None, kept: Any) -> tuple[Tensor, Kept]:
        """Features of tokens that follow, and what is kept afterwards."""
        attended, kept = self.attention.step(self.norm1(x), by, kept)
        x = x + attended
        return x + self.network(self.norm2(x)), kept


class Gpt(Generator):
    """Embedding, blocks, norm and head.

    Attributes:
        context: tokens of the example inputs.
        detach_lookup: whether the look-up in the table passes no gradient, so that a tied table trains as a head alone.
        settings: what it was built of, so that a method which learns from scratch can build it again.
    """

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        self.settings, self.detach_lookup = settings, False
        width, heads = settings["width"], settings["heads"]
        head = settings["head"] or width // heads
        self.vocabulary, self.context, self.head_size = settings["vocabulary"], settings["context"], head
        self.embed = nn.Embedding(self.vocabulary, width)
        learned = settings["positions"] == "learned"
        self.places = nn.Embedding(max(settings["longest"], self.context), width) if learned else None
        self.blocks: Any = nn.ModuleList(
            GptBlock(
                width,
                GptAttention(width, heads, settings["kv_heads"] or heads, head, settings["fused"]),
                settings["hidden"],
            )
            for _ in range(settings["layers"])
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.vocabulary, bias=False)
        self.apply(_initialise)
        with torch.no_grad():  # what is added to the residual must not grow with depth (GPT-2)
            blocks: Any = self.blocks
            for block in blocks:
                for last in (block.attention.out, block.network.fc2):
                    last.weight.mul_(1 / math.sqrt(2 * len(self.blocks)))
        if settings["tied"]:
            self.head.weight = self.embed.weight

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids, [batch, context]."""
        return (torch.randint(self.vocabulary, (batch, self.context), device=self.embed.weight.device),)

    def begin(self, ids: Tensor, start: int = 0) -> tuple[Tensor, Rotation | None]:
        """Embedded tokens, with their learned positions or beside the rotation of rotary ones.

        Raises:
            ValueError: there are more tokens than learned positions.
        """
        count, x = ids.shape[1], self.embed(ids)
        if self.detach_lookup:
            x = x.detach()
        if self.places is None:
            return x, rotation(start, count, self.head_size, self.embed.weight)
        if start + count > self.places.num_embeddings:
            raise ValueError(
                f"{start + count} tokens, and the table has {self.places.num_embeddings} learned positions: build the "
                f"model with longest={start + count}"
            )
        return x + self.places.weight[start : start + count], None

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position, [batch, tokens, vocabulary]."""
        x, by = self.begin(ids)
        for block in self.blocks:
            x = block(x, by)
        return self.head(self.norm(x))

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position [batch, vocabulary] and the cache; the head runs on that position alone."""
        x, by = self.begin(ids)
        kept = []
        for block in self.blocks:
            x, left = block.prefill(x, by)
            kept.append(left)
        return self.head(self.norm(x[:, -1])), DecoderCache(tuple(kept), ids.shape[1])

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position after further tokens [batch, one or more], and the cache."""
        x, by = self.begin(ids, cache.seen)
        kept = []
        for block, before in zip(self.blocks, cache.kept, strict=True):
            x, left = block.step(x, by, before)
            kept.append(left)
        return self.head(self.norm(x[:, -1])), DecoderCache(tuple(kept), cache.seen + ids.shape[1])

    def cache_bits(self) -> dict[str, float]:
        """Bits of one cached number: its own."""
        own = 8.0 * self.embed.weight.element_size()
        return {"nominal": own, "stored": own}

    def again(self, seed: int = 0) -> Gpt:
        """The same network as it starts from a seed, on the same device."""
        device = self.embed.weight.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Gpt(self.settings).to(device).eval()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        draw(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def gpt(
    *, width: PositiveInt = 128, layers: PositiveInt = 4, heads: PositiveInt = 4, kv_heads: PositiveInt | None = None,
    head: PositiveInt | None = None, hidden: PositiveInt = 512, vocabulary: PositiveInt = 256,
    positions: Literal["rotary", "learned"] = "rotary", longest: PositiveInt = 512, tied: bool = True,
    fused: bool = False, context: PositiveInt = 128,
) -> Gpt:  # fmt: skip
    """A GPT in evaluation mode with random weights; the defaults learn bytes in a minute.

    Args:
        width: d, features of a token.
        layers: number of blocks.
        heads: query heads.
        kv_heads: key and value heads, a divisor of `heads`; None for as many.
        head: size of a head; None for width / heads.
        hidden: F of the network.
        vocabulary: number of token ids.
        positions: rotary, or a learned table.
        longest: positions of the learned table; a longer context makes it longer.
        tied: whether embedding and head are one table.
        fused: whether queries, keys and values come from one linear map.
        context: tokens of a sequence of the example inputs and of a training step.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if head is None and width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}: choose heads that divide it, or set head")
    if positions == "rotary" and (head or width // heads) % 2:
        raise ValueError(f"a head of {head or width // heads} numbers cannot be rotated in pairs: make it even")
    if kv_heads is not None and heads % kv_heads:
        raise ValueError(f"kv_heads={kv_heads} does not divide heads={heads}: every key head serves equally many")
    return Gpt(
        {
            "width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "head": head, "hidden": hidden,
            "vocabulary": vocabulary, "positions": positions, "longest": longest, "tied": tied, "fused": fused,
            "context": context,
        }
    ).eval()  # fmt: skip


def as_gpt(model: nn.Module, method: str) -> Gpt:
    """The model, if it is a GPT of this file.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(model, Gpt):
        raise ValueError(f"{method} works on the GPTs of suites.common.gpt, not on {type(model).__name__}")
    return model


def block_weights(width: int, heads: int, hidden: int, kv_heads: int | None = None, head: int | None = None) -> int:
    """Weights of the linear maps of a block: d (H + 2 g) h + H h d + 2 d F."""
    size, groups = head or width // heads, kv_heads or heads
    return width * (2 * heads + 2 * groups) * size + 2 * width * hidden


def parameters(
    *, width: int, layers: int, heads: int, hidden: int, vocabulary: int, kv_heads: int | None = None,
    head: int | None = None, positions: int = 0, tied: bool = True,
) -> int:  # fmt: skip
    """All parameters of a GPT; `positions` is the length of a learned table, 0 where there is none."""
    size, groups = head or width // heads, kv_heads or heads
    biases = (heads + 2 * groups) * size + width + hidden + width
    block = block_weights(width, heads, hidden, kv_heads, head) + biases + 4 * width
    return layers * block + (1 if tied else 2) * vocabulary * width + 2 * width + positions * width


def forward_macs(
    *, width: int, layers: int, heads: int, hidden: int, vocabulary: int, tokens: int, kv_heads: int | None = None,
    head: int | None = None,
) -> int:  # fmt: skip
    """Products of one sequence of `tokens`, the head at every position and the whole square of attention."""
    size = head or width // heads
    linear = layers * block_weights(width, heads, hidden, kv_heads, head) + vocabulary * width
    return tokens * linear + 2 * layers * heads * size * tokens**2
