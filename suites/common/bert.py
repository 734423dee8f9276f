"""BERT (Devlin et al. 2019, arXiv:1810.04805): encoder with pooler, at any heads, hidden sizes and widths.

Post-norm blocks, learned positions, token types, GELU. Every layer's number of heads and hidden features is a setting.
A layer of width C, hidden width F and all heads has 4 C^2 + 2 C F weights, 9 C + F biases and norms, and takes
L (4 C^2 + 2 C F) + 2 L^2 C products for L tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.cut_attention import CutAttention, CutMlp
from suites.common.initial import draw

__all__ = ["Bert", "BertLayer", "bert", "encoder_macs", "load_checkpoint"]

EPS = 1e-12


class BertLayer(nn.Module):
    """Attention and MLP, a norm behind each residual; a layer without heads or hidden features leaves that part out.

    Both parts may be replaced by others with the same ends: `attn(x, key_bias)` gives features and whatever else.
    """

    attn: nn.Module | None
    mlp: nn.Module | None

    def __init__(self, width: int, heads: int, size: int, hidden: int):
        super().__init__()
        self.attn = CutAttention(width, heads, size, size) if heads else None
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = CutMlp(width, hidden) if hidden else None
        self.norm2 = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features of the same shape; `seen` [batch, tokens] is false at padding, which is no key."""
        x = self.norm1(x if self.attn is None else x + self.attn(x, seen)[0])
        return self.norm2(x if self.mlp is None else x + self.mlp(x))


class Bert(nn.Module):
    """Embeddings, layers, and a pooler on the first token where one is wanted."""

    def __init__(
        self, width: int, heads: list[int], size: int, ffn: list[int], length: int, vocabulary: int, pooler: bool
    ):
        super().__init__()
        self.length, self.vocabulary, self.width = length, vocabulary, width
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(512, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.blocks = nn.ModuleList(BertLayer(width, h, size, f) for h, f in zip(heads, ffn, strict=True))
        self.pooler: nn.Module | None = nn.Linear(width, width) if pooler else None
        self.squash: nn.Module = nn.Tanh()
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                draw(module.weight)

    def encode(self, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features of every token, [batch, tokens, width]; `seen` [batch, tokens] is false at padding."""
        at = torch.arange(ids.shape[1], device=ids.device)
        x = self.words(ids) + self.positions(at) + self.types(torch.zeros_like(ids))
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, seen)
        return x

    def forward(self, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        """The pooled first token, [batch, width], of ids [batch, tokens]; without a pooler the features of all."""
        x = self.encode(ids, seen)
        return x if self.pooler is None else self.squash(self.pooler(x[:, 0]))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids."""
        return (torch.randint(self.vocabulary, (batch, self.length), device=self.words.weight.device),)


def bert(
    *,
    width: PositiveInt = 768,
    layers: PositiveInt = 12,
    size: PositiveInt = 64,
    heads: Counts | None = None,
    ffn: Counts | None = None,
    length: PositiveInt = 128,
    vocabulary: PositiveInt = 30522,
    pooler: bool = True,
) -> Bert:
    """BERT in evaluation mode with random weights; the defaults are BERT-base.

    Args:
        width: hidden features.
        layers: of the encoder.
        size: of a head.
        heads: of each layer, 0 for none; None for width / size.
        ffn: hidden features of each MLP, 0 for none; None for four times the width.
        length: tokens of the example, at most 512.
        vocabulary: ids.
        pooler: whether the dense tanh layer over the first token follows, as in the released model; without it the
            outputs are the encoder's.

    Raises:
        ValueError: another number of entries, or too many tokens.
    """
    if length > 512:
        raise ValueError(f"length={length}: BERT has 512 positions")
    heads = [width // size] * layers if heads is None else list(heads)
    ffn = [4 * width] * layers if ffn is None else list(ffn)
    for given, what in ((heads, "heads"), (ffn, "ffn")):
        if len(given) != layers:
            raise ValueError(f"{what} has {len(given)} entries and the encoder has {layers} layers")
    return Bert(width, heads, size, ffn, length, vocabulary, pooler).eval()


def encoder_macs(width: int, heads: list[int], size: int, ffn: list[int], length: int) -> int:
    """Products of the encoder: per token 4 d h s of each layer's attention and 2 d f, and 2 L h s for every token."""
    each = sum(4 * width * h * size + 2 * length * h * size + 2 * width * f for h, f in zip(heads, ffn, strict=True))
    return length * each
