"""AIM: merge before the decoder, then prune layer by layer to nothing (Zhong et al. 2024, arXiv 2412.03248).

Merging is ToMe's bipartite matching inside each frame on the projected tokens: even tokens are sources, odd ones
destinations, by cosine similarity; a destination becomes the mean of itself and its sources; unmerged sources come
first, in order of falling similarity, then destinations. Rounds halve a frame until `merge` of it is left. Pruning
ranks by PageRank on the layer's causal attention, sharpened by a temperature of 0.1; words are protected, what is
dropped stays dropped, and places are kept. The released code masks; here tokens are removed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.visual_decoder import Seen, Stream, VisualDecoder
from suites.vlm_tokens import schedules
from suites.vlm_tokens.reduced import Inside, Reduced, Reduction, best, keep, picked, reduced
from suites.vlm_tokens.scores import PageRank


def aim(
    model: nn.Module,
    *,
    merge: KeepRate = 0.25,
    l1: Count | None = None,
    span: PositiveInt | None = None,
    lag: Literal[0, 1] = 1,
) -> Reduced:
    """The model that merges each frame's tokens and prunes them from layer l1 on.

    Args:
        model: reads pictures before words.
        merge: share of the visual tokens that merging leaves; 1 for no merging.
        l1: first layer whose share is below one; None for L / 2; L for no pruning.
        span: layers over which the share falls to zero; None for L / 4.
        lag: 1: a layer's share holds for the next one, as released; 0: for itself, as printed counts have it.

    Raises:
        ValueError: not such a model, or l1 beyond its layers.
    """
    if isinstance(model, VisualDecoder):
        layers = len(model.decoder.blocks)
        if l1 is not None and (l1 > layers or l1 + lag < 1):
            raise ValueError(f"l1={l1}, lag={lag}: no layer stands before the first pruned one, or behind {layers}")
        found = Aim(merge, l1, span, lag, model.images)
        return reduced(model, found, "aim")
    return reduced(model, Reduction(), "aim")


class Matching(nn.Module):
    """One round of bipartite matching inside frames [frames, tokens, width]; `merged` sources go."""

    charged_to = "method"

    def forward(self, x: Tensor, origin: Tensor, merged: int) -> tuple[Tensor, Tensor]:
        """What is left and which tokens they grew from, [frames, tokens - merged, ...]."""
        unit = nn.functional.normalize(x, dim=-1)
        similarity = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
        highest, closest = similarity.max(dim=-1)
        order = highest.sort(dim=-1, descending=True, stable=True).indices
        gone, left = order[:, :merged], order[:, merged:]
        sources, targets = x[:, ::2], x[:, 1::2]
        owner = picked(closest, gone)
        gained = targets.scatter_reduce(
            1, owner[..., None].expand(-1, -1, x.shape[2]), picked(sources, gone), "mean", include_self=True
        )
        stayed = picked(origin[:, ::2], left)
        return torch.cat([picked(sources, left), gained], dim=1), torch.cat([stayed, origin[:, 1::2]], dim=1)


class Aim(Reduction):
    """Rounds of matching, then PageRank."""

    def __init__(self, merge: float, first: int | None, span: int | None, lag: int, frames: int):
        super().__init__()
        self.merge, self.first, self.span, self.lag, self.frames = merge, first, span, lag, frames
        self.matching, self.rank = Matching(), PageRank()

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """floor(share v')."""
        return schedules.aim(
            visual, layers, frames=self.frames, merge=self.merge, first=self.first, span=self.span, lag=self.lag
        )

    def look(self, seen: Seen) -> Seen:
        """Every frame merged."""
        frames = seen.tokens.reshape(len(seen.tokens) * seen.images, -1, seen.tokens.shape[-1])
        count = frames.shape[1]
        rounds = schedules.merge_rounds(count, self.merge)
        if not rounds:
            return seen
        origin = torch.arange(count, device=frames.device).expand(len(frames), -1)
        for merged in rounds:
            frames, origin = self.matching(frames, origin, merged)
        shift = torch.arange(seen.images, device=frames.device)[:, None] * count
        origin = (origin.reshape(len(seen.tokens), seen.images, -1) + shift).flatten(1)
        return replace(seen, tokens=frames.reshape(len(seen.tokens), -1, frames.shape[-1]), origin=origin)

    def leave(self, layer: int, stream: Stream, inside: Inside, wanted: int) -> Stream:
        """The visual tokens that the next layer is to see."""
        if wanted >= stream.count:
            return stream
        score = self.rank(inside.q, inside.k)[:, stream.start : stream.start + stream.count]
        return keep(stream, best(score, wanted), renumber=False)
