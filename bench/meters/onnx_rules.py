"""What an operator of ONNX computes: its products, its vector operations, or nothing; what is in no table is unknown.

Formulas follow the operators' definitions in the ONNX specification (github.com/onnx/onnx, docs/Operators.md) and the
conventions of the torch side (`bench.meters.operator_rules`): the same network counts the same both ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.meters.products import LAYER_NORM_OPS, SOFTMAX_OPS


@dataclass(frozen=True)
class OnnxCall:
    """One node with the sizes of its tensors; an optional input that is left out has None."""

    op: str
    inputs: Sequence[tuple[int, ...] | None]
    outputs: Sequence[tuple[int, ...]]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def size(self, place: int) -> tuple[int, ...]:
        """The sizes of an input that has to be there."""
        found = self.inputs[place]
        if found is None:
            raise ValueError(f"{self.op} lacks its input {place}")
        return found

    def elements(self, place: int = 0) -> int:
        """Elements of an input; 0 where it is left out."""
        found = self.inputs[place] if place < len(self.inputs) else None
        return math.prod(found) if found is not None else 0

    @property
    def out(self) -> int:
        """Elements of the first output."""
        return math.prod(self.outputs[0])


Rule = Callable[[OnnxCall], int]


# ---------------------------------------------------------------- products
def _convolution(weight: int) -> Rule:
    """Each output element is a sum over a filter's channels and places."""
    return lambda call: call.out * math.prod(call.size(weight)[1:])


def _transposed(call: OnnxCall) -> int:
    """Each input element is spread over a filter's outputs and places."""
    return call.elements(0) * math.prod(call.size(1)[1:])


def matrix_product(left: int) -> Rule:
    """Each output element is a sum over the last dimension of the left operand."""
    return lambda call: call.out * call.size(left)[-1]


def gemm(call: OnnxCall) -> int:
    """Each output element is a sum over what the two matrices share."""
    rows = 0 if call.attributes.get("transA", 0) else 1
    return call.out * call.size(0)[rows]


def recurrent(call: OnnxCall) -> int:
    """Every step multiplies by the whole of both matrices, of all gates and directions."""
    steps = math.prod(call.size(0)[:2])
    return steps * (call.elements(1) + call.elements(2))


def _heads_of_attention(call: OnnxCall) -> tuple[int, int, int, int, int]:
    """Batch, query heads, queries, keys (those of before included) and the sum of a head's key and value sizes."""
    query, key, value = call.size(0), call.size(1), call.size(2)
    past = call.inputs[4] if len(call.inputs) > 4 else None
    before = past[2] if past is not None else 0
    if len(query) == 4:
        return query[0], query[1], query[2], key[2] + before, query[3] + value[3]
    heads, kv_heads = call.attributes["q_num_heads"], call.attributes["kv_num_heads"]
    return query[0], heads, query[1], key[1] + before, query[2] // heads + value[2] // kv_heads


def _attention(call: OnnxCall) -> int:
    """Scores and weighted sum; in full, also where causal."""
    batch, heads, queries, keys, width = _heads_of_attention(call)
    return batch * heads * queries * keys * width


def _attention_vectors(call: OnnxCall) -> int:
    batch, heads, queries, keys, _ = _heads_of_attention(call)
    return batch * heads * queries * keys * (SOFTMAX_OPS + 1)


def _einsum(call: OnnxCall) -> int:
    """Two operands: the product of all index sizes where something is summed or paired.

    Raises:
        NotImplementedError: three operands or more, whose order is the runtime's, or an ellipsis.
    """
    equation = call.attributes["equation"].replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) > 2 or "." in equation:
        raise NotImplementedError("einsum of more than two operands, or with an ellipsis")
    if len(terms) == 1:
        return 0
    sizes: dict[str, int] = {}
    for place, term in enumerate(terms):
        for letter, size in zip(term, call.size(place), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


COMPUTE: dict[str, Rule] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "DeformConv": _convolution(1),
    "ConvTranspose": _transposed,
    "MatMul": matrix_product(0),
    "MatMulInteger": matrix_product(0),
    "QLinearMatMul": matrix_product(0),
    "Gemm": gemm,
    "LSTM": recurrent,
    "GRU": recurrent,
    "RNN": recurrent,
    "Attention": _attention,
    "Einsum": _einsum,
}
#: Where the second operand of a product stands, for its type.
SECOND_OPERAND = {"QLinearConv": 3, "QLinearMatMul": 3}


# ---------------------------------------------------------------- vector operations
def per_output(factor: int) -> Rule:
    """So many operations per element of the first output."""
    return lambda call: factor * call.out


def per_input(factor: int) -> Rule:
    """So many operations per element of the first input."""
    return lambda call: factor * call.elements(0)


softmax_of_inputs = per_input(SOFTMAX_OPS)


def _variadic(call: OnnxCall) -> int:
    return call.out * max(1, len([size for size in call.inputs if size is not None]) - 1)


def _window(call: OnnxCall) -> int:
    return call.out * math.prod(call.attributes["kernel_shape"])


def _sorting(call: OnnxCall) -> int:
    """Comparisons of a sort, n log2 n, along the axis."""
    sizes = call.size(0)
    longest = sizes[int(call.attributes.get("axis", -1))] if sizes else 1
    return math.prod(sizes) * max(1, math.ceil(math.log2(max(longest, 2))))


def affine(plain: int, scale: int) -> Rule:
    """`plain` operations per element, and two more where a scale and shift follow."""
    return lambda call: (plain + (2 if call.elements(scale) else 0)) * call.elements(0)


def _resize(call: OnnxCall) -> int:
    """Neighbours that a new element is made of: 2 per resized axis for linear, 4 for cubic, none where it is copied."""
    mode = call.attributes.get("mode", "nearest")
    if mode == "nearest":
        return 0
    axes = sum(one != other for one, other in zip(call.size(0), call.outputs[0], strict=True))
    return int(call.out * (2 if mode == "linear" else 4) ** axes)


_ONE_PER_OUTPUT = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil "
    "Celu Clip Cos Cosh DequantizeLinear Div DynamicQuantizeLinear Elu Equal Erf Exp Floor Gelu Greater "
    "GreaterOrEqual HardSigmoid HardSwish Hardmax IsInf IsNaN LeakyRelu Less LessOrEqual Log Mish Mod Mul Neg Not Or "
    "PRelu Pow QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal Relu "
    "Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Swish Tan Tanh ThresholdedRelu Where Xor "
    "Trilu"
)
_ONE_PER_INPUT = (
    "ArgMax ArgMin CumSum GlobalAveragePool GlobalMaxPool ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax "
    "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
VECTOR: dict[str, Rule] = {
    **dict.fromkeys(_ONE_PER_OUTPUT.split(), per_output(1)),
    **dict.fromkeys(_ONE_PER_INPUT.split(), per_input(1)),
    **dict.fromkeys(("Max", "Min", "Sum", "Mean"), _variadic),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _window),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax_of_inputs),
    "LayerNormalization": affine(LAYER_NORM_OPS - 2, 1),
    "GroupNormalization": affine(LAYER_NORM_OPS - 2, 1),
    "InstanceNormalization": affine(LAYER_NORM_OPS - 2, 1),
    "RMSNormalization": affine(3, 1),
    "RotaryEmbedding": per_output(3),
    "BatchNormalization": per_input(2),
    "Resize": _resize,
    "TopK": _sorting,
    "Unique": _sorting,
    "GridSample": lambda call: call.out * 2 ** (len(call.size(0)) - 2),
}
#: Vector operations inside an operator that is counted by its products.
VECTOR_OF_COMPUTE: dict[str, Rule] = {"Attention": _attention_vectors}
#: What fvcore charges per element of a normalisation.
NORM_MACS = {
    "LayerNormalization": 5,
    "GroupNormalization": 5,
    "InstanceNormalization": 5,
    "BatchNormalization": 2,
}

# ---------------------------------------------------------------- moves and views
#: Copies: every input is read and the result written, nothing is computed.
COPIES = frozenset(
    [
        "Cast",
        "CastLike",
        "CenterCropPad",
        "Concat",
        "DepthToSpace",
        "Expand",
        "OneHot",
        "Pad",
        "ReverseSequence",
        "ScatterElements",
        "ScatterND",
        "SpaceToDepth",
        "Split",
        "TensorScatter",
        "Tile",
        "Transpose",
        "Upsample",
    ]
)
#: Gathers: only what is picked is read.
GATHERS = frozenset(["Compress", "Gather", "GatherElements", "GatherND", "NonZero", "Slice"])
#: Fills: nothing is read.
FILLS = frozenset(["ConstantOfShape", "EyeLike", "HannWindow", "HammingWindow", "BlackmanWindow"])
#: What touches no element when it runs.
FREE = frozenset(["Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"])
#: Operators whose result's size depends on what the inputs hold.
STEERING = frozenset(["Compress", "NonZero", "Unique"])
#: Sums over what a product gives are a matrix product written out.
SUMS = frozenset(["CumSum", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"])
SQUARING = frozenset(["ReduceL2", "ReduceSumSquare"])
