"""EViT: keep the patches that the class token attends to (Liang et al. 2022, "Not All Patches are What You Need")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.settings import Blocks, KeepRate
from suites.common.vit import Heads, Reducer, Tokens, ViT
from suites.vit_tokens.schedules import check_blocks, rates_per_stage
from suites.vit_tokens.scores import as_reducible, class_attention, follow, install, new_positions, rows


def evit(
    model: nn.Module,
    *,
    keep_rate: KeepRate | list[KeepRate] = 0.7,
    fuse_token: bool = True,
    at: Blocks = [4, 7, 10],  # noqa: B006 - read, never changed
) -> ViT:
    """The ViT that keeps a share of its patches between attention and MLP of some blocks.

    Args:
        model: a ViT of suites.common with a class token.
        keep_rate: share of the patches kept, rounded up; one number, or one per block in `at`.
        fuse_token: appends one token that is the sum of the dropped patches weighted by the class token's attention.
        at: blocks, counted from 1, that drop patches.

    Raises:
        ValueError: not such a model, a rate outside (0, 1], or blocks that it does not have.
    """
    vit = as_reducible(model, "evit", needs_class_token=True)
    blocks = check_blocks(at, vit.depth)
    rates = rates_per_stage(keep_rate, len(blocks), "keep_rate", vit.depth)
    return install(vit, {b: KeepAttended(rate, fuse_token) for b, rate in zip(blocks, rates, strict=True)})


class KeepAttended(Reducer):
    """Keeps the ceil(rate x patches) patches with the highest class attention, most attended first."""

    def __init__(self, keep_rate: float, fuse: bool):
        super().__init__()
        self.keep_rate, self.fuse = keep_rate, fuse

    def forward(self, tokens: Tokens, heads: Heads | None) -> Tokens:
        """Special tokens, kept patches, and the fused token if there is to be one."""
        assert heads is not None
        special, patches = tokens.protected, tokens.count - tokens.protected
        keep = math.ceil(self.keep_rate * patches)
        if keep >= patches:
            return tokens
        score = class_attention(heads, tokens.key_bias, special)
        order = score.argsort(dim=-1, descending=True)
        kept, dropped = order[:, :keep], order[:, keep:]
        parts = [tokens.x[:, :special], rows(tokens.x[:, special:], kept)]
        if self.fuse:
            parts.append(score.gather(1, dropped)[:, None, :] @ rows(tokens.x[:, special:], dropped))
        owner = follow(tokens.owner, self._places(kept, tokens)) if tokens.owner is not None else None
        return Tokens(torch.cat(parts, dim=1), special, owner=owner)

    def _places(self, kept: Tensor, tokens: Tokens) -> Tensor:
        special = torch.arange(tokens.protected, device=kept.device).expand(len(kept), -1)
        places = new_positions(torch.cat([special, kept + tokens.protected], dim=1), tokens.count)
        return places.masked_fill(places < 0, tokens.protected + kept.shape[1]) if self.fuse else places
