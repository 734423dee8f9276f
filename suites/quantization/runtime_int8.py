"""The network as a file of int8 layers: static QDQ quantization by ONNX Runtime's own tool (MIT licence).

ONNX Runtime and OpenVINO both read it and have whole-number kernels for its layers, so that two runtimes are compared
on one file. Weights int8 symmetric per output channel, activations uint8 affine per tensor (U8S8), ranges from
calibration samples. On an x86 processor without VNNI the runtimes' kernels add pairs of products in 16 bits, and
weights are kept to 7 bits there (`reduce_range`). ONNX Runtime's *dynamic* mode has no fast convolution and is not
offered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.backends.onnx_file import OnnxFile
from bench.errors import UsageError
from bench.host.int8_units import int8_units
from suites.quantization.network import calibration_batches, folded, needs_layers, on_meta

#: Folders of the files that live as long as the process.
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


class QuantisedFile(OnnxFile):
    """A file of whole-number layers; it keeps what a task asks of the network that it was made of."""

    execution = "real-int"

    def __init__(self, path: Path, like: nn.Module):
        super().__init__(path)
        self.nominal_bits = self.nominal_activation_bits = 8.0
        for name in ("resolution", "channels", "classes", "vocabulary", "task"):
            if hasattr(like, name):
                setattr(self, name, getattr(like, name))


def runtime_int8(model: nn.Module, per_channel: bool, samples: int, seed: int) -> QuantisedFile:
    """The network as an ONNX file of int8 layers.

    Args:
        model: takes one tensor.
        per_channel: whether a weight has a scale for each output channel.
        samples: that the activations' ranges are taken from.
        seed: of the samples.

    Raises:
        UsageError: ONNX Runtime is not installed.
        NotImplementedError: on the meta device.
    """
    needs_layers(model, "whitepaper")
    if on_meta(model):
        raise NotImplementedError("a file of int8 values cannot be written on the meta device")
    tool = _tool()
    folder = tempfile.TemporaryDirectory(prefix="waterline-int8-")
    _FOLDERS.append(folder)
    batches = calibration_batches(model, samples, seed)
    plain, made = Path(folder.name) / "plain.onnx", Path(folder.name) / "int8.onnx"
    _exported(folded(model), batches[0], plain)
    tool.quantize_static(
        str(plain),
        str(made),
        _reader(tool, batches),
        quant_format=tool.QuantFormat.QDQ,
        per_channel=per_channel,
        reduce_range=not int8_units(),
        activation_type=tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8,
    )
    return QuantisedFile(made, model)


def _tool() -> Any:
    try:
        import onnxruntime.quantization as tool
    except ImportError as error:
        raise UsageError(
            f'kernel="onnxruntime" needs ONNX Runtime: python -m pip install "waterline-bench[onnx]" ({error})'
        ) from error
    return tool


def _exported(model: nn.Module, args: tuple[Tensor, ...], path: Path) -> None:
    task, model.task = getattr(model, "task", None), None  # type: ignore[assignment]
    try:
        with torch.no_grad():
            batch = torch.export.Dim("batch", min=1, max=65_535)
            shapes, names = tuple({0: batch} for _ in args), _names(args)
            program = torch.onnx.export(
                model, args, dynamo=True, verbose=False, dynamic_shapes=shapes, input_names=names
            )
    finally:
        model.task = task  # type: ignore[assignment]
    assert program is not None
    program.save(str(path))


def _reader(tool: Any, batches: list[tuple[Tensor, ...]]) -> Any:
    class Reader(tool.CalibrationDataReader):
        """Calibration batches by the names of the graph's inputs."""

        def __init__(self) -> None:
            self.left: Iterator[tuple[Tensor, ...]] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            """The next batch, or None."""
            args = next(self.left, None)
            if args is None:
                return None
            return {name: value.numpy() for name, value in zip(_names(args), args, strict=True)}

    return Reader()


def _names(args: tuple[Tensor, ...]) -> list[str]:
    return [f"input_{place}" for place in range(len(args))]
