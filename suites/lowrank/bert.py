"""BERT's encoder with post-norm blocks, and the same blocks over patches of digits (Devlin et al. 2019, 1810.04805).

A layer of width C, H heads and hidden width F has 4 C^2 + 2 C F weights, 9 C + F biases and norms. L tokens take
L (4 C^2 + 2 C F) + 2 L^2 C products. Padded positions are masked out as keys.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.digits_data import CLASSES
from suites.common.gpt import Ffn
from suites.common.initial import draw

EPS = 1e-12


class BertAttention(nn.Module):
    """Attention in both directions with biases."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Attended features [batch, tokens, width]; `seen` [batch, tokens] is false at padding."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mask = None if seen is None else seen[:, None, None, :]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class BertLayer(nn.Module):
    """Attention and network, each added to its input and normalised; after each may stand an adapter."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attention: nn.Module = BertAttention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.network: nn.Module = Ffn(width, hidden)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.adapter1: nn.Module = nn.Identity()
        self.adapter2: nn.Module = nn.Identity()

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features of the same shape."""
        x = self.norm1(x + self.adapter1(self.attention(x, seen)))
        return self.norm2(x + self.adapter2(self.network(x)))


class Bert(nn.Module):
    """Embeddings, layers and, if wanted, the pooler over the first token."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int, vocabulary: int, length: int, pooler: bool):
        super().__init__()
        self.vocabulary, self.length, self.width = vocabulary, length, width
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(max(512, length), width)
        self.kinds = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.layers: Any = nn.ModuleList(BertLayer(width, heads, hidden) for _ in range(layers))
        self.pooler: nn.Module | None = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if pooler else None
        self.apply(_initialise)

    def forward(self, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features [batch, tokens, width], or of the pooler [batch, width].

        Args:
            ids: [batch, tokens].
            seen: [batch, tokens], false at padding; None where there is none.
        """
        x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]] + self.kinds.weight[0])
        for layer in self.layers:
            x = layer(x, seen)
        return x if self.pooler is None else self.pooler(x[:, 0])

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids."""
        return (torch.randint(self.vocabulary, (batch, self.length), device=self.words.weight.device),)

    def loss(self, outputs: Tensor, targets: Tensor | None) -> Tensor:
        """The mean square of the features: a stand-in loss, for the cost of a step."""
        del targets
        return outputs.float().square().mean()


class DigitsBert(nn.Module):
    """The same layers over the patches of a digit: mean of the tokens, ten logits."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int, patch: int, resolution: int):
        super().__init__()
        self.resolution, self.channels, self.classes, self.width = resolution, 1, CLASSES, width
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.places = nn.Parameter(torch.zeros((resolution // patch) ** 2, width))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.layers: Any = nn.ModuleList(BertLayer(width, heads, hidden) for _ in range(layers))
        self.head = nn.Linear(width, CLASSES)
        self.apply(_initialise)
        draw(self.places)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        x = self.norm(self.patches(images).flatten(2).mT + self.places)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(dim=1))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        like = self.head.weight
        return (torch.randn(batch, 1, self.resolution, self.resolution, device=like.device).to(like.dtype),)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        draw(module.weight)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def bert(
    *, width: PositiveInt = 768, heads: PositiveInt = 12, hidden: PositiveInt = 3072, layers: PositiveInt = 12,
    vocabulary: PositiveInt = 30522, length: PositiveInt = 128, pooler: bool = False,
) -> Bert:  # fmt: skip
    """BERT's encoder in evaluation mode with random weights; the defaults are BERT-base.

    Args:
        width: C.
        heads: H.
        hidden: F.
        layers: number of layers.
        vocabulary: word pieces.
        length: L, tokens of the example.
        pooler: whether the dense tanh layer over the first token follows, as in the released model.

    Raises:
        ValueError: the heads do not divide the width.
    """
    _check(width, heads)
    return Bert(width, heads, hidden, layers, vocabulary, length, pooler).eval()


def digits_bert(
    *, width: PositiveInt = 64, heads: PositiveInt = 4, hidden: PositiveInt = 256, layers: PositiveInt = 3,
    patch: PositiveInt = 4, resolution: PositiveInt = 16,
) -> DigitsBert:  # fmt: skip
    """BERT's layers over patches of a digit, small enough to learn in a minute.

    Raises:
        ValueError: the heads do not divide the width, or the patches the picture.
    """
    _check(width, heads)
    if resolution % patch:
        raise ValueError(f"patch={patch} does not divide resolution={resolution}")
    return DigitsBert(width, heads, hidden, layers, patch, resolution).eval()


def _check(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"heads={heads} does not divide width={width}: choose a divisor")


def layer_macs(width: int, hidden: int, tokens: int) -> int:
    """Products of one dense layer: L (4 C^2 + 2 C F) + 2 L^2 C."""
    return tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
