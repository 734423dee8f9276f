"""The shape of a decoder as numbers, and closed forms for parameters, products and cache bytes. Pure; no torch.

Layer l has H query heads and g key/value heads of size h, a gated network of width F, and width d throughout:

- weights of a layer: d H h + 2 d g h + H h d + 3 d F, two norms of d [+ (H + 2 g) h biases] [+ 2 h query and key
  norms];
- linear products of a token: the same weights without norms and biases, the embedding look-up costs none;
- a prompt of N tokens: N A + 2 sum(H h) N^2 + V d, where A sums the layers' linear products and the head runs on the
  last position only; of it sum(H h) N (N - 1) lie above the causal diagonal;
- a decode step that sees T keys, the new one included: A + 2 sum(H h) T + V d;
- n new tokens are a prompt and n - 1 steps: the last token is never fed.

With latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) a cached position costs H (2 r + e) products in the
absorbed form against H (c + e + v) in the expanded one (r latent rank, e rotary, c plain, v value size); both forms
multiply the same weights once per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LatentForm = Literal["absorbed", "expanded", "recomputed"]


@dataclass(frozen=True)
class Latent:
    """Sizes of latent attention: rank of the cached vector, rotary, plain and value head size, query rank."""

    rank: int
    rope: int
    nope: int
    value: int
    query_rank: int | None = None


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: how many, how many chosen per token, their width, and how the gate chooses.

    Attributes:
        count: routed experts.
        chosen: routed experts per token.
        width: hidden width of one expert.
        shared: experts that every token uses, held as one network of `shared * width`.
        gate: scores by sigmoid with a balancing bias (DeepSeek-V3) or by softmax without one (DeepSeek-V2).
        groups: groups that the experts are parted into; 1 for none.
        kept_groups: groups that a token may choose from.
        scale: factor on the weights of the chosen experts.
        normalised: whether a softmax gate's chosen weights are made to sum to one (Mixtral, Qwen3); a sigmoid gate's
            always are.
    """

    count: int
    chosen: int
    width: int
    shared: int = 1
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    groups: int = 1
    kept_groups: int = 1
    scale: float = 1.0
    normalised: bool = False


@dataclass(frozen=True)
class LayerShape:
    """One layer: heads, and a gated network of width `hidden` or a mixture of `experts`."""

    heads: int
    kv_heads: int
    head: int
    hidden: int
    latent: Latent | None = None
    experts: Experts | None = None


@dataclass(frozen=True)
class DecoderShape:
    """A decoder: width, vocabulary and its layers."""

    width: int
    vocabulary: int
    layers: tuple[LayerShape, ...]
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False


def uniform(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    vocabulary: int,
    kv_heads: int | None = None,
    head: int | None = None,
    latent: Latent | None = None,
    experts: Experts | None = None,
    dense_layers: int = 0,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    tied: bool = False,
) -> DecoderShape:
    """A decoder of equal layers; with `experts` the first `dense_layers` are gated networks of `hidden`."""
    groups = heads if kv_heads is None else kv_heads
    size = width // heads if head is None else head
    dense = LayerShape(heads, groups, size, hidden, latent)
    mixed = LayerShape(heads, groups, size, hidden, latent, experts)
    first = dense_layers if experts is not None else layers
    parts = (dense,) * first + (mixed,) * (layers - first)
    return DecoderShape(width, vocabulary, parts, qkv_bias, qk_norm, tied)


def attention_macs(layer: LayerShape, width: int) -> int:
    """Products of one token with the weights of the attention's linear maps."""
    if layer.latent is None:
        return 2 * width * layer.head * (layer.heads + layer.kv_heads)
    size = layer.latent
    down = width * (size.rank + size.rope)
    query_width = layer.heads * (size.nope + size.rope)
    query = width * query_width
    if size.query_rank is not None:
        query = size.query_rank * (width + query_width)
    up = size.rank * layer.heads * (size.nope + size.value)
    return down + query + up + layer.heads * size.value * width


def network_macs(layer: LayerShape, width: int, all_experts: bool = False) -> int:
    """Products of one token with the weights of the gated network, or of the gate and the experts that it chooses."""
    if layer.experts is None:
        return 3 * width * layer.hidden
    mixture = layer.experts
    used = mixture.shared + (mixture.count if all_experts else mixture.chosen)
    return 3 * width * mixture.width * used + width * mixture.count


def layer_parameters(layer: LayerShape, shape: DecoderShape) -> int:
    """Parameters of one layer, the gate's balancing bias included."""
    width = shape.width
    weights = attention_macs(layer, width) + network_macs(layer, width, all_experts=True)
    norms = 2 * width
    if layer.latent is not None:
        norms += layer.latent.rank + (layer.latent.query_rank or 0)
    elif shape.qk_norm:
        norms += 2 * layer.head
    biases = 0
    if shape.qkv_bias:
        biases += (layer.heads + 2 * layer.kv_heads) * layer.head
    if layer.experts is not None and layer.experts.gate == "sigmoid":
        biases += layer.experts.count
    return weights + norms + biases


def parameters(shape: DecoderShape) -> int:
    """All parameters, the gates' balancing biases included."""
    tables = 1 if shape.tied else 2
    layers = sum(layer_parameters(layer, shape) for layer in shape.layers)
    return layers + shape.width + tables * shape.vocabulary * shape.width


def active_parameters(shape: DecoderShape, *, embedding: bool = True) -> int:
    """Parameters that one token goes through: all but the experts that it does not choose.

    Without `embedding` the input table is left out, of which a token reads one row; a tied table stays, it is the head.
    """
    unused = sum(
        network_macs(layer, shape.width, all_experts=True) - network_macs(layer, shape.width) for layer in shape.layers
    )
    table = 0 if embedding or shape.tied else shape.vocabulary * shape.width
    return parameters(shape) - unused - table


def training_flops_per_token(shape: DecoderShape, context: int, *, causal: bool = True) -> float:
    """Operations of one token's forward and backward, 6 per product: weights, head, and attention over a sequence.

    With `causal` a query counts half of the `context` keys, without it all of them.
    """
    seen = context / 2 if causal else context
    attention = seen * sum(position_macs(layer, "expanded") for layer in shape.layers)
    return 6 * (linear_macs(shape) + head_macs(shape) + attention)


def head_macs(shape: DecoderShape) -> int:
    """Products of one token with the output head."""
    return shape.vocabulary * shape.width


def linear_macs(shape: DecoderShape) -> int:
    """Products of one token with the weights that it uses, without the head."""
    return sum(attention_macs(layer, shape.width) + network_macs(layer, shape.width) for layer in shape.layers)


def position_macs(layer: LayerShape, form: LatentForm = "absorbed") -> int:
    """Products of one query token with one cached position: scores and weighted values of all heads.

    The recomputed form expands the position from its latent vector first.
    """
    if layer.latent is None:
        return 2 * layer.heads * layer.head
    size = layer.latent
    if form == "absorbed":
        return layer.heads * (2 * size.rank + size.rope)
    expanded = layer.heads * (size.nope + size.rope + size.value)
    if form == "expanded":
        return expanded
    return expanded + size.rank * layer.heads * (size.nope + size.value)


def macs_prefill(shape: DecoderShape, tokens: int, *, all_logits: bool = False) -> int:
    """Products of a prompt: the whole score square, latent attention expanded, the head on the last position only.

    With `all_logits` the head runs on every position, as in training and in scoring.
    """
    square = sum(position_macs(layer, "expanded") for layer in shape.layers) * tokens**2
    heads = tokens if all_logits else 1
    return tokens * linear_macs(shape) + square + heads * head_macs(shape)


def causal_unused_macs(shape: DecoderShape, tokens: int) -> int:
    """Of a prompt's products those above the causal diagonal, which a kernel may skip."""
    return sum(position_macs(layer, "expanded") for layer in shape.layers) * tokens * (tokens - 1) // 2


def macs_decode_step(shape: DecoderShape, keys: int | Sequence[int], form: LatentForm = "absorbed") -> int:
    """Products of one new token that sees `keys` positions, itself included; a number per layer where they differ."""
    per_layer = [keys] * len(shape.layers) if isinstance(keys, int) else list(keys)
    linear = linear_macs(shape)
    for layer, count in zip(shape.layers, per_layer, strict=True):
        linear += count * position_macs(layer, form)
        if form == "recomputed" and layer.latent is not None:  # the new position's expansion is in both sums
            linear -= layer.latent.rank * layer.heads * (layer.latent.nope + layer.latent.value)
    return linear + head_macs(shape)


def macs_request(shape: DecoderShape, prompt: int, new: int) -> int:
    """Products of a whole request: the prompt and `new` - 1 decode steps."""
    steps = sum(macs_decode_step(shape, prompt + i) for i in range(1, new))
    return macs_prefill(shape, prompt) + steps


def cached_numbers(layer: LayerShape) -> int:
    """Numbers that a plain cache keeps of one token in one layer."""
    if layer.latent is not None:
        return layer.latent.rank + layer.latent.rope
    return 2 * layer.kv_heads * layer.head


def cache_bytes_per_token(shape: DecoderShape, bytes_per_number: int = 4) -> int:
    """Bytes that a plain cache keeps of one token."""
    return bytes_per_number * sum(cached_numbers(layer) for layer in shape.layers)


def distinct_experts(count: int, chosen: int, tokens: int) -> float:
    """Expected number of experts that a batch of tokens hits under uniform routing: E (1 - (1 - K/E)^B)."""
    return count * (1.0 - (1.0 - chosen / count) ** tokens)


def step_weights(shape: DecoderShape, tokens: int) -> float:
    """Expected weights read by a decode step of `tokens` sequences: tables by rows, experts only if hit."""
    total = float(head_macs(shape) + tokens * shape.width)
    for layer in shape.layers:
        total += attention_macs(layer, shape.width)
        mixture = layer.experts
        if mixture is None:
            total += network_macs(layer, shape.width)
            continue
        hit = distinct_experts(mixture.count, mixture.chosen, tokens)
        total += 3 * shape.width * mixture.width * (hit + mixture.shared) + shape.width * mixture.count
    return total


def even_batch(peak_ops: float, bandwidth: float, bytes_per_weight: float) -> float:
    """Batch from which a decode step's linear maps are compute-bound: P b / (2 BW)."""
    return peak_ops * bytes_per_weight / (2 * bandwidth)


def even_context(weight_bytes: float, batch: int, bytes_per_token: float) -> float:
    """Context at which a step reads as many bytes of cache as of weights: W / (B k)."""
    return weight_bytes / (batch * bytes_per_token)


def step_seconds(
    macs: float, weight_bytes: float, cache_bytes: float, *, batch: int, peak_ops: float, bandwidth: float
) -> float:
    """The roofline of a decode step: the longer of its operations and of its bytes, in seconds.

    Args:
        macs: products of one sequence's step.
        weight_bytes: read once for the whole batch.
        cache_bytes: read for one sequence.
        batch: sequences.
        peak_ops: operations per second of the machine, two per product.
        bandwidth: bytes per second from memory.
    """
    return max(2 * batch * macs / peak_ops, (weight_bytes + batch * cache_bytes) / bandwidth)
