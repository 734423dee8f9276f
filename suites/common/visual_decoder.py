"""A decoder that reads pictures before words: tower, projector, decoder, and a prompt in which pictures stand whole.

A prompt is ids [batch, tokens]: `prefix` words, then the visual tokens of `images` pictures, `between` words behind
each but the last, then the question. A visual token's id carries what the tower needs of it (`suites.common.
digit_scenes`), or nothing at all, where pictures are counted and never seen.

The decoder's layers run over a `Stream`: features, their rotary places, and where its visual tokens stand, so that a
method may take tokens out between two layers. Layers then keep different numbers of tokens, and a new token's place
may differ from layer to layer: `VisualCache.places`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from suites.common.decoder import Decoder, Generator
from suites.common.rotary import Rotation, rotation_at


@dataclass(frozen=True)
class View:
    """What a tower says of pictures.

    Attributes:
        features: [pictures, tokens, width], without a class token.
        q, k: queries and keys of the layer whose features these are, [pictures, heads, tokens (+ 1), head width].
        class_token: whether a class token stands first in `q` and `k`.
    """

    features: Tensor
    q: Tensor
    k: Tensor
    class_token: bool


@dataclass(frozen=True)
class Seen:
    """Pictures as the decoder gets them.

    Attributes:
        tokens: visual tokens, [batch, visual, width].
        view: what the tower says of them.
        images: how many of the prompt's pictures were looked at, the last ones.
        ids: their ids in the prompt, [batch, visual ids].
        origin: which of the tower's tokens each visual token grew from [batch, visual], None where nothing changed.
    """

    tokens: Tensor
    view: View
    images: int
    ids: Tensor
    origin: Tensor | None = None


@dataclass(frozen=True)
class Stream:
    """Tokens between two layers.

    Attributes:
        x: features, [batch, tokens, width].
        places: rotary places, [tokens] if the rows of the batch have the same ones, else [batch, tokens].
        start, count: where the visual tokens stand and how many there are, words between pictures included.
        origin: which of the first visual tokens each one is (for a merged one: which it grew from), [batch, count].
        following: rotary place of a token behind these.
        words: words between pictures.
    """

    x: Tensor
    places: Tensor
    start: int
    count: int
    origin: Tensor
    following: int
    words: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of a row."""
        return self.x.shape[1]

    def visual(self, x: Tensor) -> Tensor:
        """The visual rows of something [batch, tokens, ...]."""
        return x[:, self.start : self.start + self.count]

    def with_visual(self, visual: Tensor, origin: Tensor, places: Tensor | None = None) -> Stream:
        """The stream with other visual tokens in place of its own, at these places or numbered 0 .. n - 1 again."""
        end, following = self.start + self.count, self.following
        x = torch.cat([self.x[:, : self.start], visual, self.x[:, end:]], dim=1)
        if places is None:
            places, following = torch.arange(x.shape[1], device=x.device), x.shape[1]
        return replace(self, x=x, places=places, count=visual.shape[1], origin=origin, following=following)


@dataclass(frozen=True)
class VisualCache:
    """What the layers keep, and the rotary place of the next token in each layer."""

    kept: tuple[Any, ...]
    places: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of what is kept."""
        return sum(part.bytes for part in self.kept)


def turning(decoder: Decoder, places: Tensor) -> Rotation:
    """Cosines and sines of places [tokens] or [batch, tokens], in a form that broadcasts over heads."""
    like = decoder.embed.weight
    cos, sin = rotation_at(places.flatten(), decoder.rotary_size, like, decoder.base)
    if places.dim() == 1:
        return cos, sin
    shape = (*places.shape, -1)
    return cos.reshape(shape)[:, None], sin.reshape(shape)[:, None]


class VisualDecoder(Generator):
    """The plain model: all visual tokens go through all layers."""

    def __init__(
        self, tower: nn.Module, projector: nn.Module, decoder: Decoder, *, tokens: int, images: int = 1,
        prefix: int = 1, between: int = 0,
    ):  # fmt: skip
        """`tokens` are the visual tokens of one picture as the decoder gets them."""
        super().__init__()
        self.tower, self.projector, self.decoder = tower, projector, decoder
        self.tokens, self.images, self.prefix, self.between = tokens, images, prefix, between
        self.vocabulary, self.shape = decoder.vocabulary, decoder.shape

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Start and length of every picture in the prompt."""
        step = self.tokens + self.between
        return [(self.prefix + index * step, self.tokens) for index in range(self.images)]

    @property
    def visual(self) -> int:
        """Visual tokens of a prompt."""
        return self.images * self.tokens

    @property
    def contiguous(self) -> bool:
        """Whether all visual tokens stand together."""
        return self.images == 1 or self.between == 0

    def see(self, ids: Tensor, last: int | None = None) -> Seen:
        """The prompt's pictures, or its `last` ones, through tower and projector."""
        spans = self.spans if last is None else self.spans[-last:]
        parts = torch.stack([ids[:, start : start + count] for start, count in spans], dim=1)
        view = self.tower(parts.flatten(0, 1))
        tokens = self.projector(view.features, len(spans))
        return Seen(tokens.reshape(len(ids), -1, tokens.shape[-1]), view, len(spans), parts.flatten(1))

    def encode_pictures(self, ids: Tensor) -> Tensor:
        """The prompt's pictures as the decoder gets them, [batch, visual, width]."""
        return self.see(ids).tokens

    def words(self, ids: Tensor) -> list[Tensor]:
        """Features of the words: before the pictures, after each of them, [batch, words, width] each."""
        edges = [0]
        for start, count in self.spans:
            edges += [start, start + count]
        edges.append(ids.shape[1])
        return [self.decoder.embed(ids[:, a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def stream(self, ids: Tensor, seen: Seen) -> Stream:
        """The prompt's tokens before the first layer.

        Pictures may come with fewer tokens than the tower gave: those that follow move up. Pictures that were not
        looked at leave a gap between the places of what stands around them.

        Raises:
            ValueError: there are no words behind the pictures.
        """
        words = self.words(ids)
        if words[-1].shape[1] < 1:
            raise ValueError(
                f"a prompt of {ids.shape[1]} tokens ends with its pictures ({self.spans[-1][0] + self.tokens} tokens): "
                "set shape.context to at least one more"
            )
        unseen = self.images - seen.images
        pictures = seen.tokens.chunk(seen.images, dim=1)
        parts, places, at = [words[0]], [torch.arange(words[0].shape[1], device=ids.device)], words[0].shape[1]
        for index, behind in enumerate(words[1:]):
            if index >= unseen:
                picture = pictures[index - unseen]
                parts.append(picture)
                places.append(torch.arange(at, at + picture.shape[1], device=ids.device))
                at += picture.shape[1]
            else:
                at += self.tokens
            parts.append(behind)
            places.append(torch.arange(at, at + behind.shape[1], device=ids.device))
            at += behind.shape[1]
        start = words[0].shape[1] + unseen * self.between
        between = (seen.images - 1) * self.between
        count = seen.tokens.shape[1] + between
        origin = torch.arange(count, device=ids.device).expand(len(ids), -1) if seen.origin is None else seen.origin
        return Stream(torch.cat(parts, dim=1), torch.cat(places), start, count, origin, at, between)

    def features(self, ids: Tensor) -> Tensor:
        """Normalised features of every position, [batch, tokens, width], without a cache."""
        return self.along(self.stream(ids, self.see(ids)))

    def along(self, stream: Stream) -> Tensor:
        """Normalised features of a stream's tokens behind all layers, without a cache."""
        x, by = stream.x, turning(self.decoder, stream.places)
        for block in self.decoder.blocks:
            x = block(x, by)
        return self.decoder.norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the last position, [batch, vocabulary], without a cache."""
        return self.decoder.head(self.features(ids)[:, -1])

    def prefill(self, ids: Tensor) -> tuple[Tensor, VisualCache]:
        """Logits of the last position [batch, vocabulary] and the cache."""
        last, cache = self.read(ids)
        return self.decoder.head(last), cache

    def read(self, ids: Tensor) -> tuple[Tensor, VisualCache]:
        """Normalised features of the last position [batch, width], and the cache."""
        stream = self.stream(ids, self.see(ids))
        x, by, kept = stream.x, turning(self.decoder, stream.places), []
        for block in self.decoder.blocks:
            x, left = block.prefill(x, by)
            kept.append(left)
        places = (stream.following,) * len(kept)
        return self.decoder.norm(x[:, -1]), VisualCache(tuple(kept), places)

    def decode(self, ids: Tensor, cache: VisualCache) -> tuple[Tensor, VisualCache]:
        """Logits of the next position [batch, vocabulary] after one more token [batch, 1], and the cache."""
        x, kept = self.decoder.embed(ids), []
        turns: dict[int, Rotation] = {}
        for block, before, place in zip(self.decoder.blocks, cache.kept, cache.places, strict=True):
            if place not in turns:
                turns[place] = self.decoder.rotation(place, 1)
            x, left = self.step(block, x, turns[place], before)
            kept.append(left)
        following = tuple(place + 1 for place in cache.places)
        return self.decoder.head(self.decoder.norm(x[:, -1])), VisualCache(tuple(kept), following)

    def step(self, block: Any, x: Tensor, by: Rotation, before: Any) -> tuple[Tensor, Any]:
        """One layer of a decode step."""
        return block.step(x, by, before)

    def visual_tokens(self) -> list[int]:
        """How many visual tokens enter each layer: all of them."""
        return [self.visual] * len(self.decoder.blocks)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one cached number."""
        own = 8.0 * self.decoder.embed.weight.element_size()
        return {"nominal": own, "stored": own}

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids of a prompt with ten words behind its pictures, [batch, tokens]."""
        device = self.decoder.head.weight.device
        return (torch.randint(self.vocabulary, (batch, self.spans[-1][0] + self.tokens + 10), device=device),)
