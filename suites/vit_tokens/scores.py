"""How much tokens matter, from the heads of an attention whose fused kernel keeps no probabilities."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.vit import Block, Heads, Reducer, Tokens, ViT, attention_probabilities


def class_attention(heads: Heads, key_bias: Tensor | None, protected: int) -> Tensor:
    """Attention of the class token to each patch token, averaged over heads, [batch, tokens - protected].

    One row of the probabilities is computed again from query and keys: tokens x width MACs.
    """
    mask = None if key_bias is None else key_bias[:, None, None, :]
    return attention_probabilities(heads.q[:, :, :1], heads.k, mask).mean(dim=1)[:, 0, protected:]


def attention_received(heads: Heads) -> Tensor:
    """Mean attention that each token receives over all queries and heads, [batch, tokens]."""
    assert heads.probabilities is not None, "the block's attention has to keep its probabilities"
    return heads.probabilities.mean(dim=(1, 2))


def key_metric(heads: Heads) -> Tensor:
    """Keys averaged over heads and scaled to length 1, [batch, tokens, head width]."""
    return F.normalize(heads.k.mean(dim=1), dim=-1)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """The rows of x [batch, n, width] that index [batch, m] names, [batch, m, width]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def new_positions(kept: Tensor, count: int) -> Tensor:
    """For each of `count` old tokens its place among `kept` [batch, m], or -1, [batch, count]."""
    places = torch.full((kept.shape[0], count), -1, dtype=kept.dtype, device=kept.device)
    return places.scatter(1, kept, torch.arange(kept.shape[1], device=kept.device).expand_as(kept))


def follow(owner: Tensor | None, places: Tensor) -> Tensor | None:
    """The source map after old token i moved to `places[:, i]`; -1 stays -1."""
    if owner is None:
        return None
    return torch.where(owner < 0, owner, places.gather(1, owner.clamp(min=0)))


def kept_index(score: Tensor, keep: int, special: int) -> Tensor:
    """Which tokens stay: the special ones and, in order, the `keep` patches of the highest score [batch, patches]."""
    kept = score.topk(keep, dim=-1).indices.sort(dim=-1).values + special
    return torch.cat([torch.arange(special, device=kept.device).expand(len(kept), -1), kept], dim=1)


def kept_in_order(tokens: Tokens, score: Tensor, keep: int) -> Tokens:
    """The special tokens and the `keep` patches with the highest score [batch, patches], in the order they stood in."""
    return selected(tokens, kept_index(score, keep, tokens.protected))


def selected(tokens: Tokens, index: Tensor) -> Tokens:
    """The tokens that index [batch, m] names, in its order, with all that travels with them."""
    owner = None if tokens.owner is None else follow(tokens.owner, new_positions(index, tokens.count))
    return replace(
        tokens,
        x=rows(tokens.x, index),
        size=None if tokens.size is None else tokens.size.gather(1, index),
        key_bias=None if tokens.key_bias is None else tokens.key_bias.gather(1, index),
        owner=owner,
    )


def as_reducible(model: nn.Module, method: str, *, needs_class_token: bool = False) -> ViT:
    """The model, if the method can work on it.

    Raises:
        ValueError: it is not a ViT of suites.common, has no class token where one is needed, or has a method already.
    """
    if not isinstance(model, ViT):
        raise ValueError(
            f"{method} works on the ViT of suites.common, not on {type(model).__name__}: take deit_small, vit_base, "
            "... or timm:NAME(native=True)"
        )
    if needs_class_token and model.cls_token is None:
        raise ValueError(f"{method} ranks tokens by the class token's attention: build the model with class_token=True")
    for number, block in enumerate(model.blocks, start=1):
        if not isinstance(block, Block):
            raise ValueError(f"block {number} already is a {type(block).__name__}: apply one method per model")
        taken = block.reduce or block.enter
        if taken is not None:
            raise ValueError(f"block {number} already has {type(taken).__name__}: apply one method per model")
    return model


def install(model: ViT, reducers: dict[int, Reducer]) -> ViT:
    """The model with reducers between attention and MLP of the given blocks (counted from 1)."""
    for number, reducer in reducers.items():
        model.blocks[number - 1].reduce = reducer
    return model


def enter(model: ViT, number: int, reducer: Reducer) -> None:
    """Put a reducer before the attention of a block (counted from 1)."""
    model.blocks[number - 1].enter = reducer
