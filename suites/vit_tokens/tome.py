"""ToMe: merge similar tokens in every block (Bolya et al. 2023, "Token Merging: Your ViT But Faster")."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count
from suites.common.finetuning import finetuned, teacher_for
from suites.common.vit import Heads, Reducer, Tokens, ViT
from suites.vit_tokens.schedules import merges_per_block
from suites.vit_tokens.scores import as_reducible, follow, install, key_metric, rows


def tome(
    model: nn.Module,
    *,
    r: Count | list[Count] | tuple[Count, float] = 8,
    proportional: bool = True,
    mode: Literal["merge", "drop"] = "merge",
    training_steps: Count = 0,
) -> ViT:
    """The ViT with r tokens merged between attention and MLP of every block.

    Args:
        model: a ViT of suites.common.
        r: tokens to merge per block: one number, one per block, or (r, inflect) for a linear ramp from r (1 - inflect)
            to r (1 + inflect). A block merges at most half of its unprotected tokens.
        proportional: adds the logarithm of a token's size to the attention logits of its key.
        mode: "merge" averages matched tokens, "drop" throws the matched token away.
        training_steps: fine-tunes with the method in place, with the plain model's answers beside the labels, on the
            task the model was loaded by; 0 leaves the weights: off the shelf.

    Raises:
        ValueError: not such a model, a schedule that does not fit its depth, or nothing to train on.
    """
    vit = as_reducible(model, "tome")
    merges = merges_per_block(r, vit.depth)
    if mode not in ("merge", "drop"):
        raise ValueError(f'mode={mode!r} is unknown: use "merge" or "drop"')
    teacher = teacher_for(vit, training_steps)
    install(vit, {i: Merge(m, proportional, mode) for i, m in enumerate(merges, start=1) if m})
    settings = {"r": merges, "proportional": proportional, "mode": mode}
    return finetuned(vit, teacher, tome, settings, training_steps)


class Merge(Reducer):
    """Merges the r most similar pairs of even and odd tokens."""

    def __init__(self, r: int, proportional: bool = True, mode: str = "merge"):
        super().__init__()
        self.r, self.proportional, self.mode = r, proportional, mode

    def forward(self, tokens: Tokens, heads: Heads | None) -> Tokens:
        """Tokens with min(r, (N - protected) // 2) of them merged; order is [surviving even, odd]."""
        assert heads is not None
        r = min(self.r, (tokens.count - tokens.protected) // 2)
        if r <= 0:
            return tokens
        kept, merged, into = match(key_metric(heads), r, tokens.protected)
        if self.mode == "drop":
            x = torch.cat([rows(tokens.x[:, ::2], kept), tokens.x[:, 1::2]], dim=1)
            return Tokens(x, tokens.protected, owner=self._owner(tokens, kept, merged, torch.full_like(into, -1)))
        owner = self._owner(tokens, kept, merged, into + kept.shape[1])
        x, size = merge(tokens.x, tokens.size, kept, merged, into)
        bias = size.log().to(x.dtype) if self.proportional else None
        return Tokens(x, tokens.protected, size, bias, owner)

    def _owner(self, tokens: Tokens, kept: Tensor, merged: Tensor, gone_to: Tensor) -> Tensor | None:
        return None if tokens.owner is None else follow(tokens.owner, _places(kept, merged, gone_to, tokens.count))


def match(metric: Tensor, r: int, protected: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which even tokens stay, which r go, and which odd token each of those goes into.

    Args:
        metric: unit vectors to compare tokens by, [batch, tokens, features].
        r: how many go.
        protected: leading tokens that neither go nor receive: the class token stands first among the even, a
            distillation token first among the odd ones.

    Returns:
        Indices among the even tokens of those that stay [batch, even - r] (ascending) and go [batch, r], and for each
        of the latter the index among the odd tokens [batch, r].
    """
    scores = metric[:, ::2] @ metric[:, 1::2].transpose(-2, -1)
    if protected > 0:
        scores[:, 0] = -torch.inf
    if protected > 1:
        scores[:, :, 0] = -torch.inf
    best, pick = scores.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    merged = order[:, :r]
    return order[:, r:].sort(dim=-1).values, merged, pick.gather(1, merged)


def merge(x: Tensor, size: Tensor | None, kept: Tensor, merged: Tensor, into: Tensor) -> tuple[Tensor, Tensor]:
    """Size-weighted means of matched tokens, [batch, tokens - r, width], and new sizes, [batch, tokens - r]."""
    even, odd = x[:, ::2], x[:, 1::2]
    if size is None:
        size = x.new_ones(x.shape[:2], dtype=torch.float32)
    even_size, odd_size = size[:, ::2], size[:, 1::2]
    moved_size = even_size.gather(1, merged)
    total = odd_size.scatter_add(1, into, moved_size)
    weighted = odd * odd_size[..., None].to(x.dtype)
    moved = rows(even, merged) * moved_size[..., None].to(x.dtype)
    mean = weighted.scatter_add(1, into[..., None].expand_as(moved), moved) / total[..., None].to(x.dtype)
    return torch.cat([rows(even, kept), mean], dim=1), torch.cat([even_size.gather(1, kept), total], dim=1)


def _places(kept: Tensor, merged: Tensor, gone_to: Tensor, count: int) -> Tensor:
    """Where each of `count` tokens is afterwards, [batch, count]; the merged ones are at `gone_to`, -1 for nowhere."""
    stay = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    even = kept.new_empty(kept.shape[0], (count + 1) // 2)
    even = even.scatter(1, kept, stay).scatter(1, merged, gone_to)
    odd = (torch.arange(count // 2, device=kept.device) + kept.shape[1]).expand(len(kept), -1)
    places = kept.new_empty(kept.shape[0], count)
    places[:, ::2], places[:, 1::2] = even, odd
    return places
