"""Which channels of a ViT its answers need, by masking, and the narrower ViT that is left.

Source: ED-ViT, arXiv 2410.11650: three kinds of channels (residual width, heads, hidden channels of the MLP), each
ordered by the divergence of the answers that masking it causes. What is kept is cut out of the weights: the network
that is left is dense and narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Masks that are looked at together.
TOGETHER = 32


@dataclass(frozen=True)
class Kept:
    """What is kept, in order: residual channels, and of every block heads and hidden channels."""

    residual: Tensor
    heads: list[Tensor]
    hidden: list[Tensor]


@torch.no_grad()
def divergences(vit: Any, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Mean KL(plain answer || masked answer) of every channel of each kind.

    Returns:
        residual channels [width]; of every block its heads [heads] and hidden channels [hidden].
    """
    start = vit.embed(images).x
    plain = _through(vit, start, 0)
    own = _answers(vit, plain)
    residual = _scores(own, vit.width, lambda chosen: _masked_residual(vit, start, chosen))
    heads, hidden, x = [], [], start
    for place, block in enumerate(vit.blocks):
        mixed, attended = _by_head(block, x)
        heads.append(_scores(own, mixed.shape[1], partial(_without_heads, vit, x, mixed, place=place)))
        middle = x + attended
        inner = block.mlp.act(block.mlp.fc1(block.norm2(middle)))
        after = middle + block.mlp.fc2(inner)
        hidden.append(_scores(own, inner.shape[-1], partial(_without_hidden, vit, after, inner, place=place)))
        x = after
    return residual, heads, hidden


def _scores(own: Tensor, count: int, answers: Callable[[Tensor], Tensor]) -> Tensor:
    """Divergence for each of so many masks, from the answers [masks, images, classes] to a few of them at a time."""
    found = []
    for chosen in torch.arange(count, device=own.device).split(TOGETHER):
        masked = answers(chosen).log_softmax(-1)
        found.append(F.kl_div(masked, own.expand_as(masked), reduction="none", log_target=True).sum(-1).mean(-1))
    return torch.cat(found)


def _answers(vit: Any, x: Tensor) -> Tensor:
    return vit.head(vit.norm(x)[..., 0, :]).log_softmax(-1)


def _through(vit: Any, x: Tensor, start: int, mask: Tensor | None = None) -> Tensor:
    """Features [..., tokens, width] through the blocks from one on; a mask is put on the residual after each."""
    for block in list(vit.blocks)[start:]:
        x = x + block.attn(block.norm1(x))[0]
        x = x if mask is None else x * mask
        x = x + block.mlp(block.norm2(x))
        x = x if mask is None else x * mask
    return x


def _masked_residual(vit: Any, start: Tensor, chosen: Tensor) -> Tensor:
    masks = 1 - F.one_hot(chosen, vit.width).to(start)[:, None, None]
    flat, mask = _joined(start[None] * masks), masks.expand(-1, len(start), 1, -1).flatten(0, 1)
    return vit.head(vit.norm(_through(vit, flat, 0, mask))[:, 0]).unflatten(0, (len(chosen), len(start)))


def _by_head(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What every head adds, [images, heads, tokens, width], and all of it with the bias."""
    q, k, v = block.attn.project(block.norm1(x))
    y = F.scaled_dot_product_attention(q, k, v)
    weight = block.attn.proj.weight.unflatten(1, (block.attn.heads, -1))
    mixed = torch.einsum("bhtk,dhk->bhtd", y, weight)
    return mixed, mixed.sum(1) + block.attn.proj.bias


def _without_heads(vit: Any, x: Tensor, mixed: Tensor, chosen: Tensor, place: int) -> Tensor:
    block = vit.blocks[place]
    attended = mixed.sum(1) + block.attn.proj.bias
    middle = x + attended - mixed[:, chosen].transpose(0, 1)
    after = middle + block.mlp(block.norm2(middle))
    return _rest(vit, after, place)


def _without_hidden(vit: Any, after: Tensor, inner: Tensor, chosen: Tensor, place: int) -> Tensor:
    columns = vit.blocks[place].mlp.fc2.weight[:, chosen]
    taken = inner[..., chosen].permute(2, 0, 1)[..., None] * columns.T[:, None, None]
    return _rest(vit, after - taken, place)


def _rest(vit: Any, x: Tensor, place: int) -> Tensor:
    """Answers [masks, images, classes] of features behind a block."""
    found = _through(vit, _joined(x), place + 1)
    return vit.head(vit.norm(found)[:, 0]).unflatten(0, x.shape[:2])


def _joined(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def kept(vit: Any, narrow: Any, images: Tensor) -> Kept:
    """The channels with the largest divergences, as many as the narrower ViT has."""
    residual, heads, hidden = divergences(vit, images)
    count, wide = narrow.blocks[0].attn.heads, narrow.blocks[0].mlp.fc1.out_features
    return Kept(_best(residual, narrow.width), [_best(s, count) for s in heads], [_best(s, wide) for s in hidden])


def _best(scores: Tensor, count: int) -> Tensor:
    return scores.topk(count).indices.sort().values


@torch.no_grad()
def cut_out(vit: Any, narrow: Any, chosen: Kept) -> None:
    """Put the kept channels' weights into the narrower ViT; its classes are the same.

    The head of either may have other classes than the other: it is then left as it is.
    """
    r = chosen.residual
    narrow.patch_embed.proj.weight.copy_(vit.patch_embed.proj.weight[r])
    narrow.patch_embed.proj.bias.copy_(vit.patch_embed.proj.bias[r])
    narrow.pos_embed.copy_(vit.pos_embed[..., r])
    narrow.cls_token.copy_(vit.cls_token[..., r])
    for own, block, heads, hidden in zip(narrow.blocks, vit.blocks, chosen.heads, chosen.hidden, strict=True):
        _norm(own.norm1, block.norm1, r)
        _norm(own.norm2, block.norm2, r)
        size = block.attn.proj.in_features // block.attn.heads
        rows = (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()
        all_rows = torch.cat([rows + part * block.attn.heads * size for part in range(3)])
        own.attn.qkv.weight.copy_(block.attn.qkv.weight[all_rows][:, r])
        if block.attn.qkv.bias is not None:
            own.attn.qkv.bias.copy_(block.attn.qkv.bias[all_rows])
        own.attn.proj.weight.copy_(block.attn.proj.weight[r][:, rows])
        own.attn.proj.bias.copy_(block.attn.proj.bias[r])
        own.mlp.fc1.weight.copy_(block.mlp.fc1.weight[hidden][:, r])
        own.mlp.fc1.bias.copy_(block.mlp.fc1.bias[hidden])
        own.mlp.fc2.weight.copy_(block.mlp.fc2.weight[r][:, hidden])
        own.mlp.fc2.bias.copy_(block.mlp.fc2.bias[r])
    _norm(narrow.norm, vit.norm, r)
    if narrow.head.out_features == vit.head.out_features:
        narrow.head.weight.copy_(vit.head.weight[:, r])
        narrow.head.bias.copy_(vit.head.bias)


def _norm(own: Any, other: Any, chosen: Tensor) -> None:
    own.weight.copy_(other.weight[chosen])
    own.bias.copy_(other.bias[chosen])
