"""`openvino`: OpenVINO's own form of the exported graph, run by its CPU plugin (Apache 2.0 licence)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.backends import exporting
from bench.backends.backend import Backend, Conditions, Converted
from bench.backends.exporting import Way
from bench.backends.graph import Graph
from bench.backends.program import Program
from bench.labels import REAL_INT

BACKEND = Backend(
    "openvino",
    "OpenVINO",
    {"cpu": ("fp32", "bf16", "fp16")},
    why_dtypes="its CPU plugin turns double precision into single",
    needs=("openvino",),
    extra="openvino",
    distributions=("openvino", "torch"),
    foreign=True,
    own_threads=True,
)

FILE = "model.xml"
#: The suite's types in OpenVINO's words.
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
#: What the plugin is told, beside type and threads: one stream of one request, no shortcut in numbers.
PROPERTIES = {"NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", "EXECUTION_MODE_HINT": "ACCURACY"}
#: What it says of itself after compilation, for the record.
REPORTED = (
    "INFERENCE_PRECISION_HINT",
    "INFERENCE_NUM_THREADS",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
    "EXECUTION_MODE_HINT",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "KV_CACHE_PRECISION",
    "RUNTIME_REQUIREMENTS",
)


def silence_telemetry() -> None:
    """Keep OpenVINO from reporting home in this process: it takes its own stub where the package cannot be imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@cache
def core() -> Any:
    """OpenVINO's runtime, one for the life of the process.

    Its CPU plugin gives the process a stack for signals and, when it goes, the one that it found. Of two that go in the
    order in which they came, the second gives back a stack that is no more, and the next signal, such as Ctrl-C, ends
    the process (seen with 2026.4).
    """
    import openvino

    return openvino.Core()


def convert(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions) -> Converted:
    """The module through OpenVINO's files; one that came as an ONNX file through OpenVINO's own reader of them."""
    from bench.backends.onnx_file import OnnxFile

    silence_telemetry()
    if isinstance(module, OnnxFile):
        from bench.backends import given_file

        tensors = module.ordered(args, kwargs)
        return given_file.converted(BACKEND, module, lambda: of_onnx(module, tensors, conditions), conditions)
    return exporting.converted(Way(BACKEND, write, load), module, args, kwargs, conditions)


def write(graph: Graph, folder: Path, conditions: Conditions) -> dict[str, Any]:
    """Write the graph and its weights, uncompressed; its operators by count."""
    import openvino

    model = openvino.convert_model(graph.program)
    # the translation forgets the sizes that the graph was exported with
    model.reshape({item: list(tensor.shape) for item, tensor in zip(model.inputs, graph.tensors, strict=True)})
    openvino.save_model(model, str(folder / FILE), compress_to_fp16=False)
    return {"operators": dict(Counter(node.get_type_name() for node in model.get_ops()))}


def load(folder: Path, tensors: Sequence[Any], conditions: Conditions) -> Program:
    """The model that `write` wrote, compiled."""
    return compiled_program(str(folder / FILE), conditions)


def of_onnx(file: Any, tensors: Sequence[Any], conditions: Conditions) -> Program:
    """An ONNX file compiled for inputs of these sizes.

    Raises:
        RuntimeError: the file is of whole-number layers, and the plugin executes none of them as such.
    """
    import openvino

    model = openvino.convert_model(str(file.path))
    by_name = dict(zip((item.name for item in file.inputs), tensors, strict=True))
    model.reshape({name: list(tensor.shape) for name, tensor in by_name.items()})
    found = compiled_program(model, conditions)
    if getattr(file, "execution", None) == REAL_INT and not found.details["executed"].get("whole numbers"):
        raise RuntimeError("none of its products are executed in whole numbers on this processor")
    return found


#: How OpenVINO's plugin calls layers of products after compilation, and its types of whole numbers.
PRODUCTS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution")
WHOLE = ("i8", "u8", "I8", "U8")


def executed(compiled: Any) -> dict[str, int]:
    """How many layers of products the compiled graph executes in whole numbers, and how many in floats."""
    found = {"whole numbers": 0, "floats": 0}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in PRODUCTS:
            kind = info["runtimePrecision"].astype(str)
            found["whole numbers" if kind in WHOLE else "floats"] += 1
    return found


def compiled_program(model: Any, conditions: Conditions) -> Program:
    """A model or the file of one, compiled for the CPU in the case's type with the case's threads, and what it says."""
    wanted = {
        **PROPERTIES,
        "INFERENCE_PRECISION_HINT": HINTS[conditions.dtype],
        "INFERENCE_NUM_THREADS": conditions.threads,
    }
    compiled = core().compile_model(model, "CPU", wanted)
    supported = compiled.get_property("SUPPORTED_PROPERTIES")
    said = {name: compiled.get_property(name) for name in REPORTED if name in supported}
    hints = {name: _words(value) for name, value in said.items()}
    names = {hint: name for name, hint in HINTS.items()}
    precision = said["INFERENCE_PRECISION_HINT"].to_string()
    return Program(
        request_calls(compiled),
        precision=names.get(precision, precision),
        threads=int(said["INFERENCE_NUM_THREADS"]),
        details={
            "properties": hints,
            "device": compiled.get_property("EXECUTION_DEVICES"),
            "executed": executed(compiled),
        },
    )


def _words(value: Any) -> Any:
    """A property as plain JSON."""
    if isinstance(value, bool | int | float | str):
        return value
    return value.to_string() if hasattr(value, "to_string") else str(value)


def request_calls(compiled: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """Runs one request over and over; inputs are shared with torch, outputs copied, as the next run overwrites them."""
    import openvino
    import torch

    request, kinds = compiled.create_infer_request(), [item.get_element_type() for item in compiled.inputs]
    half = openvino.Type.bf16
    outputs = range(len(compiled.outputs))

    def taken(tensor: Any, kind: Any) -> Any:
        tensor = tensor.contiguous()
        if kind != half:
            return openvino.Tensor(tensor.numpy(), shared_memory=True)
        return openvino.Tensor(tensor.view(torch.int16).numpy(), openvino.Shape(list(tensor.shape)), half)

    def given(index: int) -> Any:
        tensor = request.get_output_tensor(index)
        if tensor.element_type != half:
            return torch.from_numpy(tensor.data.copy())
        return torch.from_numpy(tensor.data.view("int16").copy()).view(torch.bfloat16)  # NumPy has no such type

    def call(tensors: Sequence[Any]) -> list[Any]:
        held = [taken(tensor, kind) for tensor, kind in zip(tensors, kinds, strict=True)]
        for index, tensor in enumerate(held):
            request.set_input_tensor(index, tensor)
        request.infer()
        return [given(index) for index in outputs]

    return call
