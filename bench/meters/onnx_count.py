"""The count of an ONNX file, from its graph: sizes by ONNX's own shape inference, work by a rule per operator.

Nothing is run and nothing goes through torch. What a runtime fuses or leaves out is the runtime's: the graph is counted
as it is written, as a torch network is counted before a compiler changes it.
"""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from bench.backends.onnx_file import TORCH_TYPES, OnnxFile
from bench.flags import flag
from bench.meters import onnx_rules as rules
from bench.meters.count_summary import Traced, summary
from bench.meters.macs_count import MacsCount
from bench.meters.onnx_rules import OnnxCall
from bench.meters.operator_record import ModuleVisit, OperatorRecord
from bench.meters.value_checks import ValueChecks

Sizes = dict[str, tuple[int, ...]]
_WHY_ALONE = "an ONNX graph is counted from its nodes; fvcore traces torch modules only"


def count(module: OnnxFile, args: tuple[Any, ...], kwargs: dict[str, Any]) -> MacsCount:
    """What one forward of these inputs computes, reads and writes; per node in `records`.

    Operators without a rule are named in `uncounted`, and every total is then at least what it says.

    Raises:
        NotImplementedError: the sizes of a tensor do not follow from the graph, with the node that they stop at.
    """
    import onnx

    started = time.perf_counter()
    known = _Known(module, module.ordered(args, kwargs))
    records, visits = [], {}
    for place, node in enumerate(module.graph.node):
        path = (node.name or f"{node.op_type}_{place}").replace(".", "/")
        record = known.record(node, path)
        records.append(record)
        visits[path] = known.visit(node, path, place, record.dtype)
    seconds = time.perf_counter() - started
    traced = Traced(records, visits, ValueChecks(), Counter(), {}, seconds)
    told = [flag("onnx_graph", "info", "counted from the graph of the ONNX file, before a runtime optimises it")]
    result = summary(traced, told, module, args)
    result.versions = {"onnx": onnx.__version__}
    result.second = {"counter": "fvcore", "macs": None, "error": _WHY_ALONE, "agrees": None}
    return result


class _Known:
    """The graph's tensors: their sizes, types, and whether the file holds them."""

    def __init__(self, module: OnnxFile, inputs: list[Tensor]):
        self.weights = {item.name for item in module.graph.initializer}
        self.weights |= {node.output[0] for node in module.graph.node if node.op_type == "Constant"}
        self.products = {name for node in module.graph.node if node.op_type in ("Mul", "Pow") for name in node.output}
        self.sizes, self.types = _inferred(module, inputs)

    def call(self, node: Any) -> OnnxCall:
        """The node with its sizes; raises KeyError with the name of a tensor that has none."""
        from onnx import helper

        given = [self.sizes[name] if name else None for name in node.input]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
        return OnnxCall(node.op_type, given, [self.sizes[name] for name in node.output if name], plain)

    def record(self, node: Any, path: str) -> OperatorRecord:
        """What a node does, by its rule."""
        name = f"{node.domain or 'onnx'}::{node.op_type}"
        kind = _kind(node)
        record = OperatorRecord(name, kind, path, "forward", self._dtype(node))
        if kind in ("view", "unknown"):
            return record
        try:
            call = self.call(node)
        except KeyError as error:
            raise NotImplementedError(
                f"the sizes of {error} at the node {path} ({node.op_type}) do not follow from the graph: export it "
                "with fixed sizes, or with the sizes of every tensor (onnx.shape_inference)"
            ) from None
        self._add_work(record, node, call)
        self._add_bytes(record, node)
        record.data_dependent = node.op_type in rules.STEERING
        return record

    def _add_work(self, record: OperatorRecord, node: Any, call: OnnxCall) -> None:
        op = node.op_type
        if op in rules.COMPUTE:
            try:
                record.macs = rules.COMPUTE[op](call)
            except NotImplementedError:
                record.kind = "unknown"
                return
            record.dense_macs = record.macs
            second = node.input[rules.SECOND_OPERAND.get(op, 1)] if len(node.input) > 1 else node.input[0]
            record.left_bits, record.right_bits = self._bits(node.input[0]), self._bits(second)
            record.bit_operations = record.macs * record.left_bits * record.right_bits
            record.vector_ops = rules.VECTOR_OF_COMPUTE[op](call) if op in rules.VECTOR_OF_COMPUTE else 0
        elif op in rules.VECTOR:
            record.vector_ops = rules.VECTOR[op](call)
            record.norm_macs = rules.NORM_MACS.get(op, 0) * call.elements(0)
        if op in rules.SUMS and (op in rules.SQUARING or node.input[0] in self.products):
            record.elementwise_products = call.elements(0)

    def _add_bytes(self, record: OperatorRecord, node: Any) -> None:
        """Each tensor once; of a gather what it gives, and its indices."""
        written = sum(self._bytes(name) for name in node.output if name)
        record.activation_written = written
        names = dict.fromkeys(name for name in node.input if name)
        if node.op_type in rules.FILLS:
            return
        for place, name in enumerate(names):
            size = written if place == 0 and node.op_type in rules.GATHERS else self._bytes(name)
            if name in self.weights:
                record.weight_read += size
            else:
                record.activation_read += size

    def visit(self, node: Any, path: str, place: int, dtype: str) -> ModuleVisit:
        """What a table of layers shows of a node."""
        shapes = [[list(self.sizes[name])] for name in node.input if name in self.sizes and name not in self.weights]
        given = [list(shape[0]) for shape in shapes]
        made = [list(self.sizes[name]) for name in node.output if name in self.sizes]
        return ModuleVisit(path, node.op_type, place, 1, given, made, dtype)

    def _dtype(self, node: Any) -> str:
        names = [*(n for n in node.input if n and self.sizes.get(n)), *node.output]
        found = [self.types[name] for name in names if name in self.types]
        floating = [kind for kind in found if kind.is_floating_point]
        return next((str(kind).removeprefix("torch.") for kind in floating or found), "")

    def _bits(self, name: str) -> int:
        kind = self.types.get(name)
        return 32 if kind is None else 8 * kind.itemsize

    def _bytes(self, name: str) -> int:
        kind = self.types.get(name)
        return math.prod(self.sizes.get(name, (0,))) * (kind.itemsize if kind is not None else 0)


def _kind(node: Any) -> str:
    op = node.op_type
    if node.domain not in ("", "ai.onnx"):
        return "unknown"
    if op in rules.FREE:
        return "view"
    tables = (("compute", rules.COMPUTE), ("vector", rules.VECTOR))
    found = next((kind for kind, table in tables if op in table), None)
    return found or ("move" if op in rules.COPIES | rules.GATHERS | rules.FILLS else "unknown")


def _inferred(module: OnnxFile, inputs: list[Tensor]) -> tuple[Sizes, dict[str, torch.dtype]]:
    """Sizes and types of every tensor that they follow for, from those of the inputs."""
    from onnx import shape_inference

    model = copy.deepcopy(module.model)
    own = {item.name: item for item in [*model.graph.value_info, *model.graph.output]}
    kept = _sizes_of(own.values())
    for item, tensor in zip([i for i in model.graph.input if i.name in _names(module)], inputs, strict=True):
        item.type.tensor_type.ClearField("shape")
        for size in tensor.shape:
            item.type.tensor_type.shape.dim.add().dim_value = size
    del model.graph.value_info[:]
    for item in model.graph.output:
        item.type.tensor_type.ClearField("shape")
    model = shape_inference.infer_shapes(model, data_prop=True)
    items = [*model.graph.value_info, *model.graph.output, *model.graph.input]
    sizes = {**kept, **_sizes_of(items), **{item.name: tuple(item.dims) for item in model.graph.initializer}}
    kinds = {item.name: item.type.tensor_type.elem_type for item in [*own.values(), *items]}
    kinds |= {item.name: item.data_type for item in model.graph.initializer}
    return sizes, {name: TORCH_TYPES[kind] for name, kind in kinds.items() if kind in TORCH_TYPES}


def _names(module: OnnxFile) -> set[str]:
    return {item.name for item in module.inputs}


def _sizes_of(items: Any) -> Sizes:
    """The sizes of those tensors whose sizes are all numbers."""
    found = {}
    for item in items:
        kind = item.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[item.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found
