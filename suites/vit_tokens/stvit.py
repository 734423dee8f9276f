"""STViT: a few semantic tokens stand for the image after the first blocks (Chang et al. 2023, "Making Vision
Transformers Efficient from a Token Sparsification View")."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.finetuning import REBUILT_RATE, finetuned, needs_training, teacher_for
from suites.common.vit import Block, Tokens, ViT
from suites.vit_tokens.scores import as_reducible


def stvit(
    model: nn.Module, *, tokens: PositiveInt = 16, base: PositiveInt | None = None, training_steps: Count = 0
) -> ViT:
    """The ViT whose blocks after the base run on `tokens` semantic tokens; reads their mean instead of a class token.

    Two blocks after the base become the generator, with their own weights as its projections; the rest follow
    unchanged.

    Args:
        model: a ViT of suites.common with a square grid and no distillation token.
        tokens: semantic tokens; a square number.
        base: blocks on the full grid; None for a third of the depth.
        training_steps: trains all of it, with the plain model's answers beside the labels, on the task the model was
            loaded by; 0 leaves it untrained, which is right for cost and meaningless for accuracy.

    Raises:
        ValueError: not such a model, nothing to train on, or numbers that do not fit its depth or grid.
    """
    vit = as_reducible(model, "stvit")
    base = max(1, vit.depth // 3) if base is None else base
    side = math.isqrt(tokens)
    if side * side != tokens or side > vit.grid:
        raise ValueError(f"tokens={tokens} must be a square number in 1..{vit.grid**2} (depth {vit.depth})")
    if vit.depth < 3:
        raise ValueError(
            f"stvit needs a base block and two for its generator: build the model with depth >= 3, not {vit.depth}"
        )
    if not 1 <= base <= vit.depth - 2:
        raise ValueError(
            f"base={base}: base blocks must be in 1..{vit.depth - 2}, the generator takes two (depth {vit.depth})"
        )
    if vit.head_dist is not None:
        raise ValueError("stvit reads a mean over tokens: build the model with distilled=False")
    teacher = teacher_for(vit, training_steps)
    read_the_mean(vit)
    vit.blocks[base] = Centres(vit.blocks[base], side, vit.grid)  # type: ignore[arg-type]
    vit.blocks[base + 1] = Semantics(vit.blocks[base + 1], tokens, vit.width)  # type: ignore[arg-type]
    needs_training(vit, "STViT's generator", training_steps)
    settings = {"tokens": tokens, "base": base}
    new: list[nn.Parameter] = [vit.blocks[base + 1].semantic]  # type: ignore[list-item]
    return finetuned(vit, teacher, stvit, settings, training_steps, fresh=new, rate=REBUILT_RATE)


def read_the_mean(vit: ViT) -> None:
    """Without class token the model's final norm serves the mean."""
    if vit.pool == "token":
        vit.fc_norm, vit.norm, vit.pool = vit.norm, nn.Identity(), "mean"
    vit.pos_embed = nn.Parameter(vit.pos_embed.detach()[:, vit.protected :])
    vit.cls_token, vit.protected = None, 0


@dataclass(frozen=True)
class SemanticTokens(Tokens):
    """Semantic tokens with the grid of image tokens they are made from, [batch, patches, width]."""

    grid: Tensor | None = None


class _Generator(nn.Module):
    """Cross-attention and MLP with the weights of a plain block."""

    def __init__(self, block: Block):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp

    def update(self, tokens: Tensor, query: Tensor, context: Tensor) -> Tensor:
        """The tokens + attention(query, context), then + MLP."""
        width = tokens.shape[-1]
        attn = self.attn
        bias = attn.qkv.bias
        q = F.linear(self.norm1(query), attn.qkv.weight[:width], None if bias is None else bias[:width])
        kv = F.linear(self.norm1(context), attn.qkv.weight[width:], None if bias is None else bias[width:])
        q, k, v = (split_heads(t, attn.heads) for t in (q, *kv.chunk(2, dim=-1)))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)
        tokens = tokens + attn.proj(y)
        return tokens + self.mlp(self.norm2(tokens))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Features [batch, tokens, width] as [batch, heads, tokens, head width]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Centres(_Generator):
    """S1 = P + attention(P, X), then the MLP, where P is the grid pooled to `side` x `side` centres."""

    def __init__(self, block: Block, side: int, grid: int):
        super().__init__(block)
        self.side, self.grid = side, grid

    def forward(self, tokens: Tokens) -> SemanticTokens:
        """The first semantic tokens."""
        image = tokens.x.transpose(1, 2).unflatten(-1, (self.grid, self.grid))
        centres = F.adaptive_avg_pool2d(image, self.side).flatten(2).transpose(1, 2)
        return SemanticTokens(self.update(centres, centres, tokens.x), 0, grid=tokens.x)


class Semantics(_Generator):
    """S2 = S1 + attention(S1 + G, [S1, X]), then the MLP, where G is learned."""

    def __init__(self, block: Block, tokens: int, width: int):
        super().__init__(block)
        self.semantic = nn.Parameter(torch.zeros(1, tokens, width).to(block.norm1.weight))
        nn.init.trunc_normal_(self.semantic, std=0.02)

    def forward(self, tokens: SemanticTokens) -> Tokens:
        """The semantic tokens that the remaining blocks work on."""
        assert tokens.grid is not None
        context = torch.cat([tokens.x, tokens.grid], dim=1)
        return Tokens(self.update(tokens.x, tokens.x + self.semantic, context), 0)
