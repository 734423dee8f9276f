"""What every method has to beat: FastV, VisionZip and SparseVLM's lists, and dropping at random or evenly.

FastV (Chen et al. 2024, arXiv 2403.06764): behind layer K the share 1 - R of the image tokens stays, by the last
token's attention in layer K - 1; places are kept. SparseVLM (Zhang et al. 2024, arXiv 2410.04417): lists of counts
behind layers 2, 6 and 15 of 32, ranked by the attention of words to the picture; here by all words behind it, in the
layer before the cut, and nothing that is dropped comes back: its choice of words and its recycling are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate, PositiveInt, Rate
from suites.common.visual_decoder import Stream, VisualDecoder
from suites.vlm_tokens import schedules
from suites.vlm_tokens.reduced import Inside, Reduced, Reduction, as_visual, best, keep, reduced
from suites.vlm_tokens.scores import RowScore, TextScore


def fastv(model: nn.Module, *, K: PositiveInt = 2, R: Rate = 0.5) -> Reduced:
    """The model in which the share R of the image tokens goes behind layer K.

    Args:
        model: reads pictures before words.
        K: layers that see all tokens.
        R: share that is dropped.

    Raises:
        ValueError: not such a model, or K beyond its layers.
    """
    _within(model, K, "K")
    return reduced(model, FastV(K, R), "fastv")


def sparsevlm(model: nn.Module, *, kept: list[Count] | None = None, cuts: list[PositiveInt] | None = None) -> Reduced:
    """The model with a list of counts behind three cuts.

    Args:
        model: reads pictures before words.
        kept: visual tokens behind each cut; None for the paper's shares at "192": 300, 200 and 110 of 576.
        cuts: layers behind which they are cut; None for 2, 6 and 15 of 32 at the same share of the depth.

    Raises:
        ValueError: not such a model, more tokens than there are, or lists that do not fit.
    """
    visual = as_visual(model, "sparsevlm")
    counts = [visual.visual * part // 576 for part in (300, 200, 110)] if kept is None else kept
    if any(a < b for a, b in zip([visual.visual, *counts], counts, strict=False)):
        raise ValueError(f"kept={counts}: counts fall from {visual.visual} on")
    method = SparseVLM(counts, cuts)
    method.plan(visual.visual, len(visual.decoder.blocks), 1)
    return reduced(model, method, "sparsevlm")


def uniform(model: nn.Module, *, keep: KeepRate = 0.5, layer: Count = 0) -> Reduced:
    """The model that keeps floor(keep v) image tokens at even distances.

    Args:
        model: reads pictures before words.
        keep: share that is kept.
        layer: first layer that sees fewer.

    Raises:
        ValueError: not such a model, or a layer beyond its own.
    """
    _within(model, layer, "layer")
    return reduced(model, Blind(keep, layer, None), "uniform")


def random(model: nn.Module, *, keep: KeepRate = 0.5, layer: Count = 0, draw: Count = 0) -> Reduced:
    """The model that keeps floor(keep v) image tokens at random, the same places of every picture.

    Args:
        model: reads pictures before words.
        keep: share that is kept.
        layer: first layer that sees fewer.
        draw: seed of the choice.

    Raises:
        ValueError: not such a model, or a layer beyond its own.
    """
    _within(model, layer, "layer")
    return reduced(model, Blind(keep, layer, draw), "random")


def _within(model: nn.Module, layer: int, name: str) -> None:
    if isinstance(model, VisualDecoder) and layer > len(model.decoder.blocks):
        raise ValueError(f"{name}={layer}: the decoder has {len(model.decoder.blocks)} layers")


class FastV(Reduction):
    """The row of the last token in the layer before the cut."""

    def __init__(self, after: int, drop: float):
        super().__init__()
        self.after, self.drop, self.row = after, drop, RowScore()

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """All, then floor(v (1 - R))."""
        return schedules.fastv(visual, layers, self.after, self.drop)

    def leave(self, layer: int, stream: Stream, inside: Inside, wanted: int) -> Stream:
        """The best tokens behind layer K - 1."""
        if wanted >= stream.count:
            return stream
        scores = self.row(inside.q[:, :, -1:], inside.k, stream.start, stream.count)
        return keep(stream, best(scores, wanted), renumber=False)


class SparseVLM(Reduction):
    """Lists of counts, ranked by the words behind the picture."""

    def __init__(self, kept: list[int], cuts: list[int] | None):
        super().__init__()
        self.kept, self.cuts, self.mass = kept, cuts, TextScore()

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """The list."""
        return schedules.sparsevlm(visual, layers, self.kept, self.cuts)

    def leave(self, layer: int, stream: Stream, inside: Inside, wanted: int) -> Stream:
        """The planned number of tokens for the next layer."""
        if wanted >= stream.count:
            return stream
        return keep(stream, best(self.mass(inside, stream), wanted), renumber=False)


class Blind(Reduction):
    """Places that nothing about the picture decides."""

    def __init__(self, share: float, layer: int, draw: int | None):
        super().__init__()
        self.share, self.layer, self.draw = share, layer, draw

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """All, then floor(keep v)."""
        return schedules.share(visual, layers, self.share, self.layer)

    def enter(self, layer: int, stream: Stream, model: VisualDecoder, wanted: int) -> tuple[Stream, Tensor | None]:
        """Fewer tokens from one layer on."""
        if wanted >= stream.count:
            return stream, None
        index = even(stream.count, wanted) if self.draw is None else drawn(stream.count, wanted, self.draw)
        rows = index.to(stream.x.device).expand(len(stream.x), -1)
        return keep(stream, rows, renumber=False), None


def even(tokens: int, kept: int) -> Tensor:
    """floor(i tokens / kept) for i = 0 .. kept - 1."""
    return torch.arange(kept) * tokens // kept


def drawn(tokens: int, kept: int, seed: int) -> Tensor:
    """`kept` ascending places at random."""
    return torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))[:kept].sort().values
