"""Token Transforming, a reconstruction: many tokens into fewer by one soft matrix, without training.

The paper's own matrix could not be read. This one follows its description: informative tokens are chosen by the
attention they receive, and each becomes a mean of all tokens weighted by a softmax over the similarity of keys.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, KeepRate, Positive
from suites.common.vit import Heads, Reducer, Tokens, ViT
from suites.vit_tokens.schedules import check_blocks, rates_per_stage
from suites.vit_tokens.scores import as_reducible, attention_received, follow, install, rows


def token_transforming(
    model: nn.Module,
    *,
    keep_rate: KeepRate | list[KeepRate] = 0.7,
    temperature: Positive = 0.05,
    at: Blocks | None = None,
) -> ViT:
    """The ViT that transforms its tokens into fewer by Y = W X at some blocks.

    Args:
        model: a ViT of suites.common.
        keep_rate: tokens left as a share of the patches, rounded up; one number, or one per block in `at`.
        temperature: of the softmax over cosines of keys; towards 0 W selects, large it averages everything.
        at: blocks, counted from 1; None for the quarters, which are 4, 7 and 10 of 12.

    Raises:
        ValueError: not such a model, a rate outside (0, 1], or blocks that it does not have.
    """
    vit = as_reducible(model, "token_transforming")
    blocks = check_blocks(at, vit.depth)
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be > 0 (depth {vit.depth})")
    rates = rates_per_stage(keep_rate, len(blocks), "keep_rate", vit.depth)
    patches = vit.grid**2
    transforms: dict[int, Reducer] = {}
    for number, rate in zip(blocks, rates, strict=True):
        keep = math.ceil(rate * patches)
        if keep < patches:  # else nothing is removed here, and attention may stay fused
            vit.blocks[number - 1].attn.keep_probabilities = True  # type: ignore[union-attr]
            transforms[number] = Transform(rate, temperature)
        patches = keep
    return install(vit, transforms)


class Transform(Reducer):
    """Y = W X with special rows one-hot; costs 2 M N C MACs, which are part of the network's own."""

    charged_to = "network"

    def __init__(self, keep_rate: float, temperature: float):
        super().__init__()
        self.keep_rate, self.temperature = keep_rate, temperature

    def forward(self, tokens: Tokens, heads: Heads | None) -> Tokens:
        """Special tokens and ceil(rate x patches) mixtures, in raster order of the tokens they are centred on."""
        assert heads is not None
        special = tokens.protected
        keep = math.ceil(self.keep_rate * (tokens.count - special))
        if keep >= tokens.count - special:
            return tokens
        received = attention_received(heads)[:, special:]
        chosen = received.topk(keep, dim=-1).indices.sort(dim=-1).values + special
        w = self.matrix(heads, chosen)
        x = torch.cat([tokens.x[:, :special], w @ tokens.x], dim=1)
        owner = None if tokens.owner is None else follow(tokens.owner, self._places(w, special))
        return Tokens(x, special, owner=owner)

    def matrix(self, heads: Heads, chosen: Tensor) -> Tensor:
        """Rows of W for chosen tokens [batch, m]: softmax of cosines of their keys to all, [batch, m, tokens]."""
        batch, _, count, _ = heads.k.shape
        keys = F.normalize(heads.k.transpose(1, 2).reshape(batch, count, -1), dim=-1)
        return (rows(keys, chosen) @ keys.transpose(-2, -1) / self.temperature).softmax(dim=-1)

    def _places(self, w: Tensor, special: int) -> Tensor:
        """Each old token's place: where most of its weight went; special tokens stay."""
        places = w.argmax(dim=1) + special
        places[:, :special] = torch.arange(special, device=w.device)
        return places
