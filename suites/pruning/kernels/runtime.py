"""W X by an outside runtime that is given a sparse W: ONNX Runtime's sparse initialisers, OpenVINO's packed weights.

ONNX Runtime (MIT licence) makes a sparse initialiser dense when it loads the file, so its products are the dense ones.
OpenVINO (Apache-2.0) keeps the weights of int8 fully connected layers packed where at least
`CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE` of them are zero, and unpacks them into AMX tiles: bytes fall, products do not.
Neither is a shortcut in fp32 on a CPU: that is what the rows are there to show.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.host.int8_units import int8_units
from bench.meters.own_rules import counting_rule
from suites.pruning.kernels.product import Product
from suites.pruning.structures import Pattern

Runtime = Literal["onnxruntime", "openvino"]
Run = Callable[[Tensor], Tensor]
OPSET = 17
#: Share of zeros from which OpenVINO packs a matrix: the least that a row of this suite has.
PACKED_FROM = 0.5
#: Relative L2 distance that 8-bit values and 8-bit activations may move a product by.
INT8_TOLERANCE = 0.03
_RUNS: dict[int, Run] = {}
_numbers = itertools.count(1)


@torch.library.custom_op("waterline_pruning::by_runtime", mutates_args=())
def by_runtime(weight: Tensor, x: Tensor, run: int) -> Tensor:
    """W X by the run of that number; 0 is torch itself."""
    return _RUNS[run](x) if run else weight @ x


@by_runtime.register_fake
def _(weight: Tensor, x: Tensor, run: int) -> Tensor:
    return x.new_empty(weight.shape[0], x.shape[1])


@counting_rule("waterline_pruning::by_runtime", example=lambda: (torch.ones(2, 3), torch.ones(3, 5), 0), expected=30)
def _macs(weight: Tensor, x: Tensor, run: int) -> int:
    """All of W: neither runtime leaves a product out."""
    return weight.numel() * x.shape[1]


class RuntimeProduct(Product):
    """W X by ONNX Runtime or OpenVINO; the session is made at the first call in a dtype and is no part of the state."""

    def __init__(self, weight: Tensor, pattern: Pattern, runtime: Runtime = "onnxruntime"):
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self.weight = nn.Parameter(weight.detach().clone())
        self.executed_weights = weight.numel()
        self.runtime: Runtime = runtime
        self._runs: dict[torch.dtype, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N].

        Raises:
            UsageError: the runtime is not installed.
            NotImplementedError: this processor has not the units that its sparse kernel is made for.
        """
        if x.is_meta:
            return by_runtime(self.weight, x, 0)
        if x.dtype not in self._runs:
            number = next(_numbers)
            _RUNS[number] = _SESSIONS[self.runtime](self.weight.detach(), x)
            self._runs[x.dtype] = number
        return by_runtime(self.weight, x, self._runs[x.dtype])

    def dense(self) -> Tensor:
        """W with its zeros."""
        return self.weight

    def _forget(self) -> None:
        for number in self._runs.values():
            _RUNS.pop(number, None)
        self._runs = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RuntimeProduct:
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runs": {}}


def sparse_file(weight: Tensor) -> bytes:
    """An ONNX graph Y = W X whose W is a sparse initialiser: values, and a 64-bit place of each."""
    onnx = _library("onnx", "onnx")
    helper, numpy_helper, kind = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    flat = weight.flatten()
    places = flat.nonzero()[:, 0]
    values = numpy_helper.from_array(flat[places].numpy(), "w")
    indices = numpy_helper.from_array(places.numpy(), "w_places")
    element = {torch.float32: kind.FLOAT, torch.float64: kind.DOUBLE}[weight.dtype]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["w", "x"], ["y"])],
        "sparse_product",
        [helper.make_tensor_value_info("x", element, [weight.shape[1], "columns"])],
        [helper.make_tensor_value_info("y", element, [weight.shape[0], "columns"])],
        sparse_initializer=[helper.make_sparse_tensor(values, indices, list(weight.shape))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def _onnxruntime(weight: Tensor, x: Tensor) -> Run:
    runtime = _library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(sparse_file(weight.cpu()), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.contiguous().numpy()})[0])


def _openvino(weight: Tensor, x: Tensor) -> Run:
    """See the module.

    Raises:
        NotImplementedError: no AMX: the plugin packs weights for its tiles alone.
    """
    if "amx_int8" not in (int8_units() or ()):
        raise NotImplementedError(
            "OpenVINO packs sparse weights of int8 layers for AMX alone, and this processor has no amx_int8: "
            "take runtime='onnxruntime' here"
        )
    return int8_by_openvino(weight, x, PACKED_FROM)


def int8_by_openvino(weight: Tensor, x: Tensor, packed_from: float) -> Run:
    """Y = (X' W')' with int8 weights (a scale for each output) and int8 activations in OpenVINO's CPU plugin.

    Args:
        weight: [outputs, inputs] in fp32.
        x: columns whose largest size sets the range of activations.
        packed_from: share of zeros from which the weights are packed; 1 for never.
    """
    _library("openvino", "openvino")
    from bench.backends.openvino import core, silence_telemetry

    silence_telemetry()
    import openvino
    from openvino import opset13 as ops

    scale = (weight.abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
    codes = (weight / scale).round().to(torch.int8)
    reach = float(x.abs().max())
    given = ops.parameter([weight.shape[1], -1], openvino.Type.f32)
    tokens = ops.transpose(given, [1, 0])
    rounded = ops.fake_quantize(tokens, -reach * 128 / 127, reach, -reach * 128 / 127, reach, 256)
    values = ops.multiply(ops.convert(ops.constant(codes.numpy()), "f32"), ops.constant(scale.numpy()))
    made = ops.transpose(ops.matmul(rounded, values, False, True), [1, 0])
    properties = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY",
        "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": packed_from,
    }  # fmt: skip
    compiled = core().compile_model(openvino.Model([made], [given], "product"), "CPU", properties)
    request = compiled.create_infer_request()

    def run(x: Tensor) -> Tensor:
        request.set_input_tensor(0, openvino.Tensor(x.contiguous().numpy(), shared_memory=True))
        request.infer()
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


_SESSIONS: dict[str, Callable[[Tensor, Tensor], Run]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _library(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"kernel='runtime' needs {name}: pip install 'waterline-bench[{extra}]'") from error
