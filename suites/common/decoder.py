"""The house's decoder: RMSNorm, rotary positions, gated SiLU; shared key heads or latent attention.

Its cache is a part. Every subject of the suites that generate offers what `Generator` names; `Decoder` is the plain
one. Weights have the names and layout of one linear map each, so that a Llama checkpoint of the same shape says the
same (see the tests).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder_cache import Keeper, Kept, copied, tensors_of
from suites.common.decoder_shape import DecoderShape, LayerShape, cached_numbers, uniform
from suites.common.decoder_shapes import HOUSE_LATENT, shape_of
from suites.common.experts import Form, Gated, MixtureOfExperts
from suites.common.initial import draw
from suites.common.latent_attention import LatentAttention, LatentCache
from suites.common.rotary import Rotation, rotated, rotation

EPS = 1e-6
#: Tokens of the example prompt.
EXAMPLE_TOKENS = 128


class Generator(nn.Module):
    """What a subject of the workload `generate` offers; ids are whole numbers [batch, tokens] on the module's device.

    A subclass defines `forward(ids)`, `prefill(ids)`, `decode(ids, cache)` and `vocabulary`.
    """

    vocabulary: int

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position, [batch, tokens, vocabulary], in one parallel pass without a cache."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def prefill(self, ids: Tensor) -> tuple[Tensor, Any]:
        """Logits of the last position [batch, vocabulary] of a prompt, and the cache."""
        raise NotImplementedError(f"{type(self).__name__} does not define prefill")

    def decode(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the next position [batch, vocabulary] after one more token [batch, 1], and the cache."""
        raise NotImplementedError(f"{type(self).__name__} does not define decode")

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids, [batch, tokens]."""
        device = next(self.parameters()).device
        return (torch.randint(self.vocabulary, (batch, EXAMPLE_TOKENS), device=device),)

    def copy_cache(self, cache: Any) -> Any:
        """A cache of the same content in memory of its own."""
        return copied(cache)

    def cache_bytes(self, cache: Any) -> int:
        """Bytes of what is kept between steps: codes, scales, indices; room that is reserved but unused is left out."""
        return int(cache.bytes)

    def cache_allocated(self, cache: Any) -> int:
        """Bytes of the cache's memory, unused room included."""
        return sum(t.numel() * t.element_size() for t in tensors_of(cache))

    def method_bytes(self) -> int:
        """Bytes that a method adds to the model: codebooks, predictors, low-rank factors; 0 for a plain model."""
        seen: dict[int, int] = {}
        for module in self.modules():
            if getattr(module, "charged_to", None) == "method":
                for tensor in [*module.parameters(), *module.buffers()]:
                    seen[id(tensor)] = tensor.numel() * tensor.element_size()
        return sum(seen.values())


class Attention(nn.Module):
    """Causal attention with shared key heads; its keeper owns the cache."""

    def __init__(self, width: int, layer: LayerShape, qkv_bias: bool = False, qk_norm: bool = False):
        super().__init__()
        self.heads, self.kv_heads, self.head = layer.heads, layer.kv_heads, layer.head
        self.q = nn.Linear(width, layer.heads * layer.head, bias=qkv_bias)
        self.k = nn.Linear(width, layer.kv_heads * layer.head, bias=qkv_bias)
        self.v = nn.Linear(width, layer.kv_heads * layer.head, bias=qkv_bias)
        self.out = nn.Linear(layer.heads * layer.head, width, bias=False)
        self.q_norm = nn.RMSNorm(layer.head, eps=EPS) if qk_norm else None
        self.k_norm = nn.RMSNorm(layer.head, eps=EPS) if qk_norm else None
        self.keeper = Keeper()

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values before norm and rotation, each [batch, its heads, tokens, size]."""
        q = self.q(x).unflatten(-1, (self.heads, self.head)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (self.kv_heads, self.head)).transpose(1, 2)
        v = self.v(x).unflatten(-1, (self.kv_heads, self.head)).transpose(1, 2)
        return q, k, v

    def project(self, x: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys and values, each [batch, its heads, tokens, size]."""
        q, k, v = self.raw(x)
        return self.placed_queries(q, by), self.placed_keys(k, by), v

    def keys_and_values(self, x: Tensor, by: Rotation) -> tuple[Tensor, Tensor]:
        """Rotated keys and values alone, each [batch, kv heads, tokens, size]."""
        k = self.k(x).unflatten(-1, (self.kv_heads, self.head)).transpose(1, 2)
        v = self.v(x).unflatten(-1, (self.kv_heads, self.head)).transpose(1, 2)
        return self.placed_keys(k, by), v

    def placed_queries(self, q: Tensor, by: Rotation) -> Tensor:
        """Queries after their norm and rotation."""
        return rotated(q if self.q_norm is None else self.q_norm(q), by)

    def placed_keys(self, k: Tensor, by: Rotation) -> Tensor:
        """Keys after their norm and rotation."""
        return rotated(k if self.k_norm is None else self.k_norm(k), by)

    def merge(self, attended: Tensor) -> Tensor:
        """The output map over all heads, [batch, tokens, width]."""
        return self.out(attended.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, by: Rotation) -> Tensor:
        """Attention of a whole sequence."""
        return self.merge(self.keeper.attend(*self.project(x, by)))

    def prefill(self, x: Tensor, by: Rotation) -> tuple[Tensor, Kept]:
        """Attention of a prompt, and what it leaves behind."""
        attended, kept = self.keeper.prefill(*self.project(x, by))
        return self.merge(attended), kept

    def step(self, x: Tensor, by: Rotation, kept: Any) -> tuple[Tensor, Kept]:
        """Attention of tokens that follow, and what is kept afterwards."""
        attended, kept = self.keeper.step(*self.project(x, by), kept)
        return self.merge(attended), kept


class Block(nn.Module):
    """Pre-norm attention and gated network, each beside a residual."""

    def __init__(self, shape: DecoderShape, layer: LayerShape, latent: LatentCache = "auto", form: Form = "sorted"):
        super().__init__()
        self.norm1 = nn.RMSNorm(shape.width, eps=EPS)
        self.attention: Any
        if layer.latent is None:
            self.attention = Attention(shape.width, layer, shape.qkv_bias, shape.qk_norm)
        else:
            self.attention = LatentAttention(shape.width, layer, latent)
        self.norm2 = nn.RMSNorm(shape.width, eps=EPS)
        self.network: nn.Module
        if layer.experts is None:
            self.network = Gated(shape.width, layer.hidden)
        else:
            self.network = MixtureOfExperts(shape.width, layer.experts, form)

    def forward(self, x: Tensor, by: Rotation) -> Tensor:
        """Features of a whole sequence, [batch, tokens, width]."""
        x = x + self.attention(self.norm1(x), by)
        return x + self.network(self.norm2(x))

    def prefill(self, x: Tensor, by: Rotation) -> tuple[Tensor, Kept]:
        """Features of a prompt, and what it leaves behind."""
        attended, kept = self.attention.prefill(self.norm1(x), by)
        x = x + attended
        return x + self.network(self.norm2(x)), kept

    def step(self, x: Tensor, by: Rotation, kept: Any) -> tuple[Tensor, Kept]:
        """Features of tokens that follow, and what is kept afterwards."""
        attended, kept = self.attention.step(self.norm1(x), by, kept)
        x = x + attended
        return x + self.network(self.norm2(x)), kept


@dataclass(frozen=True)
class DecoderCache:
    """What the layers keep after `seen` tokens."""

    kept: tuple[Any, ...]
    seen: int

    @property
    def bytes(self) -> int:
        """Bytes of what is kept."""
        return sum(part.bytes for part in self.kept)


class Decoder(Generator):
    """A plain decoder; every method of the suites changes one part of it."""

    def __init__(
        self, shape: DecoderShape, latent: LatentCache = "auto", form: Form = "sorted", base: float = 10_000.0
    ):
        super().__init__()
        self.shape, self.base, self.vocabulary = shape, base, shape.vocabulary
        first = shape.layers[0]
        self.rotary_size = first.head if first.latent is None else first.latent.rope
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks: Any = nn.ModuleList(Block(shape, layer, latent, form) for layer in shape.layers)
        self.norm = nn.RMSNorm(shape.width, eps=EPS)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.apply(_initialise)
        self._quieten_residuals()
        if shape.tied:
            self.head.weight = self.embed.weight

    def _quieten_residuals(self) -> None:
        """Scale what is added to the residual so that its variance does not grow with depth (GPT-2)."""
        factor = 1 / math.sqrt(2 * len(self.blocks))
        with torch.no_grad():
            for block in self.blocks:
                block.attention.out.weight.mul_(factor)
                network = block.network
                (network.down.weight if isinstance(network, Gated) else network.down).mul_(factor)

    def rotation(self, start: int, count: int) -> Rotation:
        """The rotation of positions start .. start + count - 1."""
        return rotation(start, count, self.rotary_size, self.embed.weight, self.base)

    def features(self, ids: Tensor) -> Tensor:
        """Normalised features of every position, [batch, tokens, width], without a cache."""
        x, by = self.embed(ids), self.rotation(0, ids.shape[1])
        for block in self.blocks:
            x = block(x, by)
        return self.norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position, [batch, tokens, vocabulary]."""
        return self.head(self.features(ids))

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position [batch, vocabulary] and the cache; the head runs on that position alone."""
        x, cache = self.prefilled(ids)
        return self.head(self.norm(x[:, -1])), cache

    def prefilled(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Features of a prompt before the last norm, [batch, tokens, width], and the cache."""
        x, by = self.embed(ids), self.rotation(0, ids.shape[1])
        kept = []
        for block in self.blocks:
            x, left = block.prefill(x, by)
            kept.append(left)
        return x, DecoderCache(tuple(kept), ids.shape[1])

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position [batch, vocabulary] after further tokens [batch, one or more], and the cache."""
        x, cache = self.stepped(ids, cache)
        return self.head(self.norm(x[:, -1])), cache

    def stepped(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Features of further tokens before the last norm, [batch, tokens, width], and the cache."""
        x, by = self.embed(ids), self.rotation(cache.seen, ids.shape[1])
        kept = []
        for block, before in zip(self.blocks, cache.kept, strict=True):
            x, left = block.step(x, by, before)
            kept.append(left)
        return x, DecoderCache(tuple(kept), cache.seen + ids.shape[1])

    def cache_bits(self) -> dict[str, float]:
        """Bits of one cached number, mean over layers: `nominal` as in the method's paper, `stored` in the long run."""
        own = 8.0 * self.embed.weight.element_size()
        keepers = [getattr(block.attention, "keeper", None) for block in self.blocks]
        nominal = [getattr(keeper, "nominal_bits", None) or own for keeper in keepers]
        stored = [getattr(keeper, "stored_bits", None) or own for keeper in keepers]
        return {"nominal": sum(nominal) / len(nominal), "stored": sum(stored) / len(stored)}

    def dense_cache_bytes(self, batch: int, tokens: int) -> int:
        """Bytes that a plain cache keeps of so many tokens."""
        numbers = sum(cached_numbers(layer) for layer in self.shape.layers)
        return batch * tokens * numbers * self.embed.weight.element_size()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        draw(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def decoder(
    *,
    width: PositiveInt = 192,
    layers: PositiveInt = 6,
    heads: PositiveInt = 6,
    kv_heads: PositiveInt | None = None,
    head: PositiveInt | None = None,
    hidden: PositiveInt = 512,
    vocabulary: PositiveInt = 256,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    tied: bool = False,
    latent: bool = False,
) -> Decoder:
    """A decoder in evaluation mode with random weights; the defaults are `byte_3m`.

    Args:
        width: features per token.
        layers: number of blocks.
        heads: query heads.
        kv_heads: key and value heads, a divisor of `heads`; None for as many (MHA), 1 is MQA.
        head: size of a head, even; None for width / heads.
        hidden: width of the gated network.
        vocabulary: number of token ids.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normalised.
        tied: whether embedding and head are one table.
        latent: latent attention of rank 64 with 16 rotary and 32 plain numbers per head instead of key heads.

    Raises:
        ValueError: the numbers do not fit together.
    """
    _check(width, heads, kv_heads, head)
    shape = uniform(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        hidden=hidden,
        vocabulary=vocabulary,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        tied=tied,
        latent=HOUSE_LATENT if latent else None,
    )
    return Decoder(shape).eval()


def _check(width: int, heads: int, kv_heads: int | None, head: int | None) -> None:
    if head is None and width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}: choose heads that divide it, or set head")
    size = width // heads if head is None else head
    if size % 2:
        raise ValueError(f"a head of {size} numbers cannot be rotated in pairs: set an even head, such as {size + 1}")
    if kv_heads is not None and heads % kv_heads:
        raise ValueError(f"kv_heads={kv_heads} does not divide heads={heads}: every key head serves equally many")


def published_decoder(
    *,
    name: str,
    form: Literal["auto", "absorbed", "recomputed", "expanded"] = "auto",
    mixture: Literal["loop", "sorted", "dense"] = "sorted",
    layers: PositiveInt | None = None,
) -> Decoder:
    """The decoder of a named shape in evaluation mode with random weights.

    Args:
        name: a row of suites/common/decoder_shapes.py.
        form: how latent attention decodes.
        mixture: how a mixture of experts runs.
        layers: the first so many layers only; None for all.

    Raises:
        UsageError: there is no such shape.
    """
    shape = shape_of(name)
    if layers is not None:
        shape = replace(shape, layers=shape.layers[:layers])
    return Decoder(shape, form, mixture).eval()


def as_decoder(model: nn.Module, method: str) -> Decoder:
    """The model, if it is a decoder with key heads whose caches are plain: what methods on caches work on.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(model, Decoder):
        raise ValueError(f"{method} works on decoders of suites.common.decoder, not on {type(model).__name__}")
    if any(layer.latent is not None for layer in model.shape.layers):
        raise ValueError(f"{method} works on caches of keys and values; latent attention keeps neither")
    if any(type(block.attention.keeper) is not Keeper for block in model.blocks):
        raise ValueError(
            f"{method}: the model's cache is already changed by another method; start from a plain decoder"
        )
    return model
