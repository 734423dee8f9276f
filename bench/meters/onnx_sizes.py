"""Sizes and types of every tensor of an ONNX graph, from those of its inputs, through what ONNX's inference lacks.

ONNX infers its own operators; what it leaves open is filled in here node by node: operators that ONNX Runtime adds, and
those with graphs inside (`If`, `Loop`, `Scan`), whose results are those of the graph inside.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.backends.onnx_file import TORCH_TYPES
from bench.meters import onnx_contrib as contrib
from bench.meters.onnx_rules import OnnxCall

Sizes = tuple[int, ...]
Result = tuple[str, Sizes, torch.dtype]
_NUMBERS = {dtype: number for number, dtype in TORCH_TYPES.items()}


@dataclass
class Scope:
    """What is known of the tensors of a graph; a graph inside another also sees those around it.

    Attributes:
        model: the model whose operator sets hold; its own graph does not matter.
        graph: nodes in an order in which they can run.
        sizes: of each tensor that they follow for.
        types: likewise.
        constants: tensors that the file holds, by name, as far as they kept their values.
        weights: names of all that the file holds.
        control: what a node with graphs inside gives, by its operator.
    """

    model: Any
    graph: Any
    sizes: dict[str, Sizes]
    types: dict[str, torch.dtype]
    constants: dict[str, Any] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    control: Mapping[str, Callable[[Scope, Any], list[Result]]] = field(default_factory=dict)

    def call(self, node: Any) -> OnnxCall:
        """A node with its sizes; raises KeyError with the name of a tensor that has none."""
        given = self.given(node)  # asked for first, so that the first tensor that stops it is named
        return OnnxCall(node.op_type, given, [self.sizes[name] for name in node.output if name], attributes_of(node))

    def given(self, node: Any) -> list[Sizes | None]:
        """Sizes of a node's inputs; raises KeyError with the name of one that has none."""
        return [self.sizes[name] if name else None for name in node.input]

    def constant(self, name: str) -> Any:
        """The value of a tensor of one element that the file holds, else None."""
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        if tensor is None:
            return None
        try:
            value = numpy_helper.to_array(tensor)
        except (TypeError, ValueError):  # its values were dropped with those of large tensors, or lie in another file
            return None
        return value.item() if value.size == 1 else None


def scope_of(
    model: Any,
    given: Mapping[str, tuple[Sizes, torch.dtype]],
    control: Mapping[str, Callable[[Scope, Any], list[Result]]],
    around: Scope | None = None,
) -> Scope:
    """What follows of the tensors of a model's graph.

    Args:
        model: a model; it is not changed.
        given: sizes and types of inputs of its graph, by name.
        control: what a node with graphs inside gives, by its operator.
        around: the scope of the graph that this one stands in.
    """
    from onnx import shape_inference

    model = copy.deepcopy(model)
    own = [*model.graph.value_info, *model.graph.output]
    kept, kinds = _sizes_of(own), _types_of([*own, *model.graph.input])
    _give(model.graph, given)
    del model.graph.value_info[:]
    for item in model.graph.output:
        item.type.tensor_type.ClearField("shape")
    scope = Scope(model, model.graph, {}, {}, control=control)
    _note_constants(scope, around)
    while True:
        made = shape_inference.infer_shapes(model, data_prop=True)
        items = [*made.graph.value_info, *made.graph.output, *made.graph.input]
        scope.sizes = {**kept, **_sizes_of(items), **{t.name: tuple(t.dims) for t in made.graph.initializer}}
        scope.types = {**kinds, **_types_of(items)}
        scope.types |= {t.name: TORCH_TYPES[t.data_type] for t in made.graph.initializer if t.data_type in TORCH_TYPES}
        found = list(_filled_in(scope))
        if not found:
            return scope
        _tell(model.graph, found)


def inner_scope(around: Scope, graph: Any, given: Mapping[str, tuple[Sizes, torch.dtype]]) -> Scope:
    """What follows of the tensors of a graph that a node of another holds.

    Args:
        around: the scope of that node.
        graph: the graph inside.
        given: sizes and types of its formal inputs.
    """
    inner = type(around.model)()
    inner.CopyFrom(around.model)
    inner.graph.CopyFrom(graph)
    formal = {item.name for item in graph.input}
    outer = {}
    for name in dict.fromkeys(_free_names(graph)):
        if name in formal:
            continue
        if name in around.constants:
            inner.graph.initializer.add().CopyFrom(around.constants[name])
            inner.graph.initializer[-1].name = name
        elif name in around.sizes and name in around.types:
            inner.graph.input.add().name = name
            outer[name] = around.sizes[name], around.types[name]
    return scope_of(inner, {**outer, **given}, around.control, around)


def attributes_of(node: Any) -> dict[str, Any]:
    """Attributes of a node, texts as text."""
    from onnx import helper

    found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def is_runtimes_own(node: Any) -> bool:
    """Whether ONNX Runtime defines a node's operator, and ONNX does not."""
    return node.domain == contrib.DOMAIN or (node.domain in ("", "ai.onnx") and node.op_type == contrib.AMONG_ONNX)


# ---------------------------------------------------------------- what ONNX leaves open
def _filled_in(scope: Scope) -> Iterator[Result]:
    """Sizes and types of results that ONNX's inference did not find and that follow by now; they are noted as well."""
    for node in scope.graph.node:
        if all(name in scope.sizes and name in scope.types for name in node.output if name):
            continue
        if is_runtimes_own(node):
            found = _of_runtime(scope, node)
        elif node.op_type in scope.control and node.domain in ("", "ai.onnx"):
            found = scope.control[node.op_type](scope, node)
        else:
            continue
        for name, sizes, dtype in found:
            if name and not (name in scope.sizes and name in scope.types):
                scope.sizes[name], scope.types[name] = sizes, dtype
                yield name, sizes, dtype


def _of_runtime(scope: Scope, node: Any) -> list[Result]:
    rule = contrib.SIZES.get(node.op_type)
    if rule is None:
        return []
    typed_as = contrib.TYPED_AS.get(node.op_type, 0)
    try:
        sizes = rule(OnnxCall(node.op_type, scope.given(node), (), attributes_of(node)))
        dtype = scope.types[node.input[typed_as]]
    except (KeyError, IndexError, ValueError, RuntimeError, NotImplementedError):
        return []  # an input has no sizes, or they do not fit: the node is then named where its sizes are asked for
    return [(name, size, dtype) for name, size in zip(node.output, sizes, strict=False)]


def _note_constants(scope: Scope, around: Scope | None) -> None:
    graph = scope.graph
    scope.weights = {item.name for item in graph.initializer} | (around.weights if around is not None else set())
    scope.constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            scope.weights.add(node.output[0])
            held = next((item.t for item in node.attribute if item.HasField("t")), None)
            if held is not None:
                scope.constants[node.output[0]] = held


def _free_names(graph: Any) -> Iterator[str]:
    """Names that a graph, or one inside it, uses and does not make."""
    made = {item.name for item in graph.initializer} | {item.name for item in graph.input}
    for node in graph.node:
        yield from (name for name in node.input if name and name not in made)
        for inner in graphs_in(node):
            yield from (name for name in _free_names(inner) if name not in made)
        made.update(node.output)
    yield from (item.name for item in graph.output if item.name not in made)


def graphs_in(node: Any) -> list[Any]:
    """The graphs that a node holds."""
    return [item.g for item in node.attribute if item.HasField("g")]


def _give(graph: Any, given: Mapping[str, tuple[Sizes, torch.dtype]]) -> None:
    for item in graph.input:
        if item.name not in given:
            continue
        sizes, dtype = given[item.name]
        item.type.tensor_type.elem_type = _NUMBERS[dtype]
        item.type.tensor_type.ClearField("shape")
        item.type.tensor_type.shape.SetInParent()
        for size in sizes:
            item.type.tensor_type.shape.dim.add().dim_value = size


def _tell(graph: Any, found: Iterable[Result]) -> None:
    """Put sizes and types where ONNX's inference reads them."""
    from onnx import helper

    for name, sizes, dtype in found:
        graph.value_info.append(helper.make_tensor_value_info(name, _NUMBERS[dtype], sizes))


def _sizes_of(items: Iterable[Any]) -> dict[str, Sizes]:
    """The sizes of those tensors whose sizes are all numbers."""
    found = {}
    for item in items:
        kind = item.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[item.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found


def _types_of(items: Iterable[Any]) -> dict[str, torch.dtype]:
    kinds = {item.name: item.type.tensor_type.elem_type for item in items}
    return {name: TORCH_TYPES[kind] for name, kind in kinds.items() if kind in TORCH_TYPES}
