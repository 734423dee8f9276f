"""HiconAgent's anchor-guided history compression: past screens go, past actions stay (arXiv 2512.01763).

A prompt is an instruction, then for every past step its screen and the action that was taken, then the current screen.
At the entry of layer k every token of a past screen is removed; actions, instruction and the current screen stay at
their original places. k = 0 is a model that never looked at past screens, k = L the plain one. The recipe that trains
the policy (sampled histories, two branches and an alignment loss) is no part of the row.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.config.settings import Count
from suites.common.visual_decoder import Seen, Stream, VisualDecoder
from suites.vlm_tokens import schedules
from suites.vlm_tokens.reduced import Reduced, Reduction, as_visual, reduced


def ahc(model: nn.Module, *, k: Count = 6) -> Reduced:
    """The policy whose layers from k on see the current screen alone.

    Args:
        model: reads screens with actions between them.
        k: first layer without past screens; 0 for none at all, the depth for all of them everywhere.

    Raises:
        ValueError: not such a model, or k beyond its layers.
    """
    visual = as_visual(model, "ahc")
    if k > len(visual.decoder.blocks):
        raise ValueError(f"k={k}: the decoder has {len(visual.decoder.blocks)} layers")
    if visual.images > 1 and not visual.between:
        raise ValueError("ahc removes screens between actions; this model's pictures have no words between them")
    return reduced(visual, HistoryCompression(k, visual.images), "ahc")


class HistoryCompression(Reduction):
    """Removes whole pictures: nothing is ranked, so nothing is computed."""

    refuses_parts = False

    def __init__(self, k: int, screens: int):
        super().__init__()
        self.k, self.screens = k, screens

    def see(self, model: VisualDecoder, ids: Tensor) -> Seen:
        """All screens, or with k = 0 the current one."""
        return model.see(ids, last=1 if self.k == 0 else None)

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """All screens' tokens below layer k, one screen's from there on."""
        return schedules.ahc(self.screens, visual // self.screens, layers, self.k)

    def enter(self, layer: int, stream: Stream, model: VisualDecoder, wanted: int) -> tuple[Stream, Tensor | None]:
        """The tokens without past screens, at their places."""
        if layer != self.k or model.images == 1 or self.k == 0:
            return stream, None
        history = model.spans[:-1]
        edges = [0, *(edge for start, count in history for edge in (start, start + count)), stream.tokens]
        spans = list(zip(edges[::2], edges[1::2], strict=True))
        x = torch.cat([stream.x[:, a:b] for a, b in spans], dim=1)
        places = torch.cat([stream.places[a:b] for a, b in spans])
        removed = sum(count for _, count in history)
        start, count = model.spans[-1]
        origin = stream.origin[:, start - stream.start :]
        return replace(
            stream, x=x, places=places, start=start - removed, count=count, origin=origin, words=0
        ), None  # fmt: skip
