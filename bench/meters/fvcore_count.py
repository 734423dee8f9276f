"""A second, independent count: fvcore's, over the graph that `torch.jit` traces, with handles for what fvcore skips.

It shares no code with the operator trace: another tracer, another graph (composite operators, not kernels), other
formulas. A trace that fails leaves nothing behind: hooks, tracer state and switches are put back.
"""

from __future__ import annotations

import copy
import json
import math
import string
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from bench.meters.apart import ApartError, can_fork, run_apart
from bench.meters.operator_rules import custom_formula, custom_names
from bench.meters.products import Call, fourier_macs
from bench.meters.reach import every_module
from bench.meters.trace import compilers_off

#: fvcore's own terms that are no matrix product or convolution: removed exactly before two counts are compared.
NORM_TERMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm")
OTHER_TERMS = ("upsample_nearest2d", "upsample_bilinear2d", "adaptive_avg_pool2d", "grid_sampler")


@dataclass(frozen=True)
class SecondCount:
    """The total of fvcore and its parts for a whole batch, or the reason why there is none in `error`."""

    total: float | None
    by_operator: dict[str, float] = field(default_factory=dict)
    unsupported: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    version: str = ""

    @property
    def products(self) -> float | None:
        """Matrix products and convolutions alone: the total less the norm, pooling and sampling terms."""
        if self.total is None:
            return None
        return self.total - sum(self.by_operator.get(name, 0) for name in NORM_TERMS + OTHER_TERMS)

    @property
    def norms(self) -> float:
        """The normalisation terms of fvcore."""
        return sum(self.by_operator.get(name, 0) for name in NORM_TERMS)


# ---------------------------------------------------------------- handles: (inputs, outputs) of a traced node -> MACs
def _shape(value: Any) -> list[int]:
    return list(value.type().sizes())


def _is_complex(value: Any) -> bool:
    return "Complex" in str(value.type().scalarType())


def _scale(*values: Any) -> int:
    return 2 ** sum(_is_complex(value) for value in values)


def _attention(inputs: list[Any], _outputs: list[Any]) -> float:
    query, key, value = (_shape(inputs[i]) for i in range(3))
    maps = math.prod(torch.broadcast_shapes(query[:-2], key[:-2]) if len(query) == len(key) else query[:-2])
    if len(query) == len(key) and query[-3:-2] != key[-3:-2] and key[-3:-2] != [1] and query[-3:-2] != [1]:
        maps = math.prod(query[:-2])  # grouped heads: every query head has its own scores
    return maps * query[-2] * key[-2] * (query[-1] + value[-1])


def _matmul(inputs: list[Any], outputs: list[Any]) -> float:
    left, right = _shape(inputs[0]), _shape(inputs[1])
    inner = left[-1]
    if len(left) == 1 and len(right) == 1:
        return inner * _scale(*inputs[:2])
    return math.prod(_shape(outputs[0])) * inner * _scale(*inputs[:2])


def _add_product(inputs: list[Any], outputs: list[Any]) -> float:
    return math.prod(_shape(outputs[0])) * _shape(inputs[1])[-1] * _scale(*inputs[1:3])


def _batch_summed_product(inputs: list[Any], _outputs: list[Any]) -> float:
    return math.prod(_shape(inputs[1])) * _shape(inputs[2])[-1]


def _integers(value: Any) -> list[int]:
    """A traced list of integers, constant or built from constants."""
    known = value.toIValue()
    return list(known) if known is not None else [item.toIValue() for item in value.node().inputs()]


def _tensordot(inputs: list[Any], outputs: list[Any]) -> float:
    left = _shape(inputs[0])
    return math.prod(_shape(outputs[0])) * math.prod(left[d] for d in _integers(inputs[2])) * _scale(*inputs[:2])


def _dot(inputs: list[Any], _outputs: list[Any]) -> float:
    return math.prod(_shape(inputs[0])) * _scale(*inputs[:2])


def _outer_sum(inputs: list[Any], outputs: list[Any]) -> float:
    return math.prod(_shape(outputs[0]))


def _linear(inputs: list[Any], _outputs: list[Any]) -> float:
    weight = _shape(inputs[1])
    return math.prod(_shape(inputs[0])) * (weight[0] if len(weight) == 2 else 1) * _scale(*inputs[:2])


def _convolution(inputs: list[Any], outputs: list[Any]) -> float:
    return math.prod(_shape(outputs[0])) * math.prod(_shape(inputs[1])[1:])


def _whole_convolution(inputs: list[Any], outputs: list[Any]) -> float:
    """Any convolution; a complex one is three real ones, as torch runs it."""
    transposed = bool(inputs[6].toIValue())
    elements = math.prod(_shape(inputs[0] if transposed else outputs[0]))
    return elements * math.prod(_shape(inputs[1])[1:]) * (3 if _is_complex(inputs[1]) else 1)


def _affine_grid(_inputs: list[Any], outputs: list[Any]) -> float:
    *places, space = _shape(outputs[0])
    return math.prod(places) * space * (space + 1)


def _convolution_tbc(inputs: list[Any], outputs: list[Any]) -> float:
    return math.prod(_shape(outputs[0])) * math.prod(_shape(inputs[1])[:2])


def _list_shapes(value: Any) -> list[list[int]]:
    return [_shape(item) for item in value.node().inputs() if item.type().kind() == "TensorType"]


def _einsum(inputs: list[Any], _outputs: list[Any]) -> float:
    """Pairwise contraction, left to right, as torch runs it without an optimiser; two operands are exact."""
    equation = inputs[0].toIValue().replace(" ", "")
    shapes = _list_shapes(inputs[1])
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or len(terms) != 2:
        return _einsum_by_paths(equation, shapes)
    sizes = {
        letter: n for term, shape in zip(terms, shapes, strict=True) for letter, n in zip(term, shape, strict=True)
    }
    summed = (set(terms[0]) & set(terms[1])) - set(right)
    lonely = (set(terms[0]) ^ set(terms[1])) - set(right)
    if not summed:
        return 0
    return math.prod(n for letter, n in sizes.items() if letter not in lonely)


def _einsum_by_paths(equation: str, shapes: list[list[int]]) -> float:
    """An einsum with dots or other than two operands: contracted in pairs, left to right, dots as letters."""
    given, _, right = equation.partition("->")
    terms = given.split(",")
    spare = [letter for letter in string.ascii_letters if letter not in equation]
    most = max(len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True))
    dots = "".join(spare[:most])
    terms = [
        term.replace("...", dots[most - (len(shape) - len(term.replace("...", ""))) :])
        for term, shape in zip(terms, shapes, strict=True)
    ]
    letters = "".join(terms)
    implied = "".join(sorted({letter for letter in letters if letters.count(letter) == 1} - set(dots)))
    result = right.replace("...", dots) if "->" in equation else dots + implied
    total, held = 0.0, (terms[0], dict(zip(terms[0], shapes[0], strict=True)))
    for place in range(1, len(terms)):
        sizes = dict(zip(terms[place], shapes[place], strict=True))
        kept = set(result).union(*terms[place + 1 :])
        both = {letter: max(held[1].get(letter, 1), sizes.get(letter, 1)) for letter in (*held[1], *sizes)}
        summed = (set(held[0]) & set(terms[place])) - kept
        lonely = (set(held[0]) ^ set(terms[place])) - kept
        total += math.prod(n for letter, n in both.items() if letter not in lonely) if summed else 0
        left = "".join(letter for letter in both if letter in kept)
        held = (left, {letter: both[letter] for letter in left})
    return total


def _multi_dot(inputs: list[Any], _outputs: list[Any]) -> float:
    """The cheapest order of a chain of matrices, as torch finds it.

    Source: Cormen et al., Introduction to Algorithms, 15.2.
    """
    shapes = _list_shapes(inputs[0])
    sizes = [shapes[0][0] if len(shapes[0]) == 2 else 1, *(shape[-1] if len(shape) == 2 else 1 for shape in shapes)]
    if len(shapes[0]) == 1:
        sizes[1] = shapes[0][0]
    count = len(shapes)
    best = [[0] * count for _ in range(count)]
    for length in range(2, count + 1):
        for first in range(count - length + 1):
            last = first + length - 1
            best[first][last] = min(
                best[first][cut] + best[cut + 1][last] + sizes[first] * sizes[cut + 1] * sizes[last + 1]
                for cut in range(first, last)
            )
    return best[0][count - 1]


def _matrix_power(inputs: list[Any], _outputs: list[Any]) -> float:
    """Squarings and products of binary exponentiation; torch takes the cube in two."""
    shape, power = _shape(inputs[0]), abs(inputs[1].toIValue())
    steps = 0 if power < 2 else power.bit_length() - 1 + bin(power).count("1") - 1
    return steps * math.prod(shape) * shape[-1]


def _covariance(inputs: list[Any], _outputs: list[Any]) -> float:
    shape = _shape(inputs[0])
    rows, columns = shape if len(shape) == 2 else (1, shape[0])
    return rows * rows * columns * (4 if _is_complex(inputs[0]) else 1)


def _short_fourier(inverse: bool) -> Any:
    """Handle of a transform in windows: one per frame, [.., frequencies, frames] on the other side."""

    def handle(inputs: list[Any], outputs: list[Any]) -> float:
        spectrum = _shape(inputs[0] if inverse else outputs[0])
        points = inputs[1].toIValue()
        frames = math.prod(spectrum) / spectrum[-2 if _is_complex(inputs[0] if inverse else outputs[0]) else -3]
        real = spectrum[-2] != points
        return fourier_macs(points, frames, real)

    return handle


def _bilinear(inputs: list[Any], _outputs: list[Any]) -> float:
    rows = math.prod(_shape(inputs[0])[:-1])
    outputs, first, second = _shape(inputs[2])
    return rows * outputs * second * (first + 1)


def _cdist(inputs: list[Any], outputs: list[Any]) -> float:
    norm = inputs[2].toIValue() if len(inputs) > 2 else 2.0
    return math.prod(_shape(outputs[0])) * _shape(inputs[0])[-1] if norm == 2.0 else 0


def _recurrent(inputs: list[Any], outputs: list[Any]) -> float:
    """Steps x all weight matrices; padded input [T, B, I] or packed data [N, I]."""
    steps = math.prod(_shape(inputs[0])[:-1])
    lists = [_list_shapes(value) for value in inputs[1:5] if value.type().kind() == "ListType"]
    matrices = [[shape for shape in shapes if len(shape) == 2] for shapes in lists]
    return steps * sum(math.prod(shape) for shape in max(matrices, key=len))


def _recurrent_cell(inputs: list[Any], _outputs: list[Any]) -> float:
    matrices = [_shape(v) for v in inputs[1:] if v.type().kind() == "TensorType" and len(_shape(v)) == 2]
    rows = math.prod(_shape(inputs[0])[:-1])
    return rows * sum(math.prod(shape) for shape in matrices[-2:])


def _fourier(dimensions: int | None, real: str) -> Any:
    """Handle of one transform family; `real` names the side ("in", "out" or neither) that holds the real grid."""

    def handle(inputs: list[Any], outputs: list[Any]) -> float:
        grid = _shape(outputs[0] if real == "out" else inputs[0])
        chosen = _transformed(inputs, dimensions, len(grid))
        given = inputs[1].toIValue() if real != "out" else None
        for d, n in zip(chosen, given if isinstance(given, list) else [given] * bool(given), strict=False):
            grid[d] = n
        points = math.prod(grid[d] for d in chosen)
        return fourier_macs(points, math.prod(grid) / points, real != "no")

    return handle


def _transformed(inputs: list[Any], dimensions: int | None, rank: int) -> list[int]:
    given = inputs[2].toIValue() if len(inputs) > 2 else None
    if isinstance(given, int):
        return [given]
    if given:
        return list(given)
    return list(range(-dimensions, 0)) if dimensions else list(range(rank))


def _native_attention(inputs: list[Any], _outputs: list[Any]) -> float:
    batch, queries, width = _shape(inputs[0])
    keys = _shape(inputs[1])[1]
    return batch * ((2 * queries + 2 * keys) * width**2 + 2 * queries * keys * width)


def _encoder_layer(inputs: list[Any], _outputs: list[Any]) -> float:
    batch, tokens, width = _shape(inputs[0])
    hidden = max(_shape(v)[0] for v in inputs[1:] if v.type().kind() == "TensorType" and len(_shape(v)) == 2)
    hidden = max(hidden if hidden != 3 * width else 0, _shape(inputs[14])[0])
    return batch * (tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width)


HANDLES: dict[str, Any] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::matmul": _matmul, "aten::mm": _matmul, "aten::bmm": _matmul, "aten::mv": _matmul,
    "aten::_sparse_mm": _matmul, "aten::inner": _matmul,
    "aten::dot": _dot, "aten::vdot": _dot, "aten::linalg_vecdot": _dot,
    "aten::addmm": _add_product, "aten::baddbmm": _add_product, "aten::addmv": _add_product,
    "aten::addbmm": _batch_summed_product, "aten::addr": _outer_sum,
    "aten::_convolution": _whole_convolution, "aten::affine_grid_generator": _affine_grid,
    "aten::linalg_multi_dot": _multi_dot, "aten::chain_matmul": _multi_dot, "aten::cov": _covariance,
    "aten::linalg_matrix_power": _matrix_power, "aten::matrix_power": _matrix_power,
    "aten::stft": _short_fourier(False), "aten::istft": _short_fourier(True),
    "aten::_convolution_mode": _convolution, "aten::conv_tbc": _convolution_tbc,
    "aten::tensordot": _tensordot, "aten::linear": _linear, "aten::einsum": _einsum, "aten::bilinear": _bilinear,
    "aten::cdist": _cdist,
    "aten::lstm": _recurrent, "aten::gru": _recurrent, "aten::rnn_tanh": _recurrent, "aten::rnn_relu": _recurrent,
    "aten::lstm_cell": _recurrent_cell, "aten::gru_cell": _recurrent_cell, "aten::rnn_tanh_cell": _recurrent_cell,
    "aten::rnn_relu_cell": _recurrent_cell,
    "aten::fft_fft": _fourier(1, "no"), "aten::fft_ifft": _fourier(1, "no"), "aten::fft_rfft": _fourier(1, "in"),
    "aten::fft_irfft": _fourier(1, "out"), "aten::fft_fft2": _fourier(2, "no"), "aten::fft_ifft2": _fourier(2, "no"),
    "aten::fft_rfft2": _fourier(2, "in"), "aten::fft_irfft2": _fourier(2, "out"),
    "aten::fft_fftn": _fourier(None, "no"), "aten::fft_ifftn": _fourier(None, "no"),
    "aten::fft_rfftn": _fourier(None, "in"), "aten::fft_irfftn": _fourier(None, "out"),
    "aten::_native_multi_head_attention": _native_attention,
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
}  # fmt: skip


def _custom_handle(name: str) -> Any:
    """The handle of fvcore for a registered operator: its formula on meta tensors of the traced shapes."""

    def handle(inputs: list[Any], outputs: list[Any]) -> float:
        formula = custom_formula(name)
        assert formula is not None
        namespace, operator = name.split("::")
        packet = getattr(getattr(torch.ops, namespace), operator)
        overload = getattr(packet, packet.overloads()[0])
        out = [_stand_in(value) for value in outputs]
        args = tuple(_stand_in(value) for value in inputs)
        return formula(Call(overload, args, {}, out[0] if len(out) == 1 else out)).macs

    return handle


def _stand_in(value: Any) -> Any:
    kind = value.type().kind()
    if kind == "TensorType":
        return torch.empty(_shape(value), device="meta")
    if kind == "ListType" and value.node().kind() == "prim::ListConstruct":
        return [_stand_in(item) for item in value.node().inputs()]
    return value.toIValue()


# ---------------------------------------------------------------- running it without leaving anything behind
class _TensorsOnly(nn.Module):
    """The network as a function of a flat tuple of tensors to a flat tuple of tensors, which is what jit can trace."""

    def __init__(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        leaves, self._structure = tree_flatten((args, kwargs))
        self._constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.tensors = tuple(leaves[i] for i in self._places)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._constants)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self._structure)
        return tuple(leaf for leaf in tree_leaves(self.network(*args, **kwargs)) if isinstance(leaf, Tensor))


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@contextmanager
def _hooks_kept(module: nn.Module) -> Iterator[None]:
    """Whatever hooks a failed trace leaves on modules are gone afterwards; so is a tracer left in mid-trace."""
    before = [(child, name, copy.copy(getattr(child, name))) for child in module.modules() for name in _HOOKS]
    tracing = torch._C._get_tracing_state()
    try:
        yield
    finally:
        for child, name, hooks in before:
            current = getattr(child, name)
            for key in set(current) - set(hooks):
                del current[key]
        torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]


@contextmanager
def _fast_path_off() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _analyse(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, float]]:
    from fvcore.nn import FlopCountAnalysis

    adapter = _TensorsOnly(network, args, kwargs)
    analysis = FlopCountAnalysis(adapter, adapter.tensors)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    for name, handle in HANDLES.items():
        analysis.set_op_handle(name, handle)
    for name in custom_names():
        analysis.set_op_handle(name, _custom_handle(name))
    counts = {name: float(value) for name, value in analysis.by_operator().items()}
    return analysis, counts


def _count(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SecondCount:
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(torch.no_grad())
        stack.enter_context(_hooks_kept(network))
        stack.enter_context(_fast_path_off())
        stack.enter_context(torch.random.fork_rng(devices=_devices(args)))
        stack.enter_context(compilers_off())
        analysis, counts = _analyse(network, args, kwargs)
        unsupported = {name: int(n) for name, n in analysis.unsupported_ops().items()}
    return SecondCount(sum(counts.values()), counts, unsupported, None, version("fvcore"))


def _devices(args: Any) -> list[int]:
    found = {t.device.index for t in tree_leaves(args) if isinstance(t, Tensor) and t.is_cuda}
    return sorted(index for index in found if index is not None)


def second_count(
    network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, timeout_s: float = 300.0
) -> SecondCount:
    """The count of fvcore for one forward of the whole batch; never raises, and cannot end this process.

    torch's tracer aborts the whole process where an exception crosses a module and is caught by the network. It
    therefore runs in a fork, or, on a device that a fork cannot use, in a fresh process.

    Args:
        network: the module; nothing of it is changed.
        args: positional inputs; nested structures of tensors are fine.
        kwargs: keyword inputs, likewise.
        timeout_s: after which the count is given up.

    Returns:
        A count, or one whose `error` says why there is none.
    """
    if not can_fork() or _devices((args, kwargs, list(network.parameters()))):
        return second_count_in_child(network, args, kwargs, timeout_s=timeout_s)
    import fvcore.nn  # noqa: F401 - here, so that not every fork pays for the import

    try:
        found = run_apart(lambda: asdict(_count_without_gradients(network, args, kwargs)), timeout_s=timeout_s)
    except ApartError as error:
        return SecondCount(None, error=str(error), version=version("fvcore"))
    return SecondCount(**found)


def _count_without_gradients(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SecondCount:
    """The count in a fork: the tracer refuses weights that require a gradient and are no parameters of the network."""
    for part in every_module(network):
        for parameter in part._parameters.values():
            if parameter is not None:
                parameter.requires_grad_(False)
    return count_in_place(network, args, kwargs)


def count_in_place(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SecondCount:
    """The same count in this process, which a crash of the tracer would end; no Python error leaves it."""
    try:
        return _count(network, args, kwargs)
    except Exception as error:  # whatever the tracer raises is a reason, not a failure of the case
        lines = str(error).strip().splitlines() or [""]
        return SecondCount(None, error=f"{type(error).__name__}: {lines[0][:200]}", version=version("fvcore"))


def second_count_in_child(
    network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, timeout_s: float = 300.0
) -> SecondCount:
    """The same count in a fresh process, which gets the network by cloudpickle."""
    import cloudpickle

    with tempfile.TemporaryDirectory() as folder:
        subject, answer = Path(folder) / "subject.pickle", Path(folder) / "count.json"
        try:
            subject.write_bytes(cloudpickle.dumps((network, args, kwargs)))
            command = [sys.executable, "-m", "bench.meters.fvcore_count", str(subject), str(answer)]
            done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, text=True)
            if not answer.exists():
                return SecondCount(None, error=f"child ended with {done.returncode}: {done.stderr.strip()[-200:]}")
            return SecondCount(**json.loads(answer.read_text(encoding="utf-8")))
        except Exception as error:  # an unpicklable network or a timeout is a reason, too
            return SecondCount(None, error=f"child: {type(error).__name__}: {error}")


def _main(subject: str, answer: str) -> None:
    import cloudpickle

    network, args, kwargs = cloudpickle.loads(Path(subject).read_bytes())
    Path(answer).write_text(json.dumps(asdict(count_in_place(network, args, kwargs))), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
