"""A backend from outside the package: a traced module in a file of its own, loaded by torch's script runtime."""

from __future__ import annotations

from bench.backends.backend import ALL_DTYPES, Backend
from bench.backends.exporting import Way, converted
from bench.backends.program import Program

BACKEND = Backend("script", "TorchScript", {"cpu": ALL_DTYPES}, distributions=("torch",), foreign=True)
#: What a test makes the runtime say of itself, and multiply its answers by.
SAYS: dict = {}


def convert(module, args, kwargs, conditions):
    return converted(Way(BACKEND, write, load), module, args, kwargs, conditions)


def write(graph, folder, conditions):
    import torch

    torch.jit.trace(graph.program.module(), tuple(graph.tensors), strict=False).save(str(folder / "model.pt"))
    return {"traced": True}


def load(folder, tensors, conditions):
    import torch

    script = torch.jit.load(str(folder / "model.pt"))
    factor = SAYS.get("factor", 1.0)

    def call(values):
        return [value * factor if value.is_floating_point() else value for value in script(*values)]

    return Program(call, SAYS.get("precision", conditions.dtype), SAYS.get("threads", conditions.threads))
