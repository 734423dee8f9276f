"""The model whose visual tokens become fewer on their way through tower and decoder.

A method is a `Reduction`. It may change what the decoder is given (`look`), the tokens that enter a layer (`enter`) and
those that leave it (`leave`); it says beforehand how many there will be (`plan`). Its own products (scores, matching,
keys of tokens that are dropped) run below modules that say `charged_to = "method"`. What it drops is gone: later layers
neither compute nor keep it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.decoder import Generator
from suites.common.rotary import Rotation
from suites.common.visual_decoder import Seen, Stream, VisualCache, VisualDecoder, turning


@dataclass(frozen=True)
class Inside:
    """What a layer computed: queries and keys with their rotation, and its gated activations where they are wanted."""

    q: Tensor
    k: Tensor
    by: Rotation
    active: Tensor | None = None


class Reduction(nn.Module):
    """Changes nothing; a method overrides what it changes.

    Attributes:
        activations: layers whose gated activations `leave` is to get.
        refuses_parts: whether pictures with words between them are refused.
        data_dependent: whether the number of tokens depends on the input, so that a batch has one row.
    """

    activations: tuple[int, ...] = ()
    refuses_parts = True
    data_dependent = False

    def see(self, model: VisualDecoder, ids: Tensor) -> Seen:
        """The pictures through tower and projector."""
        return model.see(ids)

    def look(self, seen: Seen) -> Seen:
        """What the decoder is given."""
        return seen

    def enter(self, layer: int, stream: Stream, model: VisualDecoder, wanted: int) -> tuple[Stream, Tensor | None]:
        """The `wanted` visual tokens that enter a layer, and keys without rotation if they are there already."""
        return stream, None

    def leave(self, layer: int, stream: Stream, inside: Inside, wanted: int) -> Stream:
        """Tokens that leave a layer, of which the next one is to see `wanted` visual ones; not asked of the last."""
        return stream

    def observe(self, layer: int, block: Any, active: Tensor) -> None:
        """Take note of a layer's gated activations, [batch, tokens, neurons]."""

    def close(self, cache: VisualCache, stream: Stream, model: VisualDecoder) -> VisualCache:
        """The cache after the prompt."""
        return cache

    def step(self, layer: int, block: Any, x: Tensor, by: Rotation, kept: Any) -> tuple[Tensor, Any]:
        """One layer of a decode step."""
        return block.step(x, by, kept)

    def plan(self, visual: int, layers: int, text: int) -> list[int]:
        """Visual tokens that enter each layer; of `visual` ones in a prompt with `text` words."""
        return [visual] * layers


class Reduced(Generator):
    """A visual decoder with a reduction.

    Attributes:
        tokens_per_layer: visual tokens that entered each layer in the last prompt.
        kept_origin: which of the first visual tokens left the last layer, [batch, kept].
    """

    def __init__(self, model: VisualDecoder, reduction: Reduction):
        super().__init__()
        if reduction.refuses_parts and not model.contiguous:
            raise ValueError(
                f"{type(reduction).__name__} works on visual tokens that stand together; this model has words between "
                "its pictures: take ahc, or a model with one picture"
            )
        self.model, self.reduction = model, reduction
        self.vocabulary, self.shape = model.vocabulary, model.shape
        self.input_dependent = reduction.data_dependent
        if model.encode_pictures is None:  # its pictures come as features
            self.encode_pictures = None
        self.tokens_per_layer: list[int] = []
        self.kept_origin: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """What a task asks of the plain model (kind, patch, views, ...)."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("model", "reduction") or name.startswith("_"):
                raise
            return getattr(super().__getattr__("model"), name)

    def plan(self, context: int) -> list[int]:
        """Visual tokens that enter each layer of a prompt of `context` tokens."""
        visual = self.model.visual
        return self.reduction.plan(visual, len(self.model.decoder.blocks), context - visual)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the last position, [batch, vocabulary], without a cache."""
        return self.model.decoder.head(self.read(ids, caching=False)[0])

    def prefill(self, ids: Tensor) -> tuple[Tensor, VisualCache]:
        """Logits of the last position [batch, vocabulary] and the cache, whose layers differ in length."""
        last, cache, _ = self.read(ids)
        return self.model.decoder.head(last), cache

    def masks(self, ids: Tensor) -> Tensor:
        """Logits of each patch of the picture, [batch, patches]."""
        last, _, seen = self.read(ids, caching=False)
        model: Any = self.model
        return model.mask_logits(last, seen.view.features.reshape(len(ids), -1, last.shape[-1]))

    def read(self, ids: Tensor, caching: bool = True) -> tuple[Tensor, VisualCache, Seen]:
        """Normalised features of the last position, the cache (empty without `caching`), and what the tower saw.

        Raises:
            ValueError: several rows, where how many tokens go on depends on the row.
        """
        if self.reduction.data_dependent and len(ids) > 1:
            raise ValueError(
                f"{type(self.reduction).__name__} keeps another number of tokens in every row: run a batch of 1"
            )
        seen = self.reduction.see(self.model, ids)
        stream = self.model.stream(ids, self.reduction.look(seen))
        kept, places, counts, planned = [], [], [], self.plan(ids.shape[1])
        for layer, block in enumerate(self.model.decoder.blocks):
            stream, keys = self.reduction.enter(layer, stream, self.model, planned[layer])
            counts.append(stream.count - stream.words)
            places.append(stream.following)
            stream, left, inside = self._through(layer, block, stream, keys, caching)
            kept.append(left)
            if layer + 1 < len(planned):
                stream = self.reduction.leave(layer, stream, inside, planned[layer + 1])
        self.tokens_per_layer, self.kept_origin = counts, stream.origin
        cache = VisualCache(tuple(kept), tuple(places))
        if caching:
            cache = self.reduction.close(cache, stream, self.model)
        return self.model.decoder.norm(stream.x[:, -1]), cache, seen

    def _through(
        self, layer: int, block: Any, stream: Stream, keys: Tensor | None, caching: bool
    ) -> tuple[Stream, Any, Inside]:
        """One layer over a prompt."""
        by = turning(self.model.decoder, stream.places)
        attention = block.attention
        normed = block.norm1(stream.x)
        if keys is None:
            q, k, v = attention.project(normed, by)
        else:
            q, v = (heads_of(linear(normed), attention.head) for linear in (attention.q, attention.v))
            q, k = attention.placed_queries(q, by), attention.placed_keys(keys, by)
        attended, left = attention.keeper.prefill(q, k, v) if caching else (attention.keeper.attend(q, k, v), None)
        x = stream.x + attention.merge(attended)
        active = None
        if layer in self.reduction.activations:
            network, seen = block.network, block.norm2(x)
            active = F.silu(network.gate(seen)) * network.up(seen)
            x = x + network.down(active)
            self.reduction.observe(layer, block, active)
        else:
            x = x + block.network(block.norm2(x))
        return replace(stream, x=x), left, Inside(q, k, by, active)

    def decode(self, ids: Tensor, cache: VisualCache) -> tuple[Tensor, VisualCache]:
        """Logits of the next position [batch, vocabulary] after one more token [batch, 1], and the cache."""
        decoder = self.model.decoder
        x, kept = decoder.embed(ids), []
        turns: dict[int, Rotation] = {}
        for layer, (block, before, place) in enumerate(zip(decoder.blocks, cache.kept, cache.places, strict=True)):
            if place not in turns:
                turns[place] = decoder.rotation(place, 1)
            x, left = self.reduction.step(layer, block, x, turns[place], before)
            kept.append(left)
        following = tuple(place + 1 for place in cache.places)
        return decoder.head(decoder.norm(x[:, -1])), VisualCache(tuple(kept), following)

    def encode_pictures(self, ids: Tensor) -> Tensor:
        """The prompt's pictures before the decoder, chosen among where the method does so in the tower.

        They are [batch, visual, width].
        """
        return self.reduction.see(self.model, ids).tokens

    def visual_tokens(self) -> list[int]:
        """How many visual tokens entered each layer in the last prompt."""
        return self.tokens_per_layer

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number of the dense cache that a prompt like the last one takes."""
        own = 8.0 * self.model.decoder.embed.weight.element_size()
        return {"nominal": own, "stored": own}

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """The plain model's."""
        return self.model.example_inputs(batch)


def as_visual(model: nn.Module, method: str) -> VisualDecoder:
    """The model, if it reads pictures before words and nothing has been changed yet.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(model, VisualDecoder):
        raise ValueError(
            f"{method} works on models that read pictures before words (scene_64, llava_1_5_7b, ...), not on "
            f"{type(model).__name__}"
        )
    return model


def reduced(model: nn.Module, reduction: Reduction, method: str) -> Reduced:
    """The model with a reduction, in evaluation mode."""
    out = Reduced(as_visual(model, method), reduction)
    if hasattr(model, "task"):
        out.task = model.task
    return out.eval()


def heads_of(x: Tensor, size: int) -> Tensor:
    """[batch, tokens, heads x size] as [batch, heads, tokens, size]."""
    return x.unflatten(-1, (-1, size)).transpose(1, 2)


def picked(x: Tensor, index: Tensor) -> Tensor:
    """Rows [batch, kept, ...] of x [batch, tokens, ...] at index [batch, kept]."""
    shape = (*index.shape, *([1] * (x.dim() - 2)))
    return x.gather(1, index.reshape(shape).expand(*index.shape, *x.shape[2:]))


def keep(stream: Stream, index: Tensor, *, renumber: bool) -> Stream:
    """The stream with the visual tokens at `index` [batch, kept], in that order.

    Places are 0 .. n - 1 again, or stay those that the tokens had.
    """
    visual = picked(stream.visual(stream.x), index)
    end = stream.start + stream.count
    origin = picked(stream.origin, index)
    if renumber:
        return stream.with_visual(visual, origin)
    known = stream.places.expand(len(index), -1)
    kept = picked(known[:, stream.start : end], index)
    places = torch.cat([known[:, : stream.start], kept, known[:, end:]], dim=1)
    return stream.with_visual(visual, origin, places)


def best(score: Tensor, count: int) -> Tensor:
    """Ascending indices [batch, count] of the highest scores [batch, tokens]; of equal ones the first are kept."""
    order = score.sort(dim=-1, descending=True, stable=True).indices
    return order[:, :count].sort(dim=-1).values
