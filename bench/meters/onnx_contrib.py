"""Operators that ONNX Runtime adds to ONNX (domain `com.microsoft`): their work, and the sizes of what they give.

ONNX's own shape inference knows none of them. Definitions: github.com/microsoft/onnxruntime, docs/ContribOperators.md.
What is in no table is unknown: so is what depends on the values of a tensor (`GroupQueryAttention`) or is stored in
another type than it stands for (`MatMulNBits`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.meters.onnx_rules import (
    OnnxCall,
    Rule,
    affine,
    gemm,
    matrix_product,
    per_input,
    per_output,
    recurrent,
    softmax_of_inputs,
)
from bench.meters.products import LAYER_NORM_OPS, SOFTMAX_OPS

DOMAIN = "com.microsoft"
#: What ONNX Runtime adds to the domain of ONNX itself.
AMONG_ONNX = "SimplifiedLayerNormalization"
Shapes = Callable[[OnnxCall], list[tuple[int, ...]]]


def _fused_matmul(call: OnnxCall) -> int:
    """Raises NotImplementedError where batch dimensions are moved as well."""
    if call.attributes.get("transBatchA", 0) or call.attributes.get("transBatchB", 0):
        raise NotImplementedError("a product that moves the batch")
    return call.out * call.size(0)[-2 if call.attributes.get("transA", 0) else -1]


def _sizes_of_product(call: OnnxCall, left: tuple[int, ...], right: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Of two matrices, or stacks of them, either of which may be transposed."""
    rows = left[-1 if call.attributes.get("transA", 0) else -2]
    columns = right[-2 if call.attributes.get("transB", 0) else -1]
    return [(*torch.broadcast_shapes(left[:-2], right[:-2]), rows, columns)]


# ---------------------------------------------------------------- attention
def _projected(call: OnnxCall) -> tuple[int, int, int, int, int]:
    """Samples, tokens, keys (those of before included), width of queries and keys, width of values.

    Input and weights of all three projections are in one; of before, `past` holds (2, samples, heads, tokens, size).
    """
    samples, tokens, _ = call.size(0)
    past = call.inputs[_PAST[call.op]] if len(call.inputs) > _PAST[call.op] else None
    widths = call.attributes.get("qkv_hidden_sizes") or [call.size(1)[1] // 3] * 3
    return samples, tokens, tokens + (past[3] if past else 0), int(widths[0]), int(widths[2])


#: Where an operator has the keys and values of before.
_PAST = {"Attention": 4, "QAttention": 8}


def _projections(call: OnnxCall) -> int:
    samples, tokens, _ = call.size(0)
    return samples * tokens * call.elements(1)


def _scores(call: OnnxCall) -> int:
    samples, tokens, keys, query, value = _projected(call)
    return samples * tokens * keys * (query + value)


def _attention(call: OnnxCall) -> int:
    """Three projections, scores and weighted sum; in full, also where causal."""
    return _projections(call) + _scores(call)


def _attention_vectors(call: OnnxCall) -> int:
    samples, tokens, keys, _, _ = _projected(call)
    return samples * int(call.attributes["num_heads"]) * tokens * keys * (SOFTMAX_OPS + 1) + call.elements(2)


def _of_heads(call: OnnxCall) -> tuple[int, int, int, int, int]:
    """Samples, queries, keys (those of before included), width of all queries, width of all values.

    Raises:
        NotImplementedError: query, key and value are packed into one, or the keys are cut into heads already.
    """
    query, key, value = (call.inputs[place] if place < len(call.inputs) else None for place in range(3))
    if not (query and key and value and len(query) == len(key) == len(value) == 3):
        raise NotImplementedError("packed queries, keys and values")
    past = call.inputs[6] if len(call.inputs) > 6 else None
    return query[0], query[1], key[1] + (past[2] if past else 0), query[2], value[2]


def _multi_head(call: OnnxCall) -> int:
    """Scores and weighted sum; in full, also where causal."""
    samples, queries, keys, query, value = _of_heads(call)
    return samples * queries * keys * (query + value)


def _multi_head_vectors(call: OnnxCall) -> int:
    samples, queries, keys, _, _ = _of_heads(call)
    heads = int(call.attributes["num_heads"])
    return samples * heads * queries * keys * (SOFTMAX_OPS + 1) + samples * queries * call.elements(3)


def _sizes_of_heads(call: OnnxCall) -> list[tuple[int, ...]]:
    samples, queries, _, _, value = _of_heads(call)
    return [(samples, queries, value)]


# ---------------------------------------------------------------- tables
COMPUTE: dict[str, Rule] = {
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "FusedGemm": gemm,
    "QGemm": gemm,
    "MatMulIntegerToFloat": matrix_product(0),
    "DynamicQuantizeMatMul": matrix_product(0),
    "DynamicQuantizeLSTM": recurrent,
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head,
}
#: Where the second operand of a product stands, for its type.
SECOND_OPERAND = {"QGemm": 3}
#: Bits that the first operand is brought to inside the operator.
LEFT_BITS = {"DynamicQuantizeMatMul": 8, "DynamicQuantizeLSTM": 8}
#: Products inside an operator that are of floating-point numbers though its weights are of 8 bits.
FLOAT_PRODUCTS: dict[str, Rule] = {"QAttention": _scores}
VECTOR_OF_COMPUTE: dict[str, Rule] = {
    "FusedGemm": per_output(1),
    "DynamicQuantizeMatMul": per_input(1),
    "DynamicQuantizeLSTM": per_input(1),
    "Attention": _attention_vectors,
    "QAttention": _attention_vectors,
    "MultiHeadAttention": _multi_head_vectors,
}


def _skip_norm(plain: int, shift: int, bias: int) -> Rule:
    """The sum of two inputs (and of a bias), normalised, scaled, and shifted where a shift is given."""

    def rule(call: OnnxCall) -> int:
        further = sum(bool(call.elements(place)) for place in (shift, bias) if place)
        return (1 + plain + 1 + further) * call.elements(0)

    return rule


def _embedding(call: OnnxCall) -> int:
    """Up to three table rows summed and normalised."""
    return call.out * ((2 if call.elements(4) else 1) + LAYER_NORM_OPS)


VECTOR: dict[str, Rule] = {
    **dict.fromkeys(
        ("Gelu", "QuickGelu", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QuantizeLinear",
         "DequantizeLinear"),
        per_output(1),
    ),
    "BiasGelu": per_output(2),
    "FastGelu": lambda call: call.out * (2 if call.elements(1) else 1),
    "BiasAdd": per_output(2),
    "BiasSoftmax": lambda call: call.elements(0) * (SOFTMAX_OPS + 1),
    "QLinearSoftmax": softmax_of_inputs,
    "QLinearGlobalAveragePool": per_input(1),
    "RotaryEmbedding": per_output(3),
    "SimplifiedLayerNormalization": affine(3, 1),
    "SkipLayerNormalization": _skip_norm(LAYER_NORM_OPS - 2, 3, 4),
    "SkipSimplifiedLayerNormalization": _skip_norm(4, 0, 3),
    "EmbedLayerNormalization": _embedding,
}  # fmt: skip
#: What fvcore charges per element of a normalisation.
NORM_MACS = {"SkipLayerNormalization": 5}
COPIES = frozenset(["QLinearConcat"])


def _as_first(call: OnnxCall) -> list[tuple[int, ...]]:
    return [call.size(0)]


def _broadcast(call: OnnxCall) -> list[tuple[int, ...]]:
    return [tuple(torch.broadcast_shapes(call.size(0), call.size(3)))]


def _skipped(call: OnnxCall) -> list[tuple[int, ...]]:
    """The result, mean and deviation of every row, and the sum that goes on."""
    rows = (*call.size(0)[:-1], 1)
    return [call.size(0), rows, rows, call.size(0)]


def _lstm(call: OnnxCall) -> list[tuple[int, ...]]:
    steps, samples, _ = call.size(0)
    directions, hidden = call.size(2)[0], call.size(2)[1]
    last = (directions, samples, hidden)
    return [(steps, directions, samples, hidden), last, last]


def _concatenated(call: OnnxCall) -> list[tuple[int, ...]]:
    """Tensors behind scale and zero point of the result, each with its own two after it."""
    parts = [call.size(place) for place in range(2, len(call.inputs), 3)]
    axis = int(call.attributes["axis"])
    made = list(parts[0])
    made[axis] = sum(part[axis] for part in parts)
    return [tuple(made)]


def _embedded(call: OnnxCall) -> list[tuple[int, ...]]:
    samples, tokens = call.size(0)
    return [(samples, tokens, call.size(2)[1]), (samples,), (samples, tokens, call.size(2)[1])]


def _pooled(call: OnnxCall) -> list[tuple[int, ...]]:
    sizes = call.size(0)
    if call.attributes.get("channels_last", 0):
        return [(sizes[0], *(1 for _ in sizes[2:]), sizes[-1])]
    return [(*sizes[:2], *(1 for _ in sizes[2:]))]


SIZES: dict[str, Shapes] = {
    **dict.fromkeys(VECTOR, _as_first),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _broadcast),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skipped),
    **dict.fromkeys(
        ("FusedMatMul", "TransposeMatMul", "FusedGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
        lambda call: _sizes_of_product(call, call.size(0), call.size(1)),
    ),
    "QGemm": lambda call: _sizes_of_product(call, call.size(0), call.size(3)),
    "DynamicQuantizeLSTM": _lstm,
    **dict.fromkeys(("Attention", "QAttention"), lambda call: [(*call.size(0)[:2], _projected(call)[4])]),
    "MultiHeadAttention": _sizes_of_heads,
    "EmbedLayerNormalization": _embedded,
    "QLinearConcat": _concatenated,
    "QLinearGlobalAveragePool": _pooled,
}
#: The input whose type the result has, where it is not the first.
TYPED_AS = {
    "MatMulIntegerToFloat": 2,
    "QAttention": 3,
    "QLinearConcat": 2,
    "DequantizeLinear": 1,
    "QuantizeLinear": 2,
    "EmbedLayerNormalization": 2,
}
