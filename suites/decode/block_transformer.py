"""Block Transformer (Ho et al. 2024, arXiv 2406.02657): a lower half over blocks, an upper half inside them.

The embedder concatenates the narrow embeddings of a block's tokens to one vector. The block decoder is causal over
blocks; its output after a block is mapped to two prefix vectors, from which the token decoder spells the next block,
attending only to [prefix, prefix, tokens of the block]. Per block of 4 one block step and 5 token positions run; the
token decoder's cache ends with its block, so the cache that stays is 1/8 of a plain decoder's of as many layers.

A sequence starts with one block of padding; a prompt that does not fill its last block is padded on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Attention, DecoderCache, Generator
from suites.common.decoder_cache import Keeper, Kept
from suites.common.decoder_shape import LayerShape
from suites.common.initial import draw
from suites.common.rotary import Rotation, rotation

PREFIX = 2


class Layer(nn.Module):
    """Pre-norm attention and a two-layer network of four times the width, as in GPT-NeoX, without biases."""

    def __init__(self, width: int, heads: int, room: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, LayerShape(heads, heads, width // heads, 4 * width))
        self.attention.keeper = Keeper(room)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def network(self, x: Tensor) -> Tensor:
        """What the network adds."""
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def forward(self, x: Tensor, by: Rotation) -> Tensor:
        """Features of a whole sequence."""
        return self.network(x + self.attention(self.norm1(x), by))

    def prefill(self, x: Tensor, by: Rotation) -> tuple[Tensor, Kept]:
        """Features of a first stretch, and what it leaves behind."""
        attended, kept = self.attention.prefill(self.norm1(x), by)
        return self.network(x + attended), kept

    def step(self, x: Tensor, by: Rotation, kept: Any) -> tuple[Tensor, Kept]:
        """Features of what follows, and what is kept afterwards."""
        attended, kept = self.attention.step(self.norm1(x), by, kept)
        return self.network(x + attended), kept


class Stack(nn.Module):
    """Layers over one kind of position, blocks or tokens."""

    def __init__(self, width: int, heads: int, layers: int, room: int):
        super().__init__()
        self.size = width // heads
        self.layers: Any = nn.ModuleList(Layer(width, heads, room) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Features of a whole sequence."""
        by = rotation(0, x.shape[1], self.size, x)
        for layer in self.layers:
            x = layer(x, by)
        return x

    def prefill(self, x: Tensor) -> tuple[Tensor, DecoderCache]:
        """Features of a first stretch, and the cache."""
        by, kept = rotation(0, x.shape[1], self.size, x), []
        for layer in self.layers:
            x, left = layer.prefill(x, by)
            kept.append(left)
        return x, DecoderCache(tuple(kept), x.shape[1])

    def step(self, x: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Features of what follows, and the cache."""
        by, kept = rotation(cache.seen, x.shape[1], self.size, x), []
        for layer, before in zip(self.layers, cache.kept, strict=True):
            x, left = layer.step(x, by, before)
            kept.append(left)
        return x, DecoderCache(tuple(kept), cache.seen + x.shape[1])


@dataclass(frozen=True)
class BlockCache:
    """The block decoder's cache, the token decoder's of the running block, and that block's ids so far."""

    blocks: DecoderCache
    tokens: DecoderCache
    pending: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of both caches and of the pending ids."""
        return self.blocks.bytes + self.tokens.bytes + self.pending.numel() * self.pending.element_size()


class BlockTransformer(Generator):
    """Embedder, block decoder and token decoder."""

    def __init__(self, width: int, heads: int, block_layers: int, token_layers: int, block: int, vocabulary: int):
        super().__init__()
        self.width, self.block, self.vocabulary = width, block, vocabulary
        self.embed_block = nn.Embedding(vocabulary + 1, width // block)  # the last row is padding
        self.blocks = Stack(width, heads, block_layers, room=64)
        self.block_norm = nn.LayerNorm(width, bias=False)
        self.expand = nn.Linear(width, PREFIX * width, bias=False)
        self.embed_token = nn.Embedding(vocabulary + 1, width)
        self.tokens = Stack(width, heads, token_layers, room=block)
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                draw(module.weight)

    def vectors(self, ids: Tensor) -> Tensor:
        """One vector per block of ids [batch, whole blocks], [batch, blocks, width]."""
        return self.embed_block(ids).unflatten(1, (-1, self.block)).flatten(2)

    def prefixes(self, x: Tensor) -> Tensor:
        """The prefix vectors of the block that follows, [..., 2, width], from block features [..., width]."""
        return self.expand(self.block_norm(x)).unflatten(-1, (PREFIX, -1))

    def padded(self, ids: Tensor, left: int, right: int) -> Tensor:
        """Ids with padding."""
        return F.pad(ids, (left, right), value=self.vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of what follows each position, [batch, tokens, vocabulary], all blocks in parallel."""
        tokens = ids.shape[1]
        count = tokens // self.block + 1  # the block of the token after the last is spelt as well
        whole = self.padded(ids, 0, count * self.block - tokens)
        x = self.blocks(self.vectors(self.padded(whole[:, : -self.block], self.block, 0)))
        inside = self.embed_token(whole).unflatten(1, (count, self.block))
        inside = torch.cat([self.prefixes(x), inside[:, :, :-1]], dim=2)
        spelt = self.tokens(inside.flatten(0, 1))[:, PREFIX - 1 :].unflatten(0, (-1, count)).flatten(1, 2)
        return self.head(self.norm(spelt[:, 1 : tokens + 1]))

    def prefill(self, ids: Tensor) -> tuple[Tensor, BlockCache]:
        """Logits of the next position and the cache: the prompt runs through the block decoder alone."""
        left = self.block + -ids.shape[1] % self.block
        x, blocks = self.blocks.prefill(self.vectors(self.padded(ids, left, 0)))
        return self._opened(x[:, -1:], blocks, ids[:, :0])

    def decode(self, ids: Tensor, cache: BlockCache) -> tuple[Tensor, BlockCache]:
        """Logits after one more token [batch, 1]; the fourth closes its block and opens the next."""
        if ids.shape[1] != 1:
            raise ValueError(f"one token at a time can follow, not {ids.shape[1]}: a block opens in between")
        pending = torch.cat([cache.pending, ids], dim=1)
        if pending.shape[1] == self.block:
            x, blocks = self.blocks.step(self.vectors(pending), cache.blocks)
            return self._opened(x, blocks, ids[:, :0])
        x, tokens = self.tokens.step(self.embed_token(ids), cache.tokens)
        return self.head(self.norm(x[:, -1])), BlockCache(cache.blocks, tokens, pending)

    def _opened(self, x: Tensor, blocks: DecoderCache, pending: Tensor) -> tuple[Tensor, BlockCache]:
        spelt, tokens = self.tokens.prefill(self.prefixes(x)[:, 0])
        return self.head(self.norm(spelt[:, -1])), BlockCache(blocks, tokens, pending)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own; there are fewer numbers, not smaller ones."""
        own = 8.0 * self.head.weight.element_size()
        return {"nominal": own, "stored": own}


def block_transformer(
    *,
    width: PositiveInt = 192,
    heads: PositiveInt = 6,
    block_layers: PositiveInt = 3,
    token_layers: PositiveInt = 3,
    block: PositiveInt = 4,
    vocabulary: PositiveInt = 256,
) -> BlockTransformer:
    """A Block Transformer in evaluation mode with random weights.

    Args:
        width: features per block and per token; a multiple of `heads` and of `block`.
        heads: attention heads.
        block_layers: layers over blocks.
        token_layers: layers inside a block.
        block: tokens of a block.
        vocabulary: number of token ids; one more row stands for padding.

    Raises:
        ValueError: the width does not divide, or a head has an odd size.
    """
    if width % heads or width % block:
        raise ValueError(f"width={width} is not a multiple of heads={heads} and of block={block}")
    if width // heads % 2:
        raise ValueError(
            f"width={width} over heads={heads} gives heads of {width // heads}, which cannot be rotated in pairs: "
            "take an even size"
        )
    return BlockTransformer(width, heads, block_layers, token_layers, block, vocabulary).eval()


def layer_weights(width: int, layers: int) -> int:
    """Weights of so many layers without norms: 12 d^2 each."""
    return 12 * width**2 * layers


def layer_macs_per_token(width: int, block_layers: int, token_layers: int, block: int = 4) -> float:
    """Products with layer weights per generated token: 12 d^2 (L_b + (block + 1) L_t) / block."""
    return 12 * width**2 * (block_layers + (block + PREFIX - 1) * token_layers) / block


def cache_bytes_per_token(width: int, block_layers: int, block: int = 4, number: int = 2) -> float:
    """Bytes that stay of one token: one pair of vectors per block and layer."""
    return 2 * block_layers * width * number / block


def macs_block(width: int, block_layers: int, token_layers: int, vocabulary: int, blocks: int, block: int = 4) -> int:
    """Products of generating one whole block, the block decoder seeing `blocks` positions, its own included."""
    over = block_layers * (12 * width**2 + 2 * width * blocks) + PREFIX * width**2
    opening = token_layers * (PREFIX * 12 * width**2 + 2 * width * PREFIX**2)
    steps = sum(token_layers * (12 * width**2 + 2 * width * (PREFIX + i)) for i in range(1, block))
    return over + opening + steps + block * vocabulary * width
