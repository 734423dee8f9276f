"""The transformers that heads, hidden features and dimensions are taken from, seen alike: ViT, BERT and GPT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suites.common.bert import Bert
from suites.common.cut_attention import CutAttention, CutMlp, linear_cut
from suites.common.vit import Attention, Mlp, ViT
from suites.pruning.layers import swap
from suites.pruning.nets.gpt import Gpt


def blocks_of(model: nn.Module, method: str) -> list[nn.Module]:
    """The blocks of a transformer, their attentions and MLPs made ones that can be cut; the function stays the same.

    Raises:
        ValueError: another network.
    """
    if not isinstance(model, ViT | Bert | Gpt):
        raise ValueError(
            f"{method} cuts the ViT and BERT of suites.common and this suite's GPT, not {type(model).__name__}"
        )
    for block in model.blocks:
        if isinstance(block.attn, Attention):
            size = block.attn.qkv.out_features // 3 // block.attn.heads
            opened = CutAttention(1, block.attn.heads, size, size)
            opened.qkv, opened.proj = block.attn.qkv, block.attn.proj
            block.attn = opened
        if isinstance(block.mlp, Mlp):
            mlp = CutMlp(1, 1)
            mlp.fc1, mlp.fc2, mlp.act = block.mlp.fc1, block.mlp.fc2, block.mlp.act
            block.mlp = mlp
    return list(model.blocks)


def unit_macs(block: nn.Module, tokens: int) -> tuple[int, int]:
    """Products of one head and of one hidden feature of a block, for so many tokens."""
    width = block.attn.proj.out_features  # type: ignore[union-attr]
    attention: CutAttention = block.attn  # type: ignore[assignment]
    qk, v = attention.qk, attention.v
    return tokens * (2 * width * (qk + v) + tokens * (qk + v)), 2 * tokens * width  # type: ignore[operator, return-value]


def hidden_width(model: nn.Module) -> int:
    """Features per token."""
    return int(model.width)  # type: ignore[arg-type]


@torch.no_grad()
def cut_hidden(model: nn.Module, keep: Tensor) -> None:
    """Go on with the given hidden dimensions alone, everywhere: embeddings, blocks, norms, pooler, heads, in place.

    The norms then take their statistics over the kept dimensions.
    """
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.LayerNorm):
            swap(model, name, _cut_norm(part, keep))
        elif isinstance(part, nn.Embedding):
            made = nn.Embedding(part.num_embeddings, len(keep), device="meta")
            made.weight = nn.Parameter(part.weight.detach()[:, keep].clone())
            swap(model, name, made)
    for block in model.blocks:  # type: ignore[union-attr]
        if block.attn is not None:
            block.attn.qkv = linear_cut(block.attn.qkv, inputs=keep)
            block.attn.proj = linear_cut(block.attn.proj, outputs=keep)
        if block.mlp is not None:
            block.mlp.fc1 = linear_cut(block.mlp.fc1, inputs=keep)
            block.mlp.fc2 = linear_cut(block.mlp.fc2, outputs=keep)
    if isinstance(model, ViT):
        _cut_vit(model, keep)
    elif isinstance(model, Bert):
        if isinstance(model.pooler, nn.Linear):
            model.pooler = linear_cut(model.pooler, inputs=keep, outputs=keep)
    elif isinstance(model, Gpt):
        tied = model.head.weight.shape[1] != len(keep) and model.head.weight.shape[0] == model.words.num_embeddings
        model.head = linear_cut(model.head, inputs=keep)
        if tied and torch.equal(model.head.weight, model.words.weight):
            model.head.weight = model.words.weight
    model.width = len(keep)  # type: ignore[assignment]


def _cut_vit(model: ViT, keep: Tensor) -> None:
    proj = model.patch_embed.proj
    made = nn.Conv2d(proj.in_channels, len(keep), proj.kernel_size, proj.stride, device="meta")  # type: ignore[arg-type]
    made.weight = nn.Parameter(proj.weight.detach()[keep].clone())
    assert proj.bias is not None
    made.bias = nn.Parameter(proj.bias.detach()[keep].clone())
    model.patch_embed.proj = made
    for name in ("cls_token", "dist_token", "pos_embed"):
        value = getattr(model, name)
        if value is not None:
            setattr(model, name, nn.Parameter(value.detach()[..., keep].clone()))
    model.head = linear_cut(model.head, inputs=keep)
    if model.head_dist is not None:
        model.head_dist = linear_cut(model.head_dist, inputs=keep)


def _cut_norm(norm: nn.LayerNorm, keep: Tensor) -> nn.LayerNorm:
    made = nn.LayerNorm(len(keep), eps=norm.eps, device="meta")
    made.weight, made.bias = (
        nn.Parameter(norm.weight.detach()[keep].clone()),
        nn.Parameter(norm.bias.detach()[keep].clone()),
    )
    return made


def cut_units(block: nn.Module, heads: Tensor, neurons: Tensor) -> None:
    """Go on with the given heads and hidden features of a block; a part that keeps none is left out."""
    attention, mlp = block.attn, block.mlp
    if not len(heads):
        block.attn = Nothing(attention.proj.bias)  # type: ignore[union-attr, arg-type]
    elif len(heads) < attention.heads:  # type: ignore[union-attr, operator]
        attention.cut(heads)  # type: ignore[union-attr, operator]
    if not len(neurons):
        block.mlp = Constant(mlp.fc2.bias)  # type: ignore[union-attr, arg-type]
    elif len(neurons) < mlp.fc1.out_features:  # type: ignore[union-attr, operator]
        mlp.cut(neurons)  # type: ignore[union-attr, operator]


class Constant(nn.Module):
    """What a part without units still adds: its last bias."""

    def __init__(self, bias: nn.Parameter):
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """The bias for every token."""
        return self.bias.expand(x.shape)


class Nothing(Constant):
    """The same in place of an attention, which gives its heads as well."""

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, None]:  # type: ignore[override]
        """The bias for every token, and no heads."""
        return self.bias.expand(x.shape), None
