"""ONNX files as subjects: counted from their graph and run by ONNX Runtime, without a way through torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.backends.onnx_file import OnnxFile
from bench.errors import UsageError


def onnx_model(*, name: str, **sizes: Any) -> OnnxFile:
    """The network of an ONNX file.

    Args:
        name: the file; values that it keeps in files beside it are read from there.
        sizes: what the graph's open sizes are, by the names that the graph gives them; the first of an input is the
            batch.

    Raises:
        UsageError: the file cannot be read, or a size is no whole number.
    """
    for size, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{name}: {size}={value!r} is not valid: a size is a whole number from 1 on")
    return OnnxFile(Path(name).expanduser(), sizes)
