"""A network that came as an ONNX file, in a runtime that reads such files: nothing is exported."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from bench.backends import exporting
from bench.backends.backend import Backend, Conditions, Converted, telling
from bench.backends.graph import outside_inference
from bench.backends.onnx_file import FileProgram, OnnxFile
from bench.backends.program import Program


def converted(backend: Backend, module: OnnxFile, load: Callable[[], Program], conditions: Conditions) -> Converted:
    """What a backend makes of the file, `load` being how it reads it.

    Raises:
        ConversionFailed: the runtime cannot read it, or computes in another type or number of threads.
    """
    start = time.perf_counter_ns()
    with outside_inference(), telling(backend.name, "loading"):
        program = load()
    loaded_ms = (time.perf_counter_ns() - start) / 1e6
    exporting.hold_to(backend, program, conditions)
    return Converted(
        module=FileProgram(module, program.call),
        artefact_bytes=module.file_bytes,
        versions=backend.versions(),
        why_no_time="nothing is converted: the file is run as it is",
        precision=program.precision,
        threads=program.threads,
        details={
            **program.details,
            "operators": dict(Counter(node.op_type for node in module.graph.node)),
            "opset": {item.domain or "onnx": item.version for item in module.model.opset_import},
            "runtime_load_ms": loaded_ms,
        },
    )
