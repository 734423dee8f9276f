"""`onnxruntime`: an ONNX file of the exported graph (torch's own exporter), run by ONNX Runtime (MIT licence)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.backends import exporting
from bench.backends.backend import Backend, Conditions, ConversionFailed, Converted
from bench.backends.exporting import Way
from bench.backends.graph import Graph
from bench.backends.program import Program

BACKEND = Backend(
    "onnxruntime",
    "ONNX Runtime",
    {"cpu": ("fp32", "fp64"), "cuda": ("fp32", "tf32", "fp16", "bf16")},
    why_dtypes="on a CPU it casts half precision up and computes in fp32, and TF32 is a GPU's",
    needs=("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
    distributions=("onnxruntime", "onnxruntime-gpu", "onnx", "onnxscript", "onnx-ir", "torch"),
    foreign=True,
)

FILE = "model.onnx"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
#: ONNX Runtime's words for types, in those of the suite.
PRECISIONS = {"tensor(float)": "fp32", "tensor(double)": "fp64", "tensor(float16)": "fp16", "tensor(bfloat16)": "bf16"}


def why_not(device: str, dtype: str) -> str:
    """Why this build of ONNX Runtime cannot use the device."""
    return missing_provider(PROVIDERS[device.partition(":")[0]], "onnxruntime-gpu")


def missing_provider(provider: str, package: str) -> str:
    """Why a provider cannot be asked for: this build does not have it."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if provider in there:
        return ""
    return f"this build of onnxruntime has no {provider} (it has {', '.join(there)}): python -m pip install {package}"


def convert(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions) -> Converted:
    """The module through an ONNX file; one that came as a file as it is."""
    from bench.backends.onnx_file import OnnxFile

    if isinstance(module, OnnxFile):
        from bench.backends import given_file

        return given_file.converted(BACKEND, module, lambda: program_of(module.path, conditions), conditions)
    return exporting.converted(Way(BACKEND, write, load), module, args, kwargs, conditions)


def write(graph: Graph, folder: Path, conditions: Conditions) -> dict[str, Any]:
    """Write the ONNX file; its operators by count, and the version of their set."""
    import torch

    program = torch.onnx.export(graph.program, tuple(graph.tensors), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(folder / FILE))
    return {
        "operators": dict(Counter(node.op_type for node in program.model.graph)),
        "opset": program.model.opset_imports.get(""),
    }


def options(conditions: Conditions) -> Any:
    """A session's options: the case's threads, one operator after another."""
    import onnxruntime

    wanted = onnxruntime.SessionOptions()
    wanted.intra_op_num_threads = conditions.threads
    wanted.inter_op_num_threads = 1
    wanted.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    wanted.log_severity_level = 3
    # its threads look for work for a while after a run, which would be the time of whatever is timed next
    wanted.add_session_config_entry("session.force_spinning_stop", "1")
    return wanted


def load(folder: Path, tensors: Sequence[Any], conditions: Conditions) -> Program:
    """A session of the file that `write` wrote."""
    return program_of(folder / FILE, conditions)


def program_of(file: Path, conditions: Conditions) -> Program:
    """A session of a file.

    Raises:
        RuntimeError: the session does not run where it should.
    """
    import onnxruntime

    provider = PROVIDERS[conditions.kind]
    own = _cuda_options(conditions) if conditions.kind == "cuda" else {}
    wanted = options(conditions)
    if conditions.kind != "cpu":
        wanted.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # an error rather than half on the CPU
    session = onnxruntime.InferenceSession(str(file), wanted, providers=[(provider, own)])
    if provider not in session.get_providers():
        raise RuntimeError(f"the session runs on {', '.join(session.get_providers())}, not on {provider}")
    held, on_cpu = session.get_session_options(), conditions.kind == "cpu"
    return Program(
        _on_cpu(session) if on_cpu else on_device(session, "cuda", index_of(conditions.device)),
        precision=_precision(session, provider, conditions.dtype),
        threads=held.intra_op_num_threads if on_cpu else None,
        details={
            "providers": session.get_providers(),
            "intra_op_threads": held.intra_op_num_threads,
            "inter_op_threads": held.inter_op_num_threads,
            "execution_mode": "sequential",
        },
    )


def index_of(device: str) -> int:
    """The number of a CUDA device; 0 where none is said."""
    return int(device.partition(":")[2] or 0)


def _cuda_options(conditions: Conditions) -> dict[str, Any]:
    """The CUDA provider's options: it takes TF32 for fp32 products unless told not to."""
    return {"device_id": index_of(conditions.device), "use_tf32": "1" if conditions.dtype == "tf32" else "0"}


def _precision(session: Any, provider: str, dtype: str) -> str:
    """The type that the session computes in: that of the floating tensors that it takes and gives, for it has no other.

    A graph that takes and gives none (ids in, ids out) has that of its weights, which were the case's at export.
    """
    items = (*session.get_inputs(), *session.get_outputs())
    kinds = {PRECISIONS[item.type] for item in items if item.type in PRECISIONS}
    kind = kinds.pop() if len(kinds) == 1 else dtype
    tf32 = session.get_provider_options().get(provider, {}).get("use_tf32", "0") == "1"
    return "tf32" if kind == "fp32" and tf32 else kind


def _on_cpu(session: Any) -> Callable[[Sequence[Any]], list[Any]]:
    import torch

    names = [item.name for item in session.get_inputs()]
    run, from_numpy = session.run, torch.from_numpy

    def call(tensors: Sequence[Any]) -> list[Any]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [from_numpy(value) for value in run(None, feed)]

    return call


#: Torch's types in the numbers of ONNX.
ELEMENTS = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
}
#: ONNX Runtime's words for the types that outputs may have, in torch's.
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


def on_device(session: Any, device: str, index: int) -> Callable[[Sequence[Any]], list[Any]]:
    """A call that binds inputs and new outputs in place; it returns when the device has finished.

    Raises:
        ConversionFailed: the size of an output depends on what the inputs hold, so that nothing can be bound to it.
    """
    import torch

    inputs, outputs = [item.name for item in session.get_inputs()], session.get_outputs()
    loose = [item.name for item in outputs if not all(isinstance(size, int) for size in item.shape)]
    if loose:
        raise ConversionFailed(f"onnxruntime cannot bind {', '.join(loose)}: its size depends on what the inputs hold")
    kinds = [getattr(torch, _TYPES[item.type]) for item in outputs]
    where = torch.device(device) if device == "cpu" else torch.device(device, index)
    wait = (lambda: None) if device == "cpu" else lambda: torch.cuda.current_stream(where).synchronize()

    def call(tensors: Sequence[Any]) -> list[Any]:
        binding, held = session.io_binding(), [tensor.contiguous() for tensor in tensors]
        for name, tensor in zip(inputs, held, strict=True):
            binding.bind_input(name, device, index, _element(tensor), tuple(tensor.shape), tensor.data_ptr())
        made = [torch.empty(item.shape, dtype=kind, device=where) for item, kind in zip(outputs, kinds, strict=True)]
        for item, tensor in zip(outputs, made, strict=True):
            binding.bind_output(item.name, device, index, _element(tensor), tuple(tensor.shape), tensor.data_ptr())
        wait()  # what torch still writes to the inputs, on a stream that the session does not know
        session.run_with_iobinding(binding)
        return made

    return call


def _element(tensor: Any) -> int:
    return ELEMENTS[str(tensor.dtype).removeprefix("torch.")]
