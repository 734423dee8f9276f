"""PyramidDrop: image tokens halve stage by stage (Xing et al. 2024, arXiv 2410.17247, section 3.2).

Behind each of S - 1 cuts floor(v keep^i) image tokens stay, counted from the first number. They are ranked by the
attention of the prompt's last token in the layer that follows the cut: that layer's norm, query and key maps and
rotation, softmax over the whole sequence, mean over heads. Their order is kept and places are numbered anew.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.visual_decoder import Stream, VisualDecoder
from suites.vlm_tokens import schedules
from suites.vlm_tokens.reduced import Reduced, Reduction, best, keep, reduced
from suites.vlm_tokens.scores import Form, NextLayerScore, kept_keys


def pyramiddrop(
    model: nn.Module,
    *,
    lam: KeepRate = 0.5,
    stages: PositiveInt = 4,
    cuts: list[Count] | None = None,
    score: Literal["reuse", "minimal", "released"] = "reuse",
) -> Reduced:
    """The model that drops image tokens behind layers.

    Args:
        model: reads pictures before words.
        lam: lambda, share of the tokens that a cut leaves.
        stages: equal stages, cut at multiples of L // S.
        cuts: layers behind which tokens go, instead of equal stages.
        score: whose keys the ranking costs: `reuse` hands those of kept tokens on to the layer, `minimal` computes
            all of them apart, `released` queries, keys and values of all.

    Raises:
        ValueError: not such a model, more stages than layers, or cuts out of order.
    """
    visual, layers = (model.visual, len(model.decoder.blocks)) if isinstance(model, VisualDecoder) else (0, 0)
    if layers and cuts is None and stages > layers:
        raise ValueError(f"stages={stages}: the decoder has {layers} layers")
    found = PyramidDrop(lam, stages, cuts, score)
    if layers:
        found.plan(visual, layers, 1)
    return reduced(model, found, "pyramiddrop")


class NextLayerCuts(Reduction):
    """Cuts a planned number of tokens by what the last token of the prompt looks at in the layer that follows."""

    renumber = True

    def __init__(self, form: Form):
        super().__init__()
        self.ranking = NextLayerScore(form)

    def enter(self, layer: int, stream: Stream, model: VisualDecoder, wanted: int) -> tuple[Stream, Tensor | None]:
        """The planned number of tokens, and their keys where they are there already."""
        if wanted >= stream.count:
            return stream, None
        scores, keys = self.ranking(stream, model, layer, wanted)
        index = best(scores, wanted)
        if keys is not None:
            keys = kept_keys(keys, stream, index, model.decoder.blocks[layer].attention.head)
        return keep(stream, index, renumber=self.renumber), keys


class PyramidDrop(NextLayerCuts):
    """The schedule of the paper."""

    def __init__(self, lam: float, stages: int, cuts: list[int] | None, form: Form):
        super().__init__(form)
        self.lam, self.stages, self.cuts = lam, stages, cuts

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """floor(v lambda^i) behind cut i."""
        return schedules.pyramiddrop(visual, layers, self.lam, self.stages, self.cuts)
