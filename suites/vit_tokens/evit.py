"""EViT: keep the patches that the class token attends to (Liang et al. 2022, "Not All Patches are What You Need")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, KeepRate
from suites.common.finetuning import finetuned, teacher_for
from suites.common.vit import Heads, Reducer, Tokens, ViT
from suites.vit_tokens.schedules import check_blocks, rates_per_stage
from suites.vit_tokens.scores import as_reducible, class_attention, follow, install, new_positions, rows


def evit(
    model: nn.Module,
    *,
    keep_rate: KeepRate | list[KeepRate] = 0.7,
    fuse_token: bool = True,
    at: Blocks | None = None,
    training_steps: Count = 0,
) -> ViT:
    """The ViT that keeps a share of its patches between attention and MLP of some blocks.

    Args:
        model: a ViT of suites.common with a class token.
        keep_rate: share of the patches kept, rounded up; one number, or one per block in `at`.
        fuse_token: appends one token that is the sum of the dropped patches weighted by the class token's attention.
        at: blocks, counted from 1, that drop patches; None for the quarters, which are 4, 7 and 10 of 12.
        training_steps: fine-tunes with the method in place, with the plain model's answers beside the labels, on the
            task the model was loaded by; 0 leaves the weights: off the shelf.

    Raises:
        ValueError: not such a model, a rate outside (0, 1], blocks that it does not have, or nothing to train on.
    """
    vit = as_reducible(model, "evit", needs_class_token=True)
    blocks = check_blocks(at, vit.depth)
    rates = rates_per_stage(keep_rate, len(blocks), "keep_rate", vit.depth)
    teacher = teacher_for(vit, training_steps)
    install(vit, {b: KeepAttended(rate, fuse_token) for b, rate in zip(blocks, rates, strict=True) if rate < 1})
    settings = {"rates": list(rates), "fuse_token": fuse_token, "at": list(blocks)}
    return finetuned(vit, teacher, evit, settings, training_steps)


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
