"""What visual tokens are ranked by: attention rows and maps that fused kernels do not return, computed where needed.

Every class is the method's own work (`charged_to`), and gives scores [batch, visual].
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.decoder_cache import behind, grouped_scores, probabilities
from suites.common.visual_decoder import Stream, VisualDecoder, turning
from suites.vlm_tokens.reduced import Inside, heads_of

Form = Literal["reuse", "minimal", "released"]


class LayerProjections(nn.Module):
    """Projections of a layer's weights that only a method asks for."""

    charged_to = "method"

    def forward(self, x: Tensor, linear: nn.Linear) -> Tensor:
        """The linear map of features [batch, tokens, width]."""
        return F.linear(x, linear.weight, linear.bias)


class RowScore(nn.Module):
    """Mean over heads of one query's softmax over all keys, at the visual ones."""

    charged_to = "method"

    def forward(self, q: Tensor, k: Tensor, start: int, count: int) -> Tensor:
        """Of queries [batch, heads, queries, size], mean over them too; all keys [batch, kv heads, tokens, size]."""
        rows = probabilities(q, k, behind(q.shape[2], k.shape[2], q.device) if q.shape[2] > 1 else None)
        return rows.mean(dim=(1, 2))[:, start : start + count]


class NextLayerScore(nn.Module):
    """Attention of the last token in the layer that is about to come (PyramidDrop's ranking).

    With `reuse` the layer gets the keys of the tokens that are kept, so that of the keys only those of dropped tokens
    are extra: as many rows as will be kept are projected by the layer itself, the rest by the method. `minimal`
    projects all keys apart, `released` queries, keys and values of all.
    """

    def __init__(self, form: Form = "reuse"):
        super().__init__()
        self.form = form
        self.projections, self.row = LayerProjections(), RowScore()

    def forward(self, stream: Stream, model: VisualDecoder, layer: int, kept: int) -> tuple[Tensor, Tensor | None]:
        """Scores [batch, visual] and, of `reuse`, all keys [batch, tokens, width] without rotation."""
        block: Any = model.decoder.blocks[layer]
        attention, by = block.attention, turning(model.decoder, stream.places)
        normed = block.norm1(stream.x)
        keys = self._keys(attention, normed, stream, kept)
        if self.form == "released":
            q = self.projections(normed, attention.q)[:, -1:]
            self.projections(normed, attention.v)
        else:
            q = self.projections(normed[:, -1:], attention.q)
        last = tuple(part[..., -1:, :] for part in by)
        placed = attention.placed_queries(heads_of(q, attention.head), last)
        scores = self.row(placed, attention.placed_keys(heads_of(keys, attention.head), by), stream.start, stream.count)
        return scores, keys if self.form == "reuse" else None

    def _keys(self, attention: Any, normed: Tensor, stream: Stream, kept: int) -> Tensor:
        if self.form != "reuse":
            return self.projections(normed, attention.k)
        first, end = stream.start + kept, stream.start + stream.count
        own = attention.k(torch.cat([normed[:, :first], normed[:, end:]], dim=1))
        extra = self.projections(normed[:, first:end], attention.k)
        return torch.cat([own[:, :first], extra, own[:, first:]], dim=1)


def kept_keys(keys: Tensor, stream: Stream, index: Tensor, head: int) -> Tensor:
    """Keys [batch, kv heads, tokens, head] of a stream whose visual tokens at `index` stay."""
    from suites.vlm_tokens.reduced import picked

    end = stream.start + stream.count
    visual = picked(keys[:, stream.start : end], index)
    return heads_of(torch.cat([keys[:, : stream.start], visual, keys[:, end:]], dim=1), head)


class TextScore(nn.Module):
    """Attention mass that visual tokens get from the words behind them, mean over heads, sum over words."""

    charged_to = "method"

    def forward(self, inside: Inside, stream: Stream) -> Tensor:
        """Scores of the layer's queries and keys."""
        end = stream.start + stream.count
        q = inside.q[:, :, end:]
        rows = probabilities(q, inside.k, behind(q.shape[2], inside.k.shape[2], q.device))
        return rows.mean(dim=1).sum(dim=1)[:, stream.start : end]


class ImageScore(nn.Module):
    """Attention of visual tokens to each other: mean over queries and heads of the causal softmax (VisionDrop).

    Words before the picture take part in the softmax and not in the score.
    """

    charged_to = "method"

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Of visual queries [batch, heads, visual, size] and all keys up to the last visual one."""
        visual, tokens = q.shape[2], k.shape[2]
        rows = probabilities(q, k, behind(visual, tokens, q.device))
        return rows.mean(dim=(1, 2))[:, tokens - visual :]


class TowerScore(nn.Module):
    """Attention of the class token, or without one of all tokens, to the patches of each picture, mean over heads."""

    charged_to = "method"

    def forward(self, q: Tensor, k: Tensor, class_token: bool) -> Tensor:
        """Of queries and keys [pictures, heads, tokens, size]; scores [pictures, patches]."""
        if class_token:
            return probabilities(q[:, :, :1], k).mean(dim=(1, 2))[:, 1:]
        return probabilities(q, k).mean(dim=(1, 2))


class PageRank(nn.Module):
    """Importance of tokens under a sharpened causal attention map, started evenly (AIM, arXiv 2412.03248)."""

    charged_to = "method"

    def __init__(self, rounds: int = 5, temperature: float = 0.1):
        super().__init__()
        self.rounds, self.temperature = rounds, temperature

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """The root mean square over heads, [batch, tokens], of queries and keys [batch, heads, tokens, size]."""
        tokens = q.shape[2]
        logits = grouped_scores(q, k) * (q.shape[-1] ** -0.5 / self.temperature)
        seen = behind(tokens, tokens, q.device)
        return self.rank(logits.masked_fill(~seen, -torch.inf).softmax(dim=-1))

    def rank(self, moves: Tensor) -> Tensor:
        """The same of a map [batch, heads, tokens, tokens] whose rows sum to one."""
        share = torch.full_like(moves[..., :1, :], 1 / moves.shape[-1])
        for _ in range(self.rounds):
            share = share @ moves
        return share[..., 0, :].square().mean(dim=1).sqrt()
