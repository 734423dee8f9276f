"""KV Prediction: a small model reads the prompt and predicts the cache (Horton et al. 2024, arXiv 2410.08391).

Linear maps give the big model its cache. Base layer i takes its keys and values, all heads merged and keys before norm
and rotation, by two linear maps with bias from those of auxiliary layer j_i. A request runs the auxiliary model on all
but the last token of the prompt, without its head, then the base on that last token alone, which gives the first new
token, then the base by itself. Training makes small the base's cross-entropy through the predicted cache, the
auxiliary's own, and the mean distance of predicted from true caches; the base is not updated.

Beyond the paper: of the auxiliary's last layer only keys and values are computed, since nothing reads the rest.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Counts
from suites.common.decoder import Decoder, DecoderCache, Generator, as_decoder
from suites.common.decoder_cache import pair
from suites.common.decoder_shape import (
    DecoderShape,
    LayerShape,
    attention_macs,
    macs_decode_step,
    network_macs,
    position_macs,
)
from suites.common.decoder_shapes import shape_of
from suites.common.training import Pace
from suites.decode.added import added_bytes
from suites.decode.taught import taught


def kv_prediction(
    model: nn.Module, *, keep_layers: Counts | None = None, auxiliary: str | None = None, training_steps: Count = 0
) -> Generator:
    """The decoder whose prompt is read by a copy of some of its layers (KVP-LP), or by a smaller decoder (KVP-C).

    Args:
        model: a decoder with a plain cache.
        keep_layers: layers, counted from 0, that the auxiliary model keeps; None for every second.
        auxiliary: name of a smaller decoder (`openelm_450m`) that reads the prompt instead, with random weights until
            it is trained; of the same vocabulary and no deeper. Its last layers serve one layer each, its first ones
            two, as in the paper.
        training_steps: batches that auxiliary and maps learn from on the task the model was loaded by; 0 leaves copied
            layers and identity maps.

    Raises:
        ValueError: not such a model, layers that it does not have, a sibling that does not fit, or nothing to train on.
        UsageError: no decoder has that name.
    """
    base = as_decoder(model, "kv_prediction")
    if auxiliary is None:
        kept = _kept_layers(len(base.blocks), keep_layers)
        small, mapping = pruned(base, kept), spread_mapping(len(base.blocks), kept)
    else:
        if keep_layers is not None:
            raise ValueError("keep_layers and auxiliary both say who reads the prompt: keep one")
        small, mapping = _sibling(base, auxiliary)
    combined = KVPrediction(base, small, mapping)
    settings = {"keep_layers": keep_layers, "auxiliary": auxiliary}
    pace = Pace(training_steps, rate=1e-3, fresh_rate=2e-3)
    return taught(combined, model, kv_prediction, settings, pace, lambda ids, _: combined.loss(ids))


def _kept_layers(depth: int, wanted: list[int] | None) -> list[int]:
    kept = list(range(0, depth, 2)) if wanted is None else list(wanted)
    if sorted(set(kept)) != kept or not kept or kept[-1] >= depth:
        raise ValueError(f"keep_layers={kept}: layers counted from 0, ascending, below {depth} are wanted")
    return kept


def _sibling(base: Decoder, name: str) -> tuple[Decoder, list[int]]:
    """A decoder of that name beside the base, and which of its layers serves each of the base's."""
    shape, depth = shape_of(name), len(base.blocks)
    if shape.vocabulary != base.vocabulary or any(layer.latent is not None for layer in shape.layers):
        raise ValueError(f"auxiliary={name}: a decoder with key heads and {base.vocabulary} tokens is wanted")
    if not len(shape.layers) <= depth <= 2 * len(shape.layers):
        raise ValueError(f"auxiliary={name} has {len(shape.layers)} layers: {-(-depth // 2)} to {depth} are wanted")
    weight = base.embed.weight
    with torch.device(weight.device):
        small = Decoder(shape).to(weight.dtype)
    return small.eval(), early_shared_mapping(depth, len(shape.layers))


def pruned(base: Decoder, layers: list[int]) -> Decoder:
    """A decoder of some of the base's layers, with weights of its own."""
    small = copy.deepcopy(base)
    small.blocks = nn.ModuleList(copy.deepcopy(base.blocks[i]) for i in layers)
    small.shape = replace(base.shape, layers=tuple(base.shape.layers[i] for i in layers))
    return small


def spread_mapping(depth: int, kept: list[int]) -> list[int]:
    """For each base layer the place of the nearest kept layer at or below it."""
    return [max((place for place, layer in enumerate(kept) if layer <= i), default=0) for i in range(depth)]


def early_shared_mapping(base_layers: int, auxiliary_layers: int) -> list[int]:
    """Early base layers share an auxiliary layer in pairs: 0 0 1 1 ... 7 7 8 9 ... 19 for 28 layers on 20."""
    shared = base_layers - auxiliary_layers
    return [i // 2 if i < 2 * shared else i - shared for i in range(base_layers)]


def predictor_parameters(base: DecoderShape, auxiliary: DecoderShape, mapping: list[int]) -> int:
    """Weights and biases of the maps: 2 (in + 1) out per base layer, in merged key widths."""
    total = 0
    for layer, source in zip(base.layers, mapping, strict=True):
        given = auxiliary.layers[source]
        total += 2 * (given.kv_heads * given.head + 1) * layer.kv_heads * layer.head
    return total


class Predictor(nn.Module):
    """Maps of keys and of values for every base layer."""

    def __init__(self, base: DecoderShape, auxiliary: DecoderShape, mapping: list[int]):
        super().__init__()
        self.mapping = mapping
        self.k = nn.ModuleList(_map(auxiliary.layers[j], i) for i, j in zip(base.layers, mapping, strict=True))
        self.v = nn.ModuleList(_map(auxiliary.layers[j], i) for i, j in zip(base.layers, mapping, strict=True))

    def forward(self, found: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Predicted merged keys and values of the base's layers from those of the auxiliary's."""
        maps = zip(self.k, self.v, self.mapping, strict=True)
        return [(k(found[j][0]), v(found[j][1])) for k, v, j in maps]


def _map(given: LayerShape, wanted: LayerShape) -> nn.Linear:
    """A linear map that starts as the identity where the widths agree."""
    linear = nn.Linear(given.kv_heads * given.head, wanted.kv_heads * wanted.head)
    if linear.in_features == linear.out_features and not linear.weight.is_meta:
        nn.init.eye_(linear.weight)
    if not linear.weight.is_meta:
        nn.init.zeros_(linear.bias)
    return linear


class Auxiliary(nn.Module):
    """The small model; all of it is the method's own."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Merged keys (unrotated) and values of every layer, [batch, tokens, width]; what no layer reads is not run."""
        decoder = self.decoder
        x, by, found = decoder.embed(ids), decoder.rotation(0, ids.shape[1]), []
        for block in decoder.blocks[:-1]:
            x, raw = _through(block, x, by)
            found.append(raw)
        last = decoder.blocks[-1]
        h = last.norm1(x)
        found.append((last.attention.k(h), last.attention.v(h)))
        return found


def _through(block: Any, x: Tensor, by: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A block's output, and its merged keys and values."""
    attention = block.attention
    q, k, v = attention.raw(block.norm1(x))
    placed = attention.placed_queries(q, by), attention.placed_keys(k, by), v
    x = x + attention.merge(attention.keeper.attend(*placed))
    return x + block.network(block.norm2(x)), (_merged(k), _merged(v))


def _merged(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


class KVPrediction(Generator):
    """Base, auxiliary model and predictor."""

    def __init__(self, base: Decoder, auxiliary: Decoder, mapping: list[int]):
        super().__init__()
        self.base, self.auxiliary = base, Auxiliary(auxiliary)
        self.predictor = Predictor(base.shape, auxiliary.shape, mapping)
        self.vocabulary, self.shape = base.vocabulary, base.shape

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position as if the prompt ended there: predicted keys before it, its own at it."""
        return self._parallel(self.predictor(self.auxiliary(ids)), ids)

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position and the base's cache: predicted for all but the last token."""
        if ids.shape[1] == 1:
            return self.base.prefill(ids)
        before = ids[:, :-1]
        by = self.base.rotation(0, before.shape[1])
        kept = []
        for block, (k, v) in zip(self.base.blocks, self.predictor(self.auxiliary(before)), strict=True):
            keys, values = _heads(block.attention, k, v)
            kept.append(pair(block.attention.placed_keys(keys, by), values))
        return self.base.decode(ids[:, -1:], DecoderCache(tuple(kept), before.shape[1]))

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position, by the base alone."""
        return self.base.decode(ids, cache)

    def method_bytes(self) -> int:
        """Bytes of the auxiliary model and of the maps."""
        return added_bytes(self.auxiliary, self.predictor)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: the base's own."""
        return self.base.cache_bits()

    def _parallel(self, predicted: list[tuple[Tensor, Tensor]], ids: Tensor) -> Tensor:
        x, by = self.base.embed(ids), self.base.rotation(0, ids.shape[1])
        for block, (k, v) in zip(self.base.blocks, predicted, strict=True):
            attention = block.attention
            q, own_k, own_v = attention.project(block.norm1(x), by)
            keys, values = _heads(attention, k, v)
            x = x + attention.merge(before_and_own(q, attention.placed_keys(keys, by), values, own_k, own_v))
            x = x + block.network(block.norm2(x))
        return self.base.head(self.base.norm(x))

    def loss(self, ids: Tensor) -> Tensor:
        """Cross-entropy through the predicted cache + the auxiliary's own + mean |predicted - true| over layers."""
        inputs, wanted = ids[:, :-1], ids[:, 1:]
        predicted = self.predictor(self.auxiliary(inputs))
        with torch.no_grad():
            true = Auxiliary(self.base)(inputs)
        distance = inputs.new_zeros((), dtype=predicted[0][0].dtype)
        for (k, v), (true_k, true_v) in zip(predicted, true, strict=True):
            distance = distance + F.l1_loss(k, true_k) + F.l1_loss(v, true_v)
        own = F.cross_entropy(self.auxiliary.decoder(inputs).flatten(0, 1), wanted.flatten())
        for parameter in self.base.parameters():
            parameter.requires_grad_(False)
        through = F.cross_entropy(self._parallel(predicted, inputs).flatten(0, 1), wanted.flatten())
        return through + own + distance / len(predicted)


def _heads(attention: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    shape = (attention.kv_heads, attention.head)
    return k.unflatten(-1, shape).transpose(1, 2), v.unflatten(-1, shape).transpose(1, 2)


def before_and_own(q: Tensor, k: Tensor, v: Tensor, own_k: Tensor, own_v: Tensor) -> Tensor:
    """Attention in which position i sees `k`, `v` before i and `own_k`, `own_v` at i, [batch, heads, tokens, size]."""
    share, tokens = q.shape[1] // k.shape[1], q.shape[2]
    k, v, own_k, own_v = (x.repeat_interleave(share, dim=1) for x in (k, v, own_k, own_v))
    scale = q.shape[-1] ** -0.5
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril(-1)
    scores = (q @ k.transpose(-2, -1) * scale).masked_fill(~seen, -torch.inf)
    own = (q * own_k).sum(dim=-1, keepdim=True) * scale
    weights = torch.cat([scores, own], dim=-1).softmax(dim=-1)
    return weights[..., :-1] @ v + weights[..., -1:] * own_v


def macs_first_token(base: DecoderShape, auxiliary: DecoderShape, mapping: list[int], tokens: int) -> int:
    """Products until the first new token: auxiliary on tokens - 1, maps, base on the last token."""
    before = tokens - 1
    total = 0
    for layer in auxiliary.layers[:-1]:
        linear = attention_macs(layer, auxiliary.width) + network_macs(layer, auxiliary.width)
        total += before * linear + position_macs(layer) * before**2
    last = auxiliary.layers[-1]
    total += before * 2 * auxiliary.width * last.kv_heads * last.head
    for layer, source in zip(base.layers, mapping, strict=True):
        given = auxiliary.layers[source]
        total += before * 2 * given.kv_heads * given.head * layer.kv_heads * layer.head
    return total + macs_decode_step(base, tokens)
