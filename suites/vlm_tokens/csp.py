"""LVLM_CSP: cluster, scatter, prune for reasoning segmentation (Chen et al. 2025, arXiv 2504.10854).

The decoder's last word is [SEG], whose state prompts a mask. Layers below a see only N_c representatives of the N
image tokens; layers a to b see all of them again; from layer b on N_p stay, by the attention that the last word pays
them in that layer. Places are the original ones throughout, and layers below a keep keys and values of representatives
alone.

Rebuilt: the bounds a = L / 4 and b = L / 2, N_c = N / 4 and N_p = N / 8, and what a token that was absent comes back
with: what the projector gave it (`embedding`), or that plus what its nearest representative has gained (`nearest`). The
light segmenter of `seg_first` is ink by cells of a scene.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common import digit_scenes as scenes
from suites.common.visual_decoder import Seen, Stream, VisualDecoder
from suites.vlm_tokens import schedules
from suites.vlm_tokens.controls import drawn
from suites.vlm_tokens.pyramiddrop import NextLayerCuts
from suites.vlm_tokens.reduced import Reduced, as_visual, best, keep, picked, reduced
from suites.vlm_tokens.scores import TowerScore

Choice = Literal["random", "uniform", "cls", "seg_first"]
#: Mean level of a patch from which on it belongs to a stroke.
INK = 1.5


def csp(
    model: nn.Module,
    *,
    a: Count | None = None,
    b: Count | None = None,
    n_c: PositiveInt | None = None,
    n_p: PositiveInt | None = None,
    choose: Literal["random", "uniform", "cls", "seg_first"] = "uniform",
    fill: Literal["embedding", "nearest"] = "embedding",
) -> Reduced:
    """The model with few, then all, then few image tokens.

    Args:
        model: reads pictures before words.
        a: first layer that sees all image tokens; None for L / 4.
        b: first layer that sees the pruned ones; None for L / 2.
        n_c: representatives, N_c; None for N / 4.
        n_p: tokens that stay, N_p; None for N / 8.
        choose: representatives at random, evenly (every floor(N / N_c)-th), by the class token's attention, or a quota
            for each instance by its area.
        fill: what absent tokens come back with.

    Raises:
        ValueError: not such a model, or numbers that do not fit it.
    """
    visual = as_visual(model, "csp")
    numbers = schedules.csp_defaults(visual.visual, len(visual.decoder.blocks), n_c, n_p, a, b)
    if choose == "seg_first" and not hasattr(model, "patch"):
        raise ValueError("seg_first segments scenes of digits: take scene_64, or another choice of representatives")
    patch = getattr(model, "patch", 0)
    return reduced(visual, Csp(*numbers, choose, fill, patch, getattr(model, "views", 1)), "csp")


def every(tokens: int, kept: int) -> Tensor:
    """Every floor(N / N_c)-th of the tokens, N_c of them."""
    return torch.arange(kept) * (tokens // kept)


def instances(ids: Tensor, patch: int, views: int) -> Tensor:
    """The instance [batch, tokens] that each patch of scenes belongs to: its cell where there is ink, 16 elsewhere."""
    levels = (ids[..., None] >> (4 * torch.arange(patch**2, device=ids.device))) & (scenes.LEVELS - 1)
    cell = scenes.cell_of(patch, views).to(ids.device)
    cell = cell.repeat(ids.shape[1] // len(cell))
    return torch.where(levels.double().mean(dim=-1) > INK, cell, scenes.CELLS**2)


def by_quota(instance: Tensor, kept: int) -> Tensor:
    """Ascending places [batch, kept]: max(1, floor(kept area)) of each instance, spread over it, then filled up.

    `area` is an instance's share of the tokens; where the quotas are more than `kept`, the last places are left out.
    """
    member = nn.functional.one_hot(instance, scenes.CELLS**2 + 1)
    size = member.sum(dim=1)
    quota = torch.where(size > 0, (kept * size // instance.shape[1]).clamp(min=1), 0)
    rank = (member.cumsum(dim=1) * member).sum(dim=-1)
    own_size, own_quota = size.gather(1, instance), quota.gather(1, instance)
    chosen = rank * own_quota // own_size > (rank - 1) * own_quota // own_size
    return best(chosen.double(), kept)


class Csp(NextLayerCuts):
    """Three stages; the third is a cut by the last word's attention, at the original places."""

    renumber = False

    def __init__(
        self, few: int, last: int, start: int, end: int, choose: Choice, fill: str, patch: int, views: int
    ):  # fmt: skip
        super().__init__("reuse")
        self.few, self.last, self.start, self.end = few, last, start, end
        self.choose, self.fill, self.patch, self.views = choose, fill, patch, views
        self.tower_score = TowerScore()
        self._seen: Seen | None = None
        self._whole: Stream | None = None
        self._index: Tensor | None = None

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """N_c, N, N_p."""
        return schedules.csp(visual, layers, self.few, self.last, self.start, self.end)

    def look(self, seen: Seen) -> Seen:
        """All tokens; what the representatives are chosen by is remembered."""
        self._seen = seen
        return seen

    def enter(self, layer: int, stream: Stream, model: VisualDecoder, wanted: int) -> tuple[Stream, Tensor | None]:
        """Representatives at the first layer, all tokens at layer a, the pruned ones at layer b."""
        if layer == 0 and self.start > 0 and self.few < stream.count:
            self._whole, self._index = stream, self.representatives(stream)
            stream = keep(stream, self._index, renumber=False)
        if layer == self.start and self._whole is not None:
            stream = self._scattered(stream)
        if layer >= self.end:
            return super().enter(layer, stream, model, wanted)
        return stream, None

    def representatives(self, stream: Stream) -> Tensor:
        """Ascending places of N_c tokens, [batch, N_c]."""
        assert self._seen is not None
        seen, count, batch = self._seen, stream.count, len(stream.x)
        if self.choose == "cls":
            score = self.tower_score(seen.view.q, seen.view.k, seen.view.class_token).reshape(batch, -1)
            if score.shape[1] != count:
                raise ValueError("the decoder gets pooled patches, which the tower's attention does not rank")
            return best(score, self.few)
        if self.choose == "seg_first":
            return by_quota(instances(seen.ids, self.patch, self.views), self.few)
        index = every(count, self.few) if self.choose == "uniform" else drawn(count, self.few, 0)
        return index.to(stream.x.device).expand(batch, -1)

    def _scattered(self, stream: Stream) -> Stream:
        """All tokens again, representatives with what they have become."""
        assert self._whole is not None and self._index is not None
        whole, index, now = self._whole, self._index, stream.visual(stream.x)
        self._whole = None
        first = whole.visual(whole.x)
        rows = index[..., None].expand(-1, -1, now.shape[2])
        if self.fill == "nearest":
            gained = now - picked(first, index)
            places = torch.arange(whole.count, device=index.device)
            nearest = (places[None, :, None] - index[:, None, :]).abs().argmin(dim=-1)
            first = first + picked(gained, nearest)
        visual = first.scatter(1, rows, now)
        return replace(stream.with_visual(visual, whole.origin, whole.places), following=whole.following)
