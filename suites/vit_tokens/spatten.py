"""SpAtten's cascade pruning of tokens and heads with local value pruning (Wang et al. 2021, "SpAtten").

The importance of a token is the attention probability it has received so far, summed over queries, heads and blocks;
that of a head the magnitude of its output so far (its probabilities sum to the same for every head). What is gone stays
gone: pruned heads leave the projections as well, by gathering the weights of those that remain, per image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, KeepRate
from suites.common.finetuning import finetuned, teacher_for
from suites.common.vit import Attention, Block, Tokens, ViT, attention_probabilities
from suites.vit_tokens.schedules import check_blocks
from suites.vit_tokens.scores import as_reducible, follow, kept_index, new_positions, rows


def spatten(
    model: nn.Module,
    *,
    keep_tokens: KeepRate = 0.7,
    keep_heads: KeepRate = 1.0,
    keep_values: KeepRate = 1.0,
    at: Blocks | None = None,
    training_steps: Count = 0,
) -> ViT:
    """The ViT that prunes tokens and heads in cascade after the attention of some blocks.

    Args:
        model: a ViT of suites.common.
        keep_tokens: share of the patches kept at each block in `at`, rounded up.
        keep_heads: share of the heads kept there, rounded up; later blocks run without the others.
        keep_values: share of the value rows used in every block, those with the highest probability per head.
        at: blocks, counted from 1; None for the quarters, which are 4, 7 and 10 of 12.
        training_steps: fine-tunes with the method in place, with the plain model's answers beside the labels, on the
            task the model was loaded by; 0 leaves the weights: off the shelf.

    Raises:
        ValueError: not such a model, a share outside (0, 1], blocks that it does not have, or nothing to train on.
    """
    vit = as_reducible(model, "spatten")
    blocks = check_blocks(at, vit.depth)
    for name, share in (("keep_tokens", keep_tokens), ("keep_heads", keep_heads), ("keep_values", keep_values)):
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share}: a share must lie in 0 < share <= 1 (depth {vit.depth})")
    if keep_tokens == keep_heads == keep_values == 1:
        return vit
    teacher = teacher_for(vit, training_steps)
    last = max(blocks) if keep_tokens < 1 or keep_heads < 1 else 0
    cascade = []
    for number, block in enumerate(vit.blocks, start=1):
        shares = (keep_tokens, keep_heads) if number in blocks else (1.0, 1.0)
        cascade.append(CascadeBlock(block, *shares, keep_values, number <= last))  # type: ignore[arg-type]
    vit.blocks = nn.ModuleList(cascade)
    settings = {"tokens": keep_tokens, "heads": keep_heads, "values": keep_values, "at": list(blocks)}
    return finetuned(vit, teacher, spatten, settings, training_steps)


@dataclass(frozen=True)
class CascadeTokens(Tokens):
    """Tokens with what has been seen of them: importance [batch, tokens], and the heads still there with theirs.

    `heads` [batch, heads left] are indices among the model's heads, None while all are there.
    """

    importance: Tensor | None = None
    heads: Tensor | None = None
    head_importance: Tensor | None = None


class CascadeBlock(nn.Module):
    """A block that adds up importances while there are prunings to come, and prunes after its attention."""

    def __init__(self, block: Block, keep_tokens: float, keep_heads: float, keep_values: float, watch: bool):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.keep_tokens, self.keep_heads, self.keep_values, self.watch = keep_tokens, keep_heads, keep_values, watch

    def forward(self, tokens: Tokens) -> CascadeTokens:
        """The tokens that go on, with their history."""
        state = (
            tokens
            if isinstance(tokens, CascadeTokens)
            else CascadeTokens(tokens.x, tokens.protected, owner=tokens.owner)
        )
        q, k, v = project(self.attn, self.norm1(state.x), state.heads)
        if self.watch or self.keep_values < 1:
            probabilities = attention_probabilities(q, k)
            out = self._values(probabilities, v)
            state = self._remember(state, probabilities, out)
        else:
            out = F.scaled_dot_product_attention(q, k, v)  # nothing is judged by probabilities any more
        state = replace(state, x=state.x + merge_heads(self.attn, out, state.heads))
        state = self._prune_heads(self._prune_tokens(state))
        return replace(state, x=state.x + self.mlp(self.norm2(state.x)))

    def _values(self, probabilities: Tensor, v: Tensor) -> Tensor:
        """Probabilities x values, per head only over the value rows with the highest column sums."""
        keep = math.ceil(self.keep_values * v.shape[2])
        if keep == v.shape[2]:
            return probabilities @ v
        index = probabilities.sum(dim=2).topk(keep, dim=-1).indices
        columns = probabilities.gather(3, index[:, :, None, :].expand(-1, -1, probabilities.shape[2], -1))
        return columns @ v.gather(2, index[..., None].expand(-1, -1, -1, v.shape[-1]))

    def _remember(self, state: CascadeTokens, probabilities: Tensor, out: Tensor) -> CascadeTokens:
        if not self.watch:
            return state
        received = probabilities.sum(dim=(1, 2), dtype=torch.float32)
        output = out.abs().sum(dim=(2, 3), dtype=torch.float32)
        received = received if state.importance is None else state.importance + received
        output = output if state.head_importance is None else state.head_importance + output
        return replace(state, importance=received, head_importance=output)

    def _prune_tokens(self, state: CascadeTokens) -> CascadeTokens:
        patches = state.count - state.protected
        keep = math.ceil(self.keep_tokens * patches)
        if keep == patches:
            return state
        assert state.importance is not None
        index = kept_index(state.importance[:, state.protected :], keep, state.protected)
        owner = None if state.owner is None else follow(state.owner, new_positions(index, state.count))
        return replace(state, x=rows(state.x, index), owner=owner, importance=state.importance.gather(1, index))

    def _prune_heads(self, state: CascadeTokens) -> CascadeTokens:
        if self.keep_heads == 1:
            return state
        assert state.head_importance is not None
        keep = math.ceil(self.keep_heads * state.head_importance.shape[1])
        kept = state.head_importance.topk(keep, dim=-1).indices.sort(dim=-1).values
        heads = kept if state.heads is None else state.heads.gather(1, kept)
        left = state.head_importance.gather(1, kept)
        return replace(state, heads=heads, head_importance=left)


def project(attn: Attention, x: Tensor, heads: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [batch, heads, tokens, head width] of the named heads alone, [batch, heads]."""
    if heads is None:
        return attn.project(x)
    weight = attn.qkv.weight.unflatten(0, (3, attn.heads, -1))[:, heads].transpose(0, 1)  # batch, 3, heads, d, width
    y = x @ weight.flatten(1, 3).transpose(-2, -1)
    if attn.qkv.bias is not None:
        bias = attn.qkv.bias.unflatten(0, (3, attn.heads, -1))[:, heads].transpose(0, 1)
        y = y + bias.flatten(1)[:, None]
    q, k, v = y.unflatten(-1, (3, heads.shape[1], -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def merge_heads(attn: Attention, out: Tensor, heads: Tensor | None) -> Tensor:
    """Output projection [batch, tokens, width] of head outputs [batch, heads, tokens, head width]."""
    joined = out.transpose(1, 2).flatten(2)
    if heads is None:
        return attn.proj(joined)
    weight = attn.proj.weight.T.unflatten(0, (attn.heads, -1))[heads]  # batch, heads, d, width
    return joined @ weight.flatten(1, 2) + attn.proj.bias
