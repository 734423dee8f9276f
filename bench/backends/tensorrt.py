"""`tensorrt`: one TensorRT engine of the whole exported graph, by torch-tensorrt (BSD licence); NVIDIA GPUs only.

TensorRT itself is free to use under NVIDIA's own licence and is not open source. The graph is not divided: an operator
that TensorRT lacks is an error and no part of the network runs in torch without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.backends import exporting
from bench.backends.backend import Backend, Conditions, Converted
from bench.backends.exporting import Way
from bench.backends.graph import Graph
from bench.backends.program import Program

BACKEND = Backend(
    "tensorrt",
    "TensorRT",
    {"cuda": ("fp32", "tf32", "fp16", "bf16")},
    why_dtypes="it has no double precision",
    needs=("torch_tensorrt", "tensorrt"),
    extra="tensorrt",
    distributions=("torch-tensorrt", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "torch"),
    foreign=True,
)

FILE = "model.engine"
#: TensorRT's names of types -> the suite's and torch's.
PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "INT8": "int8",
    "UINT8": "uint8",
}


def convert(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions) -> Converted:
    """The module through a TensorRT engine."""
    return exporting.converted(Way(BACKEND, write, load), module, args, kwargs, conditions)


def write(graph: Graph, folder: Path, conditions: Conditions) -> dict[str, Any]:
    """Build and write the engine: each layer in the type that the graph has, TF32 only where the case asks for it."""
    import torch_tensorrt

    engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
        graph.program,
        arg_inputs=tuple(graph.tensors),
        use_explicit_typing=True,
        disable_tf32=conditions.dtype != "tf32",
    )
    (folder / FILE).write_bytes(engine)
    return {"typing": "explicit", "tf32": conditions.dtype == "tf32"}


def load(folder: Path, tensors: Sequence[Any], conditions: Conditions) -> Program:
    """The engine in TensorRT's own runtime, on torch's current stream."""
    import tensorrt
    import torch

    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine((folder / FILE).read_bytes())
    if engine is None:
        raise RuntimeError("TensorRT does not take the engine: it was built by another version or for another GPU")
    context, device = engine.create_execution_context(), torch.device(conditions.device)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
    made = {
        name: (tuple(engine.get_tensor_shape(name)), getattr(torch, TYPES[engine.get_tensor_dtype(name).name]))
        for name in names
        if name not in inputs
    }

    def call(given: Sequence[Any]) -> list[Any]:
        held = [tensor.contiguous() for tensor in given]
        outputs = {name: torch.empty(shape, dtype=kind, device=device) for name, (shape, kind) in made.items()}
        for name, tensor in (*zip(inputs, held, strict=True), *outputs.items()):
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise RuntimeError("TensorRT could not start the engine; its log is in the worker's")
        return list(outputs.values())

    kinds = {engine.get_tensor_dtype(name).name for name in names} & set(PRECISIONS)
    precision = PRECISIONS[kinds.pop()] if len(kinds) == 1 else conditions.dtype
    return Program(
        call,
        precision="tf32" if (precision, conditions.dtype) == ("fp32", "tf32") else precision,
        threads=None,
        details={"layers": engine.num_layers, "device_memory_bytes": engine.device_memory_size_v2},
    )
