"""SpAtten's cascade pruning of tokens and heads with local value pruning (Wang et al. 2021, "SpAtten").

The importance of a token is the attention probability it has received so far, summed over queries, heads and blocks; that of
a head the magnitude of its output so far (its probabilities sum to the same for every head). What is gone stays
gone: pruned heads leave the projections as well, by gathering the weights of those that remain, per image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.settings import Blocks, KeepRate
from suites.common.vit import Attention, Block, Tokens, ViT, attention_probabilities
from suites.vit_tokens.schedules import check_blocks
from suites.vit_tokens.scores import as_reducible, follow, new_positions, rows


def spatten(
    model: nn.Module,
    *,
    keep_tokens: KeepRate = 0.7,
    keep_heads: KeepRate = 1.0,
    keep_values: KeepRate = 1.0,
    at: Blocks = [4, 7, 10],  # noqa: B006 - read, never changed
) -> ViT:
    """The ViT that prunes tokens and heads in cascade after the attention of some blocks.

    Args:
        model: a ViT of suites.common.
        keep_tokens: share of the patches kept at each block in `at`, rounded up.
        keep_heads: share of the heads kept there, rounded up; later blocks run without the others.
        keep_values: share of the value rows used in every block, those with the highest probability per head.
        at: blocks, counted from 1.

    Raises:
        ValueError: not such a model, a share outside (0, 1], or blocks that it does not have.
    """
    vit = as_reducible(model, "spatten")
    blocks = check_blocks(at, vit.depth)
    for name, share in (("keep_tokens", keep_tokens), ("keep_heads", keep_heads), ("keep_values", keep_values)):
        if not 0 < share <= 1:
            raise ValueError(f"{name}={share}: a share must lie in 0 < share <= 1 (depth {vit.depth})")
    if keep_tokens == keep_heads == keep_values == 1:
        return vit
    last = max(blocks)
    cascade = []
    for number, block in enumerate(vit.blocks, start=1):
        shares = (keep_tokens, keep_heads) if number in blocks else (1.0, 1.0)
        cascade.append(CascadeBlock(block, *shares, keep_values, number <= last))  # type: ignore[arg-type]
    vit.blocks = nn.ModuleList(cascade)
    return vit


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
        probabilities = attention_probabilities(q, k)
        out = self._values(probabilities, v)
        x = state.x + merge_heads(self.attn, out, state.heads)
        state = self._remember(state, x, probabilities, out)
        state = self._prune_heads(self._prune_tokens(state))
        return state.moved(state.x + self.mlp(self.norm2(state.x)))  # type: ignore[return-value]

    def _values(self, probabilities: Tensor, v: Tensor) -> Tensor:
        """Probabilities x values, per head only over the value rows with the highest column sums."""
        keep = math.ceil(self.keep_values * v.shape[2])
        if keep == v.shape[2]:
            return probabilities @ v
        index = probabilities.sum(dim=2).topk(keep, dim=-1).indices
        columns = probabilities.gather(3, index[:, :, None, :].expand(-1, -1, probabilities.shape[2], -1))
        return columns @ v.gather(2, index[..., None].expand(-1, -1, -1, v.shape[-1]))

    def _remember(self, state: CascadeTokens, x: Tensor, probabilities: Tensor, out: Tensor) -> CascadeTokens:
        if not self.watch:
            return CascadeTokens(x, state.protected, owner=state.owner, heads=state.heads)
        received, output = probabilities.sum(dim=(1, 2)), out.abs().sum(dim=(2, 3))
        received = received if state.importance is None else state.importance + received
        output = output if state.head_importance is None else state.head_importance + output
        return CascadeTokens(x, state.protected, None, None, state.owner, received, state.heads, output)

    def _prune_tokens(self, state: CascadeTokens) -> CascadeTokens:
        special, patches = state.protected, state.count - state.protected
        keep = math.ceil(self.keep_tokens * patches)
        if keep == patches:
            return state
        assert state.importance is not None
        kept = state.importance[:, special:].topk(keep, dim=-1).indices.sort(dim=-1).values + special
        index = torch.cat([torch.arange(special, device=kept.device).expand(len(kept), -1), kept], dim=1)
        owner = follow(state.owner, new_positions(index, state.count)) if state.owner is not None else None
        left = state.importance.gather(1, index)
        return CascadeTokens(rows(state.x, index), special, None, None, owner, left, state.heads, state.head_importance)

    def _prune_heads(self, state: CascadeTokens) -> CascadeTokens:
        if self.keep_heads == 1:
            return state
        assert state.head_importance is not None
        keep = math.ceil(self.keep_heads * state.head_importance.shape[1])
        kept = state.head_importance.topk(keep, dim=-1).indices.sort(dim=-1).values
        heads = kept if state.heads is None else state.heads.gather(1, kept)
        left = state.head_importance.gather(1, kept)
        return CascadeTokens(state.x, state.protected, None, None, state.owner, state.importance, heads, left)


def project(attn: Attention, x: Tensor, heads: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [batch, heads, tokens, head width] of the named heads alone, [batch, heads]."""
    if heads is None:
        q, k, v = attn.qkv(x).unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v
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
