"""CoreMatching: neurons choose tokens, tokens choose neurons (Wang et al. 2025, arXiv 2505.19235).

A neuron's activation is act(gate x) * (up x). Core neurons of a token are the share rho of its positive activations
that are largest; those of the sentence the share beta of all neurons that most tokens have among theirs. A token's
matching count is how many neurons are positive for it and for the prompt's last token; sorted, the counts bend at the
point that lies farthest from the chord between first and last, and tokens that count at least as much are core tokens.
Only they go on behind the matching layer, and only their keys and values are decoded with, by core neurons alone: rows
and columns of the gated network that are gathered once per prompt.

Rebuilt: rho, beta and the layer; equal distances from the chord take the first point, so that a straight line keeps
what is equal to its top. The released code zeroes keys and values, which then still take their part of the softmax;
here they are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, KeepRate
from suites.common.decoder_cache import Kept, pair
from suites.common.rotary import Rotation
from suites.common.shares import at_most
from suites.common.visual_decoder import Stream, VisualCache, VisualDecoder
from suites.vlm_tokens import schedules
from suites.vlm_tokens.reduced import Inside, Reduced, Reduction, as_visual, best, keep, picked, reduced

PAPER_LAYER = 10


def corematching(
    model: nn.Module,
    *,
    layer: Count | None = None,
    rho: KeepRate = 0.4,
    beta: KeepRate = 0.4,
    tokens: bool = True,
    neurons: bool = True,
    keep: KeepRate | None = None,
) -> Reduced:
    """The model with core tokens and core neurons.

    Args:
        model: reads pictures before words.
        layer: whose activations are matched; None for 10 of 32 at the same share of the depth.
        rho: share of a token's positive activations that are its core neurons.
        beta: share of the neurons that decode; 1 for all.
        tokens: whether tokens go.
        neurons: whether neurons go.
        keep: share of the visual tokens that stay, by the same counts, instead of the bend; a stated number, which
            counts without values and batches need.

    Raises:
        ValueError: not such a model, or a layer beyond its own.
    """
    visual = as_visual(model, "corematching")
    layers = len(visual.decoder.blocks)
    place = PAPER_LAYER * layers // schedules.PAPER_LAYERS if layer is None else layer
    if place >= layers:
        raise ValueError(f"layer={place}: the decoder has {layers} layers, the first is 0")
    return reduced(visual, CoreMatching(place, rho, beta, tokens, neurons, keep, layers), "corematching")


@dataclass(frozen=True)
class CoreKept(Kept):
    """A layer's keys and values with the rows of its gated network that decode, [batch, neurons, width] each."""

    kept: Any
    gate: Tensor
    up: Tensor
    down: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of keys and values; the copies of weights are in `allocated`."""
        return int(self.kept.bytes)


class Matching(nn.Module):
    """Matching counts of visual tokens with the last one."""

    charged_to = "method"

    def forward(self, active: Tensor, start: int, count: int) -> Tensor:
        """How many neurons are positive for a visual token and for the last one, [batch, visual].

        `active` are the activations [batch, tokens, neurons].
        """
        on = (active > 0).to(active.dtype)
        return (on[:, start : start + count] @ on[:, -1, :, None])[..., 0]


def bend(counts: Tensor) -> int:
    """How many counts [tokens] are at least as high as where their sorted line lies farthest from its chord."""
    line = counts.sort(descending=True).values.double()
    along = torch.arange(len(line), device=line.device, dtype=line.dtype) / max(1, len(line) - 1)
    distance = (line - (line[0] + (line[-1] - line[0]) * along)).abs()
    return int((counts >= counts.sort(descending=True).values[int(distance.argmax())]).sum())


def core_of_tokens(active: Tensor, rho: float) -> Tensor:
    """Which neurons are core to each token, [batch, tokens, neurons]: its ceil(rho p) largest of p positive ones."""
    order = active.argsort(dim=-1, descending=True)
    rank = torch.arange(active.shape[-1], device=active.device).expand_as(active)
    wanted = (rho * (active > 0).sum(dim=-1, keepdim=True)).ceil()
    return torch.zeros_like(active, dtype=torch.bool).scatter(-1, order, rank < wanted)


def core_of_sentence(active: Tensor, rho: float, count: int) -> Tensor:
    """The `count` neurons that are core to most tokens, ascending [batch, count]; of equals the first."""
    return best(core_of_tokens(active, rho).sum(dim=1).to(active.dtype), count)


class CoreMatching(Reduction):
    """Tokens behind one layer, neurons of every layer."""

    def __init__(
        self, layer: int, rho: float, beta: float, tokens: bool, neurons: bool, share: float | None, layers: int
    ):
        super().__init__()
        self.layer, self.rho, self.beta, self.drops = layer, rho, beta, tokens
        self.neurons, self.share = neurons and beta < 1, share
        self.data_dependent = tokens and share is None
        self.activations = tuple(range(layers)) if self.neurons else (layer,) if tokens and share != 1 else ()
        self.matching = Matching()
        self._core: dict[int, Tensor] = {}
        self._index: Tensor | None = None
        self._visual = 0

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """All, and from behind the layer on the stated share; all where the bend decides."""
        if not self.drops or self.share is None:
            return [visual] * layers
        return schedules.core(visual, layers, self.layer, max(1, at_most(visual, self.share)))

    def see(self, model: VisualDecoder, ids: Tensor) -> Any:
        """The pictures; what the last prompt left behind is forgotten."""
        self._core, self._index = {}, None
        return super().see(model, ids)

    def leave(self, layer: int, stream: Stream, inside: Inside, wanted: int) -> Stream:
        """Core tokens alone, behind the matching layer."""
        if layer != self.layer or not self.drops or inside.active is None:
            return stream
        counts = self.matching(inside.active, stream.start, stream.count)
        kept = bend(counts[0]) if self.share is None else wanted
        if kept == stream.count:
            return stream
        self._index, self._visual = best(counts, kept), stream.count
        return keep(stream, self._index, renumber=False)

    def observe(self, layer: int, block: Any, active: Tensor) -> None:
        """Note a layer's core neurons."""
        if self.neurons:
            count = max(1, at_most(active.shape[-1], self.beta))
            self._core[layer] = core_of_sentence(active, self.rho, count)

    def close(self, cache: VisualCache, stream: Stream, model: VisualDecoder) -> VisualCache:
        """Keys and values of core tokens in every layer, and the rows of weights that decode."""
        kept = list(cache.kept)
        if self._index is not None:
            for layer in range(self.layer + 1):
                kept[layer] = self._without_others(kept[layer], stream.start)
        if self.neurons:
            for layer, block in enumerate(model.decoder.blocks):
                kept[layer] = self._with_rows(kept[layer], block.network, self._core[layer])
        self._core = {}
        return VisualCache(tuple(kept), cache.places)

    def _without_others(self, kept: Any, start: int) -> Any:
        assert self._index is not None
        k, v = kept.k.filled, kept.v.filled
        tokens, batch = k.shape[2], len(k)
        mine = self._index + start
        end = start + self._visual
        before = torch.arange(start, device=k.device).expand(batch, -1)
        behind = torch.arange(end, tokens, device=k.device).expand(batch, -1)
        index = torch.cat([before, mine, behind], dim=1)
        k, v = (picked(x.transpose(1, 2), index).transpose(1, 2) for x in (k, v))
        return pair(k, v)

    def _with_rows(self, kept: Any, network: Any, index: Tensor) -> CoreKept:
        gate, up = network.gate.weight[index], network.up.weight[index]
        return CoreKept(kept, gate, up, network.down.weight.t()[index])

    def step(self, layer: int, block: Any, x: Tensor, by: Rotation, kept: Any) -> tuple[Tensor, Any]:
        """One layer of a decode step, by core neurons."""
        if not isinstance(kept, CoreKept):
            return super().step(layer, block, x, by, kept)
        attended, left = block.attention.step(block.norm1(x), by, kept.kept)
        x = x + attended
        seen = block.norm2(x)
        active = F.silu(seen @ kept.gate.transpose(1, 2)) * (seen @ kept.up.transpose(1, 2))
        return x + active @ kept.down, CoreKept(left, kept.gate, kept.up, kept.down)
