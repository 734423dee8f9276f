"""MAC formulas of operators that multiply and accumulate, each from shapes alone, with the operands they multiply.

Conventions, stated once:

* one multiply-accumulate of real numbers is 1 MAC; a product of two complex numbers is 4, of a real and a complex 2;
* convolutions count every kernel tap, padding included;
* attention counts the whole L x S score matrix whatever kernel ran; what a causal mask leaves out is reported apart;
* sparse products count stored values (the executed work), with the dense equivalent beside them;
* a Fourier transform of N points counts 2.5 N log2 N MACs, half of that when one side is real, so that FLOPs = 2 x MACs
  reproduces the usual 5 N log2 N of radix-2 (Van Loan, Computational Frameworks for the FFT, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """One dispatched operator call: its overload, arguments and result."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def arg(self, name: str) -> Any:
        """The argument called `name` in the operator's schema, or its default."""
        if name in self.kwargs:
            return self.kwargs[name]
        for index, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                return self.args[index] if index < len(self.args) else argument.default_value
        raise KeyError(f"{self.func} has no argument {name!r}")


@dataclass(frozen=True, slots=True)
class Product:
    """The multiply-accumulates of one call.

    `dense` is what a dense kernel would do (None: the same); `causal_unused` the part of `macs` that a causal mask
    rules out; `left` and `right` the operands; bits override those of the operands' dtypes; `weight_bytes` are bytes
    of packed weights that no tensor argument shows; `weightless` the part of `macs` that multiplies no weight, such as
    the gradient of one.
    """

    macs: int
    left: Tensor | None = None
    right: Tensor | None = None
    dense: int | None = None
    causal_unused: int = 0
    left_bits: int | None = None
    right_bits: int | None = None
    weight_bytes: int = 0
    vector_ops: int = 0
    weightless: int = 0
    norm_elements: int = 0


Formula = Callable[[Call], Product]


def _complexity(*operands: Tensor) -> int:
    return 2 ** sum(operand.is_complex() for operand in operands[:2])


def is_sparse(tensor: Tensor) -> bool:
    """Whether the tensor stores only some of its elements (COO, CSR, CSC, BSR, BSC)."""
    return tensor.layout not in (torch.strided, torch.jagged, torch._mkldnn)  # type: ignore[attr-defined]


def stored_values(tensor: Tensor) -> Tensor:
    """The value tensor of a sparse tensor of any layout."""
    return tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()


def _sparse_sparse(left: Tensor, right: Tensor) -> int:
    """Products that meet: for each inner index, entries in that column of left times entries in that row of right."""
    columns = left.to_sparse_coo().coalesce().indices()[1]
    rows = right.to_sparse_coo().coalesce().indices()[0]
    inner = left.shape[1]
    return int((torch.bincount(columns, minlength=inner) * torch.bincount(rows, minlength=inner)).sum())


def _matrix_product(left: Tensor, right: Tensor) -> Product:
    """[.., M, K] x [.., K, N]; either side may be sparse."""
    columns = right.shape[-1]
    dense = left.numel() * columns * _complexity(left, right)
    if is_sparse(left) and is_sparse(right):
        return Product(_sparse_sparse(left, right) * _complexity(left, right), left, right, dense)
    if is_sparse(left):
        return Product(stored_values(left).numel() * columns * _complexity(left, right), left, right, dense)
    if is_sparse(right):
        return Product(stored_values(right).numel() * left.shape[-2] * _complexity(left, right), left, right, dense)
    return Product(dense, left, right)


def matrices(first: int) -> Formula:
    """mm, bmm and their add-variants: the product of arguments `first` and `first + 1`."""
    return lambda call: _matrix_product(call.args[first], call.args[first + 1])


def vectors(first: int) -> Formula:
    """mv, dot, vdot and addmv: one MAC per element of the left operand (per stored value if sparse)."""

    def formula(call: Call) -> Product:
        left, right = call.args[first], call.args[first + 1]
        factor = _complexity(left, right)
        if is_sparse(left):
            return Product(stored_values(left).numel() * factor, left, right, left.numel() * factor)
        return Product(left.numel() * factor, left, right)

    return formula


def outer(call: Call) -> Product:
    """addr: one MAC per element of the outer product that is added."""
    return Product(call.args[1].numel() * call.args[2].numel(), call.args[1], call.args[2])


def linear(call: Call) -> Product:
    """[.., K] x [N, K]; the input may be a nested tensor (its realised rows count)."""
    rows, weight = call.args[0], call.args[1]
    columns = weight.shape[0] if weight.dim() == 2 else 1
    dense = rows.numel() * columns * _complexity(rows, weight)
    if is_sparse(weight):
        return Product(rows.numel() // weight.shape[1] * stored_values(weight).numel(), rows, weight, dense)
    return Product(dense, rows, weight)


def contraction(weight_bits: int | None = None, input_bits: int | None = None) -> Formula:
    """Products with a packed weight: one MAC per output element and input feature."""

    def formula(call: Call) -> Product:
        rows = call.args[0]
        return Product(call.out.numel() * rows.shape[-1], rows, call.args[1], None, 0, input_bits, weight_bits)

    return formula


def half_dense(inner: Callable[[Call], int]) -> Formula:
    """2:4 sparse products: half of the dense work runs; `inner` gives the dense inner dimension."""

    def formula(call: Call) -> Product:
        dense = call.out.numel() * inner(call)
        return Product(dense // 2, call.args[0], call.args[1], dense)

    return formula


def grouped(call: Call) -> Product:
    """Grouped matrix product: tokens [T, K] (each to one group) or batches [G, M, K], times [G, K, N]."""
    left, right = call.args[0], call.args[1]
    return Product(left.numel() * right.shape[-1], left, right)


def _kernel_taps(weight: Tensor) -> int:
    return math.prod(weight.shape[1:])


def convolution(call: Call) -> Product:
    """Any convolution of arguments (input, weight, ...): output elements x taps, or input x taps transposed."""
    image, weight = call.args[0], call.args[1]
    transposed = "transpose" in call.func._schema.name or _flag(call, "transposed")
    elements = image.numel() if transposed else first_tensor(call.out).numel()
    return Product(elements * _kernel_taps(weight) * _complexity(image, weight), image, weight)


def _flag(call: Call, name: str) -> bool:
    return any(a.name == name for a in call.func._schema.arguments) and bool(call.arg(name))


def first_tensor(value: Any) -> Tensor:
    """The value itself, or the first tensor of a tuple result."""
    return value if isinstance(value, Tensor) else next(item for item in value if isinstance(item, Tensor))


def convolution_backward(call: Call) -> Product:
    """The forward's MACs once for the gradient of the input and once for that of the weight, as the mask asks."""
    gradient, image, weight = call.args[:3]
    elements = image.numel() if call.arg("transposed") else gradient.numel()
    of_input, of_weight = (bool(flag) for flag in call.arg("output_mask")[:2])
    once = elements * _kernel_taps(weight) * _complexity(image, weight)
    return Product((of_input + of_weight) * once, gradient, weight, weightless=of_weight * once)


def convolution_tbc(call: Call) -> Product:
    """Time-batch-channel convolution: output elements x kernel length x input channels."""
    image, weight = call.args[0], call.args[1]
    return Product(call.out.numel() * weight.shape[0] * weight.shape[1], image, weight)


def hidden_by_causality(queries: int, keys: int) -> int:
    """Pairs (i, j) of an L x S score matrix with j > i, the mask aligned at the upper left."""
    seen = min(queries, keys)
    visible = seen * (seen + 1) // 2 + max(0, queries - keys) * keys
    return queries * keys - visible


SOFTMAX_OPS = 5  # maximum, difference, exponential, sum, quotient


def attention_product(query: Tensor, key: Tensor, value: Tensor, causal: bool, products: tuple[int, int]) -> Product:
    """Attention of [.., L, E] on [.., S, E] and [.., S, Ev]: `products` of score and of value shape per pair."""
    maps = math.prod(query.shape[:-2])
    queries, keys = query.shape[-2], key.shape[-2]
    per_pair = products[0] * query.shape[-1] + products[1] * value.shape[-1]
    hidden = hidden_by_causality(queries, keys) if causal else 0
    pairs = maps * queries * keys
    return Product(pairs * per_pair, query, key, None, maps * hidden * per_pair, vector_ops=pairs * (SOFTMAX_OPS + 1))


def attention(call: Call) -> Product:
    """Fused attention with heads before tokens: q k' and p v."""
    query, key, value = call.arg("query"), call.arg("key"), call.arg("value")
    if query.is_nested:
        return _nested_attention(query, key, value)
    return attention_product(query, key, value, _flag(call, "is_causal"), (1, 1))


def attention_backward(call: Call) -> Product:
    """Five products: the scores once more, then the gradients of values, probabilities, queries and keys."""
    query, key, value = call.arg("query"), call.arg("key"), call.arg("value")
    return attention_product(query, key, value, _flag(call, "is_causal"), (3, 2))


def _tokens_first(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(call.arg(name).transpose(-2, -3) for name in ("query", "key", "value"))


def _packed_pairs(call: Call, names: tuple[str, str]) -> int | None:
    """Sum over packed sequences of queries x keys, or None when the batch is not packed."""
    offsets = [call.arg(name) for name in names]
    if any(offset is None for offset in offsets):
        return None
    lengths = [offset.diff().long() for offset in offsets]
    return int((lengths[0] * lengths[1]).sum())


def packed_attention(offset_names: tuple[str, str], products: tuple[int, int] = (1, 1)) -> Formula:
    """Attention kernels with tokens before heads, [B, L, H, E] or packed [T, H, E] with sequence offsets."""

    def formula(call: Call) -> Product:
        query, key, value = _tokens_first(call)
        pairs = _packed_pairs(call, offset_names)
        if pairs is None:
            return attention_product(query, key, value, _flag(call, "is_causal"), products)
        heads = query.shape[-3]
        per_pair = products[0] * query.shape[-1] + products[1] * value.shape[-1]
        return Product(pairs * heads * per_pair, query, key, vector_ops=pairs * heads * (SOFTMAX_OPS + 1))

    return formula


def _nested_lengths(tensor: Tensor, dimension: int) -> list[int]:
    return [int(size[dimension]) for size in tensor._nested_tensor_size()]


def _nested_attention(query: Tensor, key: Tensor, value: Tensor) -> Product:
    """Attention over sequences of unequal length: the realised tokens of each, not the padding."""
    sizes, keys = query._nested_tensor_size().tolist(), key._nested_tensor_size().tolist()
    widths = value._nested_tensor_size().tolist()
    macs = sum(
        q[0] * q[-2] * k[-2] * (q[-1] + v[-1]) for q, k, v in zip(sizes, keys, widths, strict=True)
    )  # heads, tokens, width
    pairs = sum(q[0] * q[-2] * k[-2] for q, k in zip(sizes, keys, strict=True))
    return Product(macs, query, key, vector_ops=pairs * (SOFTMAX_OPS + 1))


def _sequences(tokens: Tensor) -> list[int]:
    """Realised length of every sequence of a [B, T, C] batch, padded or nested."""
    return _nested_lengths(tokens, 0) if tokens.is_nested else [tokens.shape[1]] * tokens.shape[0]


def native_attention(call: Call) -> Product:
    """The fused multi-head attention module: projections of q, k and v, two attention products, output projection."""
    query, key, width = call.arg("query"), call.arg("key"), call.arg("embed_dim")
    queries, keys = _sequences(query), _sequences(key)
    macs = sum((2 * q + 2 * k) * width * width + 2 * q * k * width for q, k in zip(queries, keys, strict=True))
    pairs = call.arg("num_head") * sum(q * k for q, k in zip(queries, keys, strict=True))
    return Product(macs, query, call.arg("qkv_weight"), vector_ops=pairs * (SOFTMAX_OPS + 1))


def encoder_layer(call: Call) -> Product:
    """The fused transformer encoder layer: self-attention and feed-forward of every realised token."""
    source, width = call.arg("src"), call.arg("embed_dim")
    hidden = call.arg("ffn_weight_1").shape[0]
    lengths = _sequences(source)
    macs = sum(n * (4 * width * width + 2 * width * hidden) + 2 * n * n * width for n in lengths)
    pairs = call.arg("num_heads") * sum(n * n for n in lengths)
    elements = 2 * sum(lengths) * width
    vector = pairs * (SOFTMAX_OPS + 1) + elements * (LAYER_NORM_OPS + 1) + sum(lengths) * hidden
    return Product(macs, source, call.arg("qkv_weight"), vector_ops=vector, norm_elements=elements)


LAYER_NORM_OPS = 7  # mean, difference, square, variance, scale by it; then the affine scale and shift


def _recurrent(steps: int, matrices_: Sequence[Tensor], activation: Tensor, passes: int = 1) -> Product:
    weights = [matrix for matrix in matrices_ if matrix.dim() == 2]
    macs = passes * steps * sum(matrix.numel() for matrix in weights)
    vector = passes * steps * 2 * weights[0].shape[0]
    return Product(macs, activation, weights[0], vector_ops=vector, weightless=macs - macs // passes)


def recurrent_layer(passes: int) -> Formula:
    """One direction of one recurrent layer over [T, B, I]: every step multiplies both weight matrices."""

    def formula(call: Call) -> Product:
        sequence = call.args[0]
        weights = [call.args[1], call.args[2]]
        return _recurrent(math.prod(sequence.shape[:-1]), weights, sequence, passes)

    return formula


def recurrent_stack(passes: int) -> Formula:
    """A stack of recurrent layers in one call, its weights in a flat list; padded [T, B, I] or packed [N, I]."""

    def formula(call: Call) -> Product:
        sequence = call.arg("input")
        return _recurrent(math.prod(sequence.shape[:-1]), call.arg("weight"), sequence, passes)

    return formula


def _euclidean(left: Tensor, right: Tensor) -> int:
    batch = math.prod(torch.broadcast_shapes(left.shape[:-2], right.shape[:-2]))
    return batch * left.shape[-2] * right.shape[-2] * left.shape[-1]


def distances(call: Call) -> Product:
    """Pairwise distances: a squared difference is a MAC, so only the Euclidean norm has any; others are vector work."""
    left, right = call.args[0], call.args[1]
    work = _euclidean(left, right)
    euclidean = len(call.args) < 3 or float(call.args[2]) == 2.0
    return Product(work, left, right, vector_ops=work) if euclidean else Product(0, left, right, vector_ops=3 * work)


def distances_backward(call: Call) -> Product:
    """Gradient of pairwise distances: one MAC per pair and feature."""
    left, right = call.args[1], call.args[2]
    return Product(_euclidean(left, right), left, right)


def pairwise_distances(call: Call) -> Product:
    """Distances of all pairs of rows of one matrix."""
    rows, width = call.args[0].shape
    work = rows * (rows - 1) // 2 * width
    euclidean = len(call.args) < 2 or float(call.args[1]) == 2.0
    return Product(work if euclidean else 0, call.args[0], call.args[0], vector_ops=work * (1 if euclidean else 3))


def _expanded(tensor: Tensor, where: Sequence[int]) -> list[int]:
    shape = list(tensor.shape)
    for dimension in where:
        shape.insert(dimension, 1)
    return shape


def trilinear(call: Call) -> Product:
    """A product of three operands, as bilinear layers use: the first two are contracted, then the third.

    For x' W y of widths I, J and O outputs: B O J (I + 1).
    """
    operands = [_expanded(call.args[i], call.args[3 + i]) for i in range(3)]
    summed = set(call.args[6])
    first = [max(a, b) for a, b in zip(operands[0], operands[1], strict=True)]
    gone = {d for d in summed if operands[2][d] == 1}
    second = [1 if d in gone else max(a, b) for d, (a, b) in enumerate(zip(first, operands[2], strict=True))]
    return Product(math.prod(first) + math.prod(second), call.args[0], call.args[1])


def affine_grid(call: Call) -> Product:
    """Places of a grid times a [k, k - 1] matrix per image, k being the dimensions of space plus one."""
    places = math.prod(call.out.shape[:-1])
    space = call.out.shape[-1]
    return Product(places * (space + 1) * space, call.args[0], None)


def fourier_macs(points: int, transforms: float, real: bool) -> int:
    """MACs of `transforms` transforms over `points` points each, in the 5 N log2 N convention."""
    if points < 2:
        return 0
    return round(2.5 * transforms * points * math.log2(points) / (2 if real else 1))


def fourier(call: Call) -> Product:
    """A Fourier transform over some dimensions; the full real grid stands for the half that a real side stores."""
    source, dimensions = call.args[0], call.args[1]
    real = call.func._schema.name != "aten::_fft_c2c"
    grid = source if not source.is_complex() or not real else call.out
    points = math.prod(grid.shape[d] for d in dimensions)
    transforms = grid.numel() / points if points else 0
    return Product(fourier_macs(points, transforms, real), source, None)


def _unpacked_weight(call: Call, unpack: str) -> Tensor:
    return getattr(torch.ops.quantized, unpack)(call.args[1])[0]


def packed_linear(bits: tuple[int, int]) -> Formula:
    """A quantised linear layer whose weight hides in a packed object."""

    def formula(call: Call) -> Product:
        unpack = "linear_unpack_fp16" if bits[1] == 16 else "linear_unpack"
        weight = _unpacked_weight(call, unpack)
        rows = call.args[0]
        size = weight.numel() * bits[1] // 8
        return Product(rows.numel() * weight.shape[0], rows, None, None, 0, bits[0], bits[1], size)

    return formula


def packed_convolution(unpack: str) -> Formula:
    """A quantised convolution whose weight hides in a packed object."""

    def formula(call: Call) -> Product:
        weight = _unpacked_weight(call, unpack)
        macs = call.out.numel() * _kernel_taps(weight)
        return Product(macs, call.args[0], None, None, 0, 8, 8, weight.numel())

    return formula


def packed_cell(call: Call) -> Product:
    """One step of a dynamically quantised recurrent cell with two packed weights."""
    weights = [torch.ops.quantized.linear_unpack(call.arg(name))[0].numel() for name in ("w_ih", "w_hh")]
    rows = call.args[0]
    return Product(math.prod(rows.shape[:-1]) * sum(weights), rows, None, None, 0, 8, 8, sum(weights))


def quantized_recurrent(gates: int) -> Formula:
    """Dynamically quantised LSTM (4 gates) or GRU (3): every step of every layer and direction, int8 x int8."""

    def formula(call: Call) -> Product:
        sequence = call.arg("input")
        states = call.arg("hx")
        state = states[0] if isinstance(states, (list, tuple)) else states
        hidden, directions = state.shape[-1], 2 if call.arg("bidirectional") else 1
        layers = call.arg("num_layers")
        widths = [sequence.shape[-1]] + [hidden * directions] * (layers - 1)
        weights = sum(directions * gates * hidden * (width + hidden) for width in widths)
        macs = math.prod(sequence.shape[:-1]) * weights
        return Product(macs, sequence, None, None, 0, 8, 8, weights)

    return formula
