"""VisionDrop: image tokens rank image tokens, in the tower and in the decoder (Xu et al. 2025, arXiv 2506.22283).

Stage 0 stands in the tower: the attention of the class token in the layer whose features are used ranks the patches of
each picture. The further stages stand behind the quarters of the decoder: the causal softmax attention of image tokens
to image tokens, mean over queries and heads, in the layer that follows. Each stage keeps D dominant tokens in their
order; of the rest every floor(n / C)-th is a target, the others go to the target with the most similar key (keys
averaged over heads, normalised, without rotation) and a target becomes itself plus the mean of its own. So magnitudes
grow, as released. VisionZip (Yang et al. 2024, arXiv 2412.04467) is stage 0 alone.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate
from suites.common.visual_decoder import Seen, Stream, VisualDecoder, turning
from suites.vlm_tokens import schedules
from suites.vlm_tokens.reduced import Reduced, Reduction, as_visual, best, heads_of, picked, reduced
from suites.vlm_tokens.scores import ImageScore, LayerProjections, TowerScore

#: Dominant and contextual tokens of the released setting, whose mean over layers is 32 of 576.
RELEASED = ((42, 6), (30, 5), (22, 4), (16, 3))


def visiondrop(
    model: nn.Module,
    *,
    mean: KeepRate | None = None,
    splits: list[list[Count]] | None = None,
    cuts: list[Count] | None = None,
) -> Reduced:
    """The model with a stage in the tower and further ones in the decoder.

    Args:
        model: reads pictures before words.
        mean: share of the visual tokens that layers see on average; the released split at this size.
        splits: dominant and contextual tokens of the whole prompt, first before the decoder, then behind each cut;
            None and no mean: the released [[42, 6], [30, 5], [22, 4], [16, 3]] for 576 tokens, at the same share.
        cuts: layers behind which tokens go; None for the quarters of the depth.

    Raises:
        ValueError: not such a model, or splits that do not fit it.
    """
    visual = as_visual(model, "visiondrop")
    if mean is not None and splits is not None:
        raise ValueError("mean and splits say the same thing: give one of them")
    share = 32 / 576 if mean is None else mean
    chosen = splits if splits is not None else shared_out(visual.visual, share, visual.images)
    return _reduced(visual, chosen, cuts, "visiondrop")


def visionzip(model: nn.Module, *, dominant: Count | None = None, contextual: Count | None = None) -> Reduced:
    """The model with fewer tokens before the decoder.

    Args:
        model: reads pictures before words.
        dominant: tokens of each picture that are kept; None for 54 of 576.
        contextual: tokens of each picture that the rest is merged into; None for 10 of 576.

    Raises:
        ValueError: not such a model, or more tokens than a picture has.
    """
    visual = as_visual(model, "visionzip")
    d = max(1, visual.tokens * 54 // 576) if dominant is None else dominant
    c = max(1, visual.tokens * 10 // 576) if contextual is None else contextual
    return _reduced(visual, [[d * visual.images, c * visual.images]], [], "visionzip")


def shared_out(tokens: int, mean: float, images: int = 1) -> list[list[int]]:
    """The released splits for a mean of `mean` x tokens, rounded stage by stage; at least one token each.

    Before the decoder every picture has as many, so that stage is rounded for one of them; no stage grows.
    """
    out, before = [], tokens
    for stage, (dominant, contextual) in enumerate(RELEASED):
        pictures = images if stage == 0 else 1
        whole = round(tokens // pictures * mean * (dominant + contextual) / 32)
        few = round(whole * contextual / (dominant + contextual))
        out.append([pictures * max(1, min(before // pictures, whole) - few), pictures * few])
        before = sum(out[-1])
    return out


def _reduced(model: VisualDecoder, splits: list[list[int]], cuts: list[int] | None, method: str) -> Reduced:
    layers = len(model.decoder.blocks)
    if getattr(model.projector, "pool", None) is not None:
        raise ValueError(f"{method}: this model pools its patches, which the tower's attention does not rank")
    _check(splits, model, method)
    after = schedules.vision_cuts(layers, len(splits) - 1) if cuts is None else cuts
    schedules.visiondrop(model.visual, layers, splits, after)
    return reduced(model, VisionDrop(splits, after), method)


def _check(splits: list[list[int]], model: VisualDecoder, method: str) -> None:
    if not splits or any(len(part) != 2 or sum(part) < 1 for part in splits):
        raise ValueError(f"{method}: splits are pairs [dominant, contextual] of at least one token, not {splits}")
    if any(number % model.images for number in splits[0]):
        raise ValueError(f"{method}: {splits[0]} before the decoder does not part among {model.images} pictures")
    before = [model.visual, *(sum(part) for part in splits)]
    if any(b > a for a, b in itertools.pairwise(before)):
        raise ValueError(f"{method}: stages of {before[1:]} tokens grow, or exceed the model's {model.visual}")


class Merger(nn.Module):
    """Dominant tokens, and targets that take the rest in."""

    charged_to = "method"

    def forward(self, x: Tensor, keys: Tensor, score: Tensor, dominant: int, contextual: int) -> tuple[Tensor, Tensor]:
        """Tokens [batch, D + C, width] and which they grew from [batch, D + C].

        Args:
            x: tokens [batch, tokens, width].
            keys: their keys [batch, tokens, size], averaged over heads.
            score: what dominant tokens are ranked by, [batch, tokens].
            dominant: D.
            contextual: C.
        """
        top = best(score, dominant)
        if contextual == 0:
            return picked(x, top), top
        rest = best(_left_by(top, score), score.shape[1] - dominant)
        targets, others = targets_of(rest, contextual)
        unit = nn.functional.normalize(keys, dim=-1)
        closest = (picked(unit, others) @ picked(unit, targets).transpose(1, 2)).argmax(dim=-1)
        merged = picked(x, targets) + mean_by(picked(x, others), closest, contextual)
        return torch.cat([picked(x, top), merged], dim=1), torch.cat([top, targets], dim=1)


def _left_by(top: Tensor, score: Tensor) -> Tensor:
    """1 for tokens that are not dominant, 0 for dominant ones."""
    return torch.ones_like(score).scatter(1, top, 0.0)


def targets_of(rest: Tensor, contextual: int) -> tuple[Tensor, Tensor]:
    """Every floor(n / C)-th of the rest [batch, n], C of them, and the others in order."""
    count = rest.shape[1]
    places = torch.arange(contextual, device=rest.device) * (count // contextual)
    flags = torch.zeros(count, device=rest.device).scatter(0, places, 1.0)
    order = flags.sort(dim=0, stable=True).indices
    return rest[:, places], rest[:, order[: count - contextual]]


def mean_by(x: Tensor, owner: Tensor, count: int) -> Tensor:
    """Mean of the rows of x [batch, n, width] that each of `count` owners has, zeros where it has none."""
    total = x.new_zeros(len(x), count, x.shape[2]).scatter_add(1, owner[..., None].expand_as(x), x)
    size = x.new_zeros(len(x), count).scatter_add(1, owner, torch.ones_like(owner, dtype=x.dtype))
    return total / size.clamp(min=1)[..., None]


class VisionDrop(Reduction):
    """Stages of dominant and contextual tokens."""

    def __init__(self, splits: list[list[int]], cuts: list[int]):
        super().__init__()
        self.splits, self.cuts = splits, cuts
        self.tower_score, self.image_score = TowerScore(), ImageScore()
        self.projections, self.merger = LayerProjections(), Merger()

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """Dominant + contextual of each stage."""
        return schedules.visiondrop(visual, layers, self.splits, self.cuts)

    def see(self, model: VisualDecoder, ids: Tensor) -> Seen:
        """Each picture's dominant and contextual tokens, taken before the projector."""
        spans = model.spans
        dominant, contextual = (number // model.images for number in self.splits[0])
        if dominant == model.tokens:
            return model.see(ids)
        parts = torch.stack([ids[:, start : start + count] for start, count in spans], dim=1)
        view = model.tower(parts.flatten(0, 1))
        first = int(view.class_token)
        score = self.tower_score(view.q, view.k, view.class_token)
        kept, origin = self.merger(view.features, view.k[:, :, first:].mean(dim=1), score, dominant, contextual)
        tokens = model.projector(kept, len(spans), origin)
        shift = torch.arange(len(spans), device=ids.device)[:, None] * model.tokens
        origin = (origin.reshape(len(ids), len(spans), -1) + shift).flatten(1)
        return Seen(tokens.reshape(len(ids), -1, tokens.shape[-1]), view, len(spans), parts.flatten(1), origin)

    def enter(self, layer: int, stream: Stream, model: VisualDecoder, wanted: int) -> tuple[Stream, Tensor | None]:
        """The next stage's tokens, placed anew; a stage of all does nothing."""
        if wanted >= stream.count:
            return stream, None
        dominant, contextual = self.splits[sum(k <= layer for k in self.cuts)]
        score, keys = self._ranked(stream, model, layer)
        x, index = self.merger(stream.visual(stream.x), keys, score, dominant, contextual)
        return stream.with_visual(x, picked(stream.origin, index)), None

    def _ranked(self, stream: Stream, model: VisualDecoder, layer: int) -> tuple[Tensor, Tensor]:
        block: Any = model.decoder.blocks[layer]
        attention, end = block.attention, stream.start + stream.count
        normed = block.norm1(stream.x[:, :end])
        by = turning(model.decoder, stream.places[..., :end])
        k = heads_of(self.projections(normed, attention.k), attention.head)
        q = heads_of(self.projections(normed[:, stream.start :], attention.q), attention.head)
        own = tuple(part[..., stream.start :, :] for part in by)
        score = self.image_score(attention.placed_queries(q, own), attention.placed_keys(k, by))
        return score, k[:, :, stream.start :].mean(dim=1)
