"""`executorch`: an ExecuTorch program whose operators run in XNNPACK where it has them (BSD licence)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.backends import exporting
from bench.backends.backend import Backend, Conditions, Converted
from bench.backends.exporting import Way
from bench.backends.graph import Graph
from bench.backends.program import Program

BACKEND = Backend(
    "executorch",
    "ExecuTorch (XNNPACK)",
    {"cpu": ("fp32",)},
    why_dtypes="its CPU kernels are taken in single precision",
    needs=("executorch",),
    extra="executorch",
    distributions=("executorch", "torch", "torchao"),
    foreign=True,
)

FILE = "model.pte"
XNNPACK = "XnnpackBackend"


def why_not(device: str, dtype: str) -> str:
    """Why this build cannot run it: a runtime without XNNPACK or without a pool whose threads can be set."""
    from executorch.extension.pybindings import portable_lib

    if XNNPACK not in portable_lib._get_registered_backend_names():
        return "this build of executorch has no XNNPACK: take a wheel that has it"
    if not hasattr(portable_lib, "_unsafe_reset_threadpool"):
        return "this build of executorch cannot set the threads of its pool: take executorch 0.5 or newer"
    return ""


def convert(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions) -> Converted:
    """The module through an ExecuTorch program."""
    return exporting.converted(Way(BACKEND, write, load), module, args, kwargs, conditions)


def write(graph: Graph, folder: Path, conditions: Conditions) -> dict[str, Any]:
    """Write the program; how many parts went to XNNPACK and which operators stayed with the portable kernels."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(graph.program, partitioner=[XnnpackPartitioner()])
    calls = Counter(_name(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function")
    with (folder / FILE).open("wb") as file:
        edge.to_executorch().write_to_file(file)
    delegated = calls.pop("executorch_call_delegate", 0)
    calls.pop("getitem", None)
    return {"parts_in_xnnpack": delegated, "operators_outside": dict(calls)}


def _name(target: Any) -> str:
    """An operator as people write it: `aten.cumsum`."""
    name = getattr(target, "__name__", str(target))
    return name.rpartition(".")[0] if name.count(".") > 1 or name.endswith(".default") else name


def load(folder: Path, tensors: Sequence[Any], conditions: Conditions) -> Program:
    """The program's forward, with a pool of the case's threads; the pool is one for the whole process."""
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    if portable_lib._threadpool_get_thread_count() != conditions.threads:
        portable_lib._unsafe_reset_threadpool(conditions.threads)
    program = Runtime.get().load_program(folder / FILE)
    method = program.load_method("forward")
    if method is None:
        raise RuntimeError("the program has no forward")

    def call(tensors: Sequence[Any]) -> list[Any]:
        return [value.clone() for value in method.execute([tensor.contiguous() for tensor in tensors])]

    return Program(
        call,
        precision="fp32",
        threads=portable_lib._threadpool_get_thread_count(),
        details={"registered": sorted(Runtime.get().backend_registry.registered_backend_names)},
    )
