"""`eager`: the module as it is, operator by operator through torch."""

from __future__ import annotations

from typing import Any

from bench.backends.backend import ALL_DTYPES, Backend, Conditions, Converted

BACKEND = Backend("eager", "PyTorch eager", {"cpu": ALL_DTYPES, "cuda": ALL_DTYPES}, distributions=("torch",))


def convert(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions) -> Converted:
    """The module itself."""
    return Converted(
        module,
        versions=BACKEND.versions(),
        precision=conditions.dtype,
        threads=conditions.threads,
        why_no_artefact="nothing is converted: torch runs the module itself",
        why_no_time="nothing is converted",
    )
