"""A decoder as GPT-2 and GPT-3 are (arXiv:2005.14165, table 2.1): pre-norm, learned positions, GELU, any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.cut_attention import CutAttention, CutMlp
from suites.common.initial import draw

__all__ = ["Gpt", "gpt", "load_checkpoint"]


class GptBlock(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CutAttention(width, heads, width // heads, width // heads, causal=True)
        self.mlp = CutMlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        x = x + self.attn(self.norm1(x))[0]
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """Embeddings, blocks, a norm, a head without bias."""

    def __init__(self, width: int, layers: int, heads: int, vocabulary: int, length: int, tied: bool, tokens: int):
        super().__init__()
        self.vocabulary, self.length, self.width, self.tokens_each = vocabulary, length, width, tokens
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(GptBlock(width, heads, 4 * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                draw(module.weight)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position, [batch, tokens, vocabulary]."""
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids."""
        shape = (batch, min(self.length, self.tokens_each))
        return (torch.randint(self.vocabulary, shape, device=self.norm.weight.device),)


def gpt(
    *,
    width: PositiveInt = 128,
    layers: PositiveInt = 4,
    heads: PositiveInt = 4,
    vocabulary: PositiveInt = 256,
    length: PositiveInt = 256,
    tied: bool = True,
    tokens: PositiveInt = 128,
) -> Gpt:
    """A decoder in evaluation mode with random weights; the defaults read bytes and learn in minutes.

    Args:
        width: features per token, a multiple of `heads`.
        layers: blocks.
        heads: of each attention.
        vocabulary: ids.
        length: positions.
        tied: whether embedding and head are one table.
        tokens: of an example, `length` at most.

    Raises:
        ValueError: heads that do not divide the width.
    """
    if width % heads:
        raise ValueError(f"width={width} is no multiple of heads={heads}: choose heads that divide it")
    return Gpt(width, layers, heads, vocabulary, length, tied, tokens).eval()


def token_macs(width: int, layers: int, length: int, vocabulary: int, sparsity: float = 0.0) -> float:
    """Products per token: (1 - s) 12 d^2 n + 2 L d n + V d (the attention over all L positions, uncut)."""
    return (1 - sparsity) * 12 * width**2 * layers + 2 * length * width * layers + vocabulary * width
