"""How much tokens matter, from the heads of an attention whose fused kernel keeps no probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.vit import Heads, Reducer, ViT, attention_probabilities


def class_attention(heads: Heads, key_bias: Tensor | None, protected: int) -> Tensor:
    """Attention of the class token to each patch token, averaged over heads, [batch, tokens - protected].

    One row of the probabilities is computed anew from query and keys: tokens x width MACs.
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


def as_reducible(model: nn.Module, method: str, *, needs_class_token: bool = False) -> ViT:
    """The model, if the method can work on it.

    Raises:
        ValueError: it is not a ViT of suites.common, or has no class token where one is needed.
    """
    if not isinstance(model, ViT):
        raise ValueError(
            f"{method} works on the ViT of suites.common, not on {type(model).__name__}: take deit_small, vit_base, ... "
            "or timm:NAME(native=True)"
        )
    if needs_class_token and model.cls_token is None:
        raise ValueError(f"{method} ranks tokens by the class token's attention: build the model with class_token=True")
    return model


def install(model: ViT, reducers: dict[int, Reducer]) -> ViT:
    """The model with reducers between attention and MLP of the given blocks (counted from 1).

    Raises:
        ValueError: a block has one already.
    """
    for number, reducer in reducers.items():
        block = model.blocks[number - 1]
        if block.reduce is not None:
            raise ValueError(f"block {number} already has {type(block.reduce).__name__}: apply one method per model")
        block.reduce = reducer
    return model
