"""`compile`: the module as torch's compiler runs it; the first forward compiles."""

from __future__ import annotations

import inspect
from typing import Any

from bench.backends.backend import ALL_DTYPES, Backend, Conditions, Converted

BACKEND = Backend(
    "compile", "torch.compile", {"cpu": ALL_DTYPES, "cuda": ALL_DTYPES}, distributions=("torch", "triton")
)


def convert(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions) -> Converted:
    """The module behind the compiler; nothing is compiled before its first forward."""
    return Converted(
        compiled(module, conditions.mode),
        versions=BACKEND.versions(),
        precision=conditions.dtype,
        threads=conditions.threads,
        details={"mode": conditions.mode},
        why_no_artefact="torch.compile keeps its kernels in a cache and leaves no file to ship",
        why_no_time="it compiles at the first forward: see compile_ms",
    )


def compiled(module: Any, mode: str) -> Any:
    """The module as torch compiles it at its first forward, apart from what else is compiled in this process.

    The compiler keeps its results by source code, which the members of a group share: without isolation a member would
    take its neighbour's for a variant of itself, make sizes that differ between them dynamic, and after a few give up.
    """
    import torch

    apart = "isolate_recompiles" in inspect.signature(torch.compile).parameters
    options: dict[str, Any] = {"isolate_recompiles": True} if apart else {"dynamic": False}
    return torch.compile(module, mode=mode, **options)
