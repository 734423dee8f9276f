"""Sorted LLaMA: one head for several depths of one decoder (Kavehzadeh et al. 2023, arXiv 2309.08968).

Sub-model n is the first n layers with the shared last norm and head. Training makes small the mean cross-entropy over a
set of depths in one forward; the head then runs once per depth. Inference: a fixed exit; a confidence exit, which
leaves at the first depth whose most likely token passes a threshold; or self-speculation, in which a shallow depth
drafts and the full one verifies (see speculation.py). Beside them stand the plain model cut at a depth, and the same
with a head of its own there.

Reconstructed: after a confidence exit the skipped layers still need keys and values, and get them by their own key and
value maps from the state at the exit (2 d g h products a layer). A batch leaves together, when all of its sequences are
sure.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Counts, KeepRate, PositiveInt
from suites.common.decoder import Decoder, DecoderCache, Generator, as_decoder
from suites.common.decoder_shape import DecoderShape, attention_macs, head_macs, network_macs, position_macs
from suites.common.sorted_exits import cut, depths_of, sorted_loss
from suites.common.training import Pace
from suites.decode.taught import taught

#: Depths of byte_3m.
HOUSE_EXITS = (2, 3, 4, 5, 6)
#: Rate of sorted training and of heads that learn alone.
RATE = 2e-3


def sorted_exit(
    model: nn.Module,
    *,
    exit: PositiveInt = 3,
    exits: Counts | None = None,
    heads: Literal["shared", "own"] = "shared",
    training_steps: Count = 0,
) -> Decoder:
    """The decoder that ends after `exit` layers.

    Args:
        model: a decoder with a plain cache.
        exit: number of layers that run.
        exits: depths that are trained together; None for the second layer and every later one.
        heads: one head for all depths, or the baseline: the plain model's layers as they are, and at each depth a head
            of its own that learns alone.
        training_steps: batches of sorted training on the task the model was loaded by; 0 cuts the plain model.

    Raises:
        ValueError: not such a model, depths that it does not have, or nothing to train on.
    """
    decoder = as_decoder(model, "sorted_exit")
    depths = depths_of(decoder, exits)
    if not 1 <= exit <= len(decoder.blocks):
        raise ValueError(f"exit={exit}: a depth from 1 to {len(decoder.blocks)} is wanted")
    if heads == "own":
        return with_own_head(cut(decoder, exit), training_steps)
    return cut(trained_at(decoder, depths, training_steps), exit)


def trained_at(decoder: Decoder, depths: list[int], steps: int) -> Decoder:
    """The decoder after sorted training at the given depths, in place; as it is for 0 steps."""

    def loss(ids: Tensor, wanted: Tensor) -> Tensor:
        return sorted_loss(decoder, ids, wanted, depths)

    return taught(decoder, decoder, sorted_exit, {"depths": depths}, Pace(steps, rate=RATE), loss)


def with_own_head(decoder: Decoder, steps: int) -> Decoder:
    """The decoder with a head of its own, which learns on the layers as they are, in place."""
    decoder.head = copy.deepcopy(decoder.head)
    decoder.shape = replace(decoder.shape, tied=False)
    others = [p for p in decoder.parameters() if p.requires_grad and p is not decoder.head.weight]
    for parameter in others:
        parameter.requires_grad_(False)

    def loss(ids: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(decoder(ids).flatten(0, 1), wanted.flatten())

    settings = {"head": len(decoder.blocks)}
    taught(decoder, decoder, sorted_exit, settings, Pace(steps, rate=RATE), loss)
    for parameter in others:
        parameter.requires_grad_(True)
    return decoder


def own_head_parameters(shape: DecoderShape, exits: int) -> int:
    """What heads of their own add to so many exits of an untied decoder: (exits - 1) V d."""
    return (exits - 1) * head_macs(shape)


def confidence_exit(
    model: nn.Module, *, threshold: KeepRate = 0.9, exits: Counts | None = None, training_steps: Count = 0
) -> Generator:
    """The decoder that leaves at the first depth that is sure of the next token; at threshold 1 it never does.

    Args:
        model: a decoder with a plain cache.
        threshold: probability that the most likely token must pass.
        exits: depths at which it may leave; None for the second layer and every later one.
        training_steps: batches of sorted training on the task the model was loaded by.

    Raises:
        ValueError: not such a model, depths that it does not have, or nothing to train on.
    """
    decoder = as_decoder(model, "confidence_exit")
    depths = depths_of(decoder, exits)
    leaving = ConfidenceExit(trained_at(decoder, depths, training_steps), depths, threshold)
    if training_steps:
        leaving.learned, leaving.method_cost = decoder.learned, decoder.method_cost  # what the row says of itself
    return leaving


class ConfidenceExit(Generator):
    """A decoder that leaves early; `left` tells the depths of the steps since `left.clear()`."""

    def __init__(self, decoder: Decoder, depths: list[int], threshold: float):
        super().__init__()
        self.decoder, self.depths, self.threshold = decoder, depths, threshold
        self.vocabulary, self.shape = decoder.vocabulary, decoder.shape
        self.left: list[int] = []

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position at full depth."""
        return self.decoder(ids)

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position and the cache, at full depth."""
        return self.decoder.prefill(ids)

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position at the first depth that is sure, and the cache of all layers."""
        decoder = self.decoder
        x, by = decoder.embed(ids), decoder.rotation(cache.seen, ids.shape[1])
        kept: list[Any] = []
        for depth, (block, before) in enumerate(zip(decoder.blocks, cache.kept, strict=True), start=1):
            x, left = block.step(x, by, before)
            kept.append(left)
            if depth not in self.depths and depth < len(decoder.blocks):
                continue
            logits = decoder.head(decoder.norm(x[:, -1]))
            if self._sure(logits):
                break
        self.left.append(len(kept))
        for block, before in zip(decoder.blocks[len(kept) :], cache.kept[len(kept) :], strict=True):
            kept.append(before.extended(*block.attention.keys_and_values(block.norm1(x), by)))
        return logits, DecoderCache(tuple(kept), cache.seen + ids.shape[1])

    def _sure(self, logits: Tensor) -> bool:
        if self.threshold >= 1:
            return False
        return bool((logits.softmax(dim=-1).amax(dim=-1) > self.threshold).all())

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        return self.decoder.cache_bits()


def macs_exit_step(shape: DecoderShape, depth: int, keys: int, tried: int) -> int:
    """Products of a step that leaves at `depth` after `tried` runs of the head; skipped layers only map k and v."""
    total = tried * head_macs(shape)
    for index, layer in enumerate(shape.layers):
        if index < depth:
            total += attention_macs(layer, shape.width) + network_macs(layer, shape.width)
            total += keys * position_macs(layer)
        else:
            total += 2 * shape.width * layer.kv_heads * layer.head
    return total
