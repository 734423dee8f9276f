"""MCUFormer's operator scheduling in plain PyTorch: operators that overwrite their input, slice by slice.

A reconstruction of arXiv:2310.16898, section 3.3: (a) rows of patches are embedded one at a time into the buffer of
tokens; (b) LayerNorm and MLP run over slices of tokens and are added where the tokens lie, so that the hidden tokens
of a slice alone are there; (c) q k^T, softmax and the product with v run for a head and a slice of queries, so that no
N x N map ever is. Keys and values of all tokens are written to one buffer before the first slice is overwritten.

Products are those of the plain forward, but for the rank part of q, k and v in low-rank layers, which is computed once
for keys and values and again for queries: depth N (C k + k^2) more, C k folded (`recomputed_macs`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count
from suites.common.vit import Tokens
from suites.tiny_memory.mcuformer_net import LowRank, McuFormerNet, scheduled_bytes


class Scheduled(nn.Module):
    """The network's forward over slices of tokens; its weights are the network's own.

    Args:
        net: plain ViT with low-rank layers.
        rows: tokens of a slice; 0 for all.
    """

    def __init__(self, net: McuFormerNet, rows: int):
        super().__init__()
        self.net, self.rows = net, rows or net.tokens

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)

    @property
    def engine_peak_bytes(self) -> float:
        """Modelled: the network's own where a slice is all tokens, else that of the schedule."""
        net, block = self.net, cast(Any, self.net.blocks[0])
        if self.rows >= net.tokens:
            return net.engine_peak_bytes
        return scheduled_bytes(net.width, net.tokens, net.ratio, net.rho, _inner(block.attn), self.rows)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]; without gradients, whoever calls."""
        with torch.no_grad():
            tokens = self.embed_rows(images)
            for block in self.net.blocks:
                self.attend(block, tokens)
                self.widen(block, tokens)
            return self.net.classify(Tokens(tokens, self.net.protected))

    def embed_rows(self, images: Tensor) -> Tensor:
        """All tokens with positions in one buffer, a row of patches after the other."""
        net = self.net
        if images.shape[-2:] != (net.resolution, net.resolution):
            raise ValueError(f"images are {tuple(images.shape[-2:])}, the model was built for {net.resolution} pixels")
        tokens = images.new_empty(len(images), net.tokens, net.width)
        assert net.cls_token is not None
        tokens[:, :1] = net.cls_token
        for row in range(net.grid):
            strip = images[:, :, row * net.patch : (row + 1) * net.patch]
            first = net.protected + row * net.grid
            tokens[:, first : first + net.grid] = net.patch_embed(strip)
        return tokens.add_(net.pos_embed)

    def attend(self, block: Any, tokens: Tensor) -> None:
        """Add attention to the tokens where they lie."""
        attention, heads = block.attn, block.attn.heads
        outer = attention.qkv.outer if isinstance(attention.qkv, LowRank) else attention.qkv
        inner = _inner(attention)
        stored = tokens.new_empty(tokens.shape[0], tokens.shape[1], 2 * inner)
        for start in range(0, tokens.shape[1], self.rows):
            part = slice(start, start + self.rows)
            stored[:, part] = _rows_of(attention.qkv, block.norm1(tokens[:, part]), outer, inner, 3 * inner)
        keys, values = stored.unflatten(-1, (2, heads, -1)).unbind(2)
        scale = (inner // heads) ** -0.5
        for start in range(0, tokens.shape[1], self.rows):
            part = slice(start, start + self.rows)
            queries = _rows_of(attention.qkv, block.norm1(tokens[:, part]), outer, 0, inner)
            own = queries.unflatten(-1, (heads, -1))
            for head in range(heads):
                scores = (own[:, :, head] * scale) @ keys[:, :, head].transpose(1, 2)
                _softmax_(scores)
                own[:, :, head] = scores @ values[:, :, head]  # the head's query is done with
                del scores
            tokens[:, part] += attention.proj(queries)

    def widen(self, block: Any, tokens: Tensor) -> None:
        """Add the MLP to the tokens where they lie."""
        for start in range(0, tokens.shape[1], self.rows):
            part = slice(start, start + self.rows)
            tokens[:, part] += block.mlp(block.norm2(tokens[:, part]))


def _inner(attention: Any) -> int:
    """Features of all heads."""
    outer = attention.qkv.outer if isinstance(attention.qkv, LowRank) else attention.qkv
    return outer.out_features // 3


def _softmax_(scores: Tensor) -> None:
    """Softmax over the last axis where the scores lie."""
    scores.sub_(scores.amax(dim=-1, keepdim=True)).exp_()
    scores.div_(scores.sum(dim=-1, keepdim=True))


def _rows_of(layer: Any, x: Tensor, outer: nn.Linear, first: int, last: int) -> Tensor:
    """Outputs `first` to `last` of a map that may be in factors."""
    features = layer.low(x) if isinstance(layer, LowRank) else x
    return F.linear(features, outer.weight[first:last], outer.bias[first:last])


def mcuformer(model: nn.Module, *, slice: Count = 0, fold: bool = False) -> Scheduled:
    """The same network and weights run over slices of tokens that are overwritten.

    Args:
        model: a low-rank ViT of this suite.
        slice: tokens of a slice; 0 is all of them, the plain forward's numbers.
        fold: whether the middle factor of every layer is multiplied into the first.

    Raises:
        ValueError: not such a network.
    """
    if not isinstance(model, McuFormerNet):
        raise ValueError("mcuformer runs a low-rank ViT of the suite tiny_memory (digits_mcuformer, mcuformer_240)")
    if fold:
        for part in model.modules():
            if isinstance(part, LowRank):
                part.fold()
    return Scheduled(model, slice).eval()


def recomputed_macs(width: int, tokens: int, depth: int, rank: int, folded: bool = False) -> int:
    """Products that slices compute again: the rank part of queries, where layers are in factors.

    Args:
        width: C.
        tokens: those of the class included.
        depth: blocks.
        rank: of the map to q, k and v; 0 for whole layers.
        folded: whether there are two factors.
    """
    return depth * tokens * (width * rank + (0 if folded else rank * rank))
