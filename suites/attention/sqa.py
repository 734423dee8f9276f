"""Sparse query attention: fewer query heads than width / head (Filipek 2025, arXiv 2510.01817).

With d_h numbers a head, MHA has H = width / d_h query heads; SQA takes H_q < H of them and H_kv <= H_q key heads, and
the output maps H_q d_h numbers back to the width. The N^2 work falls with H_q; what a decode step reads depends on H_kv
alone. Variants: SQA H_q = H / 2, sSQA H_q = H_kv = H / 2, xSQA H_q <= H / 4, xSMQA H_q = H / 4 with one key head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Attention, Decoder
from suites.common.decoder_cache import Keeper, attend
from suites.common.decoder_shape import LayerShape, uniform
from suites.common.rotary import rotation

#: Query and key heads of the paper's variants where MHA has 16 heads.
VARIANTS = {
    "mha": (16, 16),
    "gqa": (16, 4),
    "mqa": (16, 1),
    "sqa": (8, 4),
    "ssqa": (8, 8),
    "xsqa": (4, 4),
    "xsmqa": (4, 1),
}


def sqa_encoder(
    *,
    query_heads: PositiveInt = 16,
    kv_heads: PositiveInt = 16,
    width: PositiveInt = 256,
    layers: PositiveInt = 2,
    head: PositiveInt = 16,
    hidden: PositiveInt = 688,
    vocabulary: PositiveInt = 256,
    causal: bool = False,
) -> Decoder:
    """An encoder of the house's blocks with so many query and key heads; causal it also generates.

    Raises:
        ValueError: key heads that do not divide the query heads, or a head of an odd size.
    """
    _check(query_heads, kv_heads, head)
    shape = uniform(
        width=width,
        layers=layers,
        heads=query_heads,
        kv_heads=kv_heads,
        head=head,
        hidden=hidden,
        vocabulary=vocabulary,
    )
    model = Decoder(shape).eval()
    if not causal:
        for block in model.blocks:
            block.attention.keeper = BothWays()
    return model


def sqa_layer(
    *,
    query_heads: PositiveInt = 16,
    kv_heads: PositiveInt = 16,
    width: PositiveInt = 256,
    head: PositiveInt = 16,
    length: PositiveInt = 2048,
    causal: bool = False,
) -> SqaLayer:
    """One attention layer as an operator on features [batch, tokens, width].

    Raises:
        ValueError: key heads that do not divide the query heads, or a head of an odd size.
    """
    _check(query_heads, kv_heads, head)
    return SqaLayer(query_heads, kv_heads, width, head, length, causal).eval()


def _check(query_heads: int, kv_heads: int, head: int) -> None:
    if head % 2:
        raise ValueError(f"a head of {head} numbers cannot be rotated in pairs: set an even head, such as {head + 1}")
    if query_heads % kv_heads:
        raise ValueError(
            f"kv_heads={kv_heads} does not divide query_heads={query_heads}: every key head serves equally many"
        )


class BothWays(Keeper):
    """Attention of a whole sequence in both directions."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention without a mask."""
        return attend(q, k, v)


class SqaLayer(nn.Module):
    """Projections and attention."""

    tolerance = 1e-4

    def __init__(self, query_heads: int, kv_heads: int, width: int, head: int, tokens: int, causal: bool):
        super().__init__()
        self.width, self.tokens, self.causal = width, tokens, causal
        self.attention = Attention(width, LayerShape(query_heads, kv_heads, head, 0))
        if not causal:
            self.attention.keeper = BothWays()

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random features."""
        like = self.attention.q.weight
        return (torch.randn(batch, self.tokens, self.width).to(like),)

    def forward(self, x: Tensor) -> Tensor:
        """Attended features of the same shape."""
        return self.attention(x, rotation(0, x.shape[1], self.attention.head, x))

    def reference(self, x: Tensor) -> Tensor:
        """The same with key heads repeated and scores written out."""
        attention = self.attention
        q, k, v = attention.project(x, rotation(0, x.shape[1], attention.head, x))
        k, v = (part.repeat_interleave(attention.heads // attention.kv_heads, dim=1) for part in (k, v))
        scores = q @ k.transpose(-2, -1) * attention.head**-0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), -torch.inf)
        return attention.merge(scores.softmax(dim=-1) @ v)


def layer_parameters(width: int, head: int, query_heads: int, kv_heads: int) -> int:
    """Weights of one layer: d (H_q + 2 H_kv) d_h + H_q d_h d."""
    return width * head * (2 * query_heads + 2 * kv_heads)


def layer_macs(width: int, head: int, query_heads: int, kv_heads: int, tokens: int) -> int:
    """Products of one layer: N x its weights + 2 N^2 H_q d_h."""
    return tokens * layer_parameters(width, head, query_heads, kv_heads) + 2 * tokens**2 * query_heads * head
