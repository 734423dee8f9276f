"""A network that comes as an ONNX file: its values, its inputs, and a forward by ONNX Runtime, without torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.foreign_files import open_regular

#: ONNX's element types in torch's; the numbers are those of `onnx.TensorProto.DataType`.
TORCH_TYPES: dict[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 4: torch.uint16, 14: torch.complex64,
    15: torch.complex128, 16: torch.bfloat16, 17: torch.float8_e4m3fn, 18: torch.float8_e4m3fnuz, 19: torch.float8_e5m2,
    20: torch.float8_e5m2fnuz,
}  # fmt: skip
_SAME_WIDTH = {torch.bfloat16: torch.int16}
_QUANTISED = (torch.int8, torch.uint8)


class OnnxFile(nn.Module):
    """A graph from an ONNX file.

    Its parameters are the floating-point and 8-bit tensors that the file holds and that have a dimension; running
    statistics of batch normalisation, whole numbers and single numbers are buffers. Names keep their dots as `/`. The
    forward runs the graph as it is written, without the runtime's optimisations: what a backend makes of the file is
    compared with it.

    Attributes:
        path: the file.
        model: the model (`onnx.ModelProto`) with local functions put in, and without the values of large tensors.
        beside: files beside it that hold its values.
        sizes: what the graph's open sizes are, by name.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int] | None = None):
        super().__init__()
        self.path, self.sizes = path, dict(sizes or {})
        self.model = _read(path)
        self.beside = _files_beside(self.model)
        self.held = nn.Module()
        for name, value, is_weight in _values(self.model, path):
            safe = name.replace(".", "/")
            if is_weight:
                self.held.register_parameter(safe, nn.Parameter(value, requires_grad=False))
            else:
                self.held.register_buffer(safe, value)
        _forget_values(self.model)
        self._session: Any = None
        self.eval()

    @property
    def graph(self) -> Any:
        """The graph, its inputs in the caller's order."""
        return self.model.graph

    @property
    def inputs(self) -> list[Any]:
        """What a caller has to give: inputs of the graph that no value of the file fills."""
        filled = {item.name for item in self.graph.initializer}
        return [item for item in self.graph.input if item.name not in filled]

    @property
    def file_bytes(self) -> int:
        """Bytes of the file, and of those beside it that hold its values."""
        beside = {self.path.parent / name for name in self.beside}
        return sum(path.stat().st_size for path in {self.path, *beside})

    def ordered(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Positional and named tensors in the order of the graph's inputs.

        Raises:
            UsageError: one is missing, or there is one that the graph does not take.
        """
        names = [item.name for item in self.inputs]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or set(given) != set(names):
            raise UsageError(
                f"{self.path.name} takes {', '.join(names)}; given were {len(args)} by place and "
                f"{', '.join(kwargs) or 'none'} by name"
            )
        return [given[name] for name in names]

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The graph's output, or a tuple of all if there are several."""
        if self._session is None:
            runtime = _library("onnxruntime")
            options = runtime.SessionOptions()
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 3
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = runtime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        feed = {
            item.name: value.detach().cpu().numpy()
            for item, value in zip(self.inputs, self.ordered(args, kwargs), strict=True)
        }
        found = [torch.from_numpy(value) for value in self._session.run(None, feed)]
        return found[0] if len(found) == 1 else tuple(found)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random tensors of the sizes that the graph says: normal ones, and whole numbers that a look-up can take.

        Raises:
            UsageError: a size is open and nobody says it, or the file was exported for another batch.
        """
        return tuple(self._example(item, batch) for item in self.inputs)

    def _example(self, item: Any, batch: int) -> Tensor:
        kind = item.type.tensor_type
        if kind.elem_type not in TORCH_TYPES:
            raise UsageError(f'{self.path.name}: the input "{item.name}" is no tensor of numbers')
        shape = [self._size(item.name, place, dim, batch) for place, dim in enumerate(kind.shape.dim)]
        dtype = TORCH_TYPES[kind.elem_type]
        if dtype.is_floating_point:
            return torch.randn(shape).to(dtype)
        return torch.randint(0, self._rows_of(item.name), shape).to(dtype)

    def _size(self, name: str, place: int, dim: Any, batch: int) -> int:
        open_name = dim.dim_param or f"{name}_{place}"
        if dim.HasField("dim_value"):
            if place == 0 and dim.dim_value != batch:
                raise UsageError(
                    f'{self.path.name} was exported for {dim.dim_value} samples ("{name}"), and the row asks for '
                    f"{batch}: take suite.batches=[{dim.dim_value}], or export it with an open first size"
                )
            return int(dim.dim_value)
        if open_name in self.sizes:
            return int(self.sizes[open_name])
        if place == 0:
            return batch
        raise UsageError(
            f'{self.path.name}: size {place} of the input "{name}" is open: say it, {self.path.name}({open_name}=128)'
        )

    def _rows_of(self, name: str) -> int:
        """How many rows the tables have that an input of whole numbers looks up; 2 where it looks nothing up."""
        shapes = {item.name: list(item.dims) for item in self.graph.initializer}
        tables = [
            shapes[node.input[0]][0]
            for node in self.graph.node
            if node.op_type == "Gather" and name in node.input[1:] and shapes.get(node.input[0])
        ]
        return int(min(tables, default=2))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}


class FileProgram(nn.Module):
    """An ONNX file in a runtime's session, called like the `OnnxFile` that it is."""

    def __init__(self, file: OnnxFile, call: Any):
        super().__init__()
        self._file, self._call = [file], call  # in a list: its values are no parameters of what runs elsewhere
        self.eval()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The graph's output, or a tuple of all if there are several."""
        found = self._call(self._file[0].ordered(args, kwargs) if kwargs else args)
        return found[0] if len(found) == 1 else tuple(found)


def _library(name: str) -> Any:
    """A package of the extra `onnx`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f'an ONNX file needs {name}: python -m pip install "waterline-bench[onnx]" ({error})'
        ) from error


def _read(path: Path) -> Any:
    """The model of a file, local functions put in.

    Raises:
        UsageError: there is no such file, or it holds no ONNX graph.
    """
    onnx = _library("onnx")
    inliner = _library("onnx.inliner")
    try:
        open_regular(path).close()
        model = onnx.load(str(path), load_external_data=False)
        model = inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # protobuf has errors of its own, which change from version to version
        raise UsageError(f"{path} cannot be read as an ONNX file: {type(error).__name__}: {error}") from error
    strays = [name for name in _files_beside(model) if not name.startswith(path.name)]
    if strays:  # the key of a case covers the file and those that begin with its name
        raise UsageError(
            f"{path.name} keeps values in {strays[0]}: save it with all of them in one file named after it, "
            "onnx.save(model, "
            f'"{path.name}", save_as_external_data=True, location="{path.name}.data")'
        )
    if not model.graph.output:
        raise UsageError(f"{path} cannot be read as an ONNX file: its graph gives nothing")
    return model


def _files_beside(model: Any) -> tuple[str, ...]:
    """Files, as the model names them, that hold the values which it does not hold itself."""
    entries = [entry for _, graph in graphs_of(model) for t in graph.initializer for entry in t.external_data]
    return tuple(sorted({entry.value for entry in entries if entry.key == "location"}))


def _values(model: Any, path: Path) -> list[tuple[str, Tensor, bool]]:
    """Name, value and whether it is a weight, of everything that the graph holds."""
    found = []
    for inside, graph in graphs_of(model):
        if graph.sparse_initializer:
            raise UsageError(f"{path.name} holds sparse tensors, which are not read: store them dense")
        statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
        for tensor in _tensors(graph):
            value = _as_torch(tensor, path)
            counted = value.is_floating_point() or value.is_complex() or value.dtype in _QUANTISED
            is_weight = counted and value.dim() > 0 and tensor.name not in statistics
            found.append((inside + tensor.name, value, is_weight))
    return found


def graphs_of(model: Any) -> list[tuple[str, Any]]:
    """The graph of a model and those inside its nodes, each with what stands before the names of its tensors."""
    found, waiting = [], [("", model.graph)]
    while waiting:
        inside, graph = waiting.pop()
        found.append((inside, graph))
        for place, node in enumerate(graph.node):
            own = f"{inside}{node.name or f'{node.op_type}_{place}'}/"
            waiting += [(f"{own}{item.name}/", item.g) for item in node.attribute if item.HasField("g")]
    return found


def _tensors(graph: Any) -> list[Any]:
    """The tensors that a graph holds by itself, also in nodes that do nothing else."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                attribute.t.name = node.output[0]
                found.append(attribute.t)
    return found


def _as_torch(tensor: Any, path: Path) -> Tensor:
    from onnx import TensorProto, numpy_helper

    dtype = TORCH_TYPES.get(tensor.data_type)
    if dtype is None:
        kind = TensorProto.DataType.Name(tensor.data_type)
        raise UsageError(f'{path.name}: "{tensor.name}" is stored as {kind}, which is not read')
    array = numpy_helper.to_array(tensor, base_dir=str(path.parent)).copy()
    if dtype in _SAME_WIDTH or dtype.itemsize == 1:
        plain = array.view({1: "uint8", 2: "int16"}[dtype.itemsize])
        return torch.from_numpy(plain).view(dtype) if plain.ndim else torch.from_numpy(plain.reshape(1)).view(dtype)[0]
    return torch.from_numpy(array) if array.ndim else torch.tensor(array.item(), dtype=dtype)


#: From this many elements on a tensor holds weights, not the sizes that a graph computes shapes with.
_LARGE = 256


def _forget_values(model: Any) -> None:
    """Drop what large tensors hold, which the module has: shapes are worked out from their sizes alone."""
    for tensor in (tensor for _, graph in graphs_of(model) for tensor in graph.initializer):
        elements = 1
        for size in tensor.dims:
            elements *= size
        if elements > _LARGE:
            for part in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(part)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
