"""ONNX operators with graphs inside: which of them runs and how often, as far as the file says it.

Definitions: github.com/onnx/onnx, docs/Operators.md (If, Loop, Scan). Which branch is taken and how many rounds a loop
makes may depend on the data; then the least that runs is counted, and the most where that follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.meters.onnx_sizes import Result, Scope, Sizes, attributes_of, inner_scope, scope_of
from bench.meters.operator_record import OperatorRecord

CONTROL = frozenset(["If", "Loop", "Scan"])


@dataclass(frozen=True)
class Inside:
    """A graph inside a node and how often it runs.

    Attributes:
        name: what its nodes are called below the node: `then`, `else` or `body`.
        scope: what is known of its tensors.
        least: rounds that surely run.
        most: rounds that may run; None where nothing bounds them.
    """

    name: str
    scope: Scope
    least: int
    most: int | None


def file_scope(model: Any, given: Mapping[str, tuple[Sizes, torch.dtype]]) -> Scope:
    """What follows of the tensors of a file's graph, also through branches and loops.

    Args:
        model: the file's model; it is not changed.
        given: sizes and types of inputs of its graph, by name.
    """
    return scope_of(model, given, dict.fromkeys(CONTROL, results))


def insides(scope: Scope, node: Any) -> list[Inside]:
    """The graphs that may run for a node; of two branches that data chooses between both, each at least never.

    Raises:
        NotImplementedError: the sizes inside do not follow, or change from round to round.
        KeyError: an input has no sizes; its name.
    """
    return {"If": _branches, "Loop": _loop, "Scan": _scan}[node.op_type](scope, node)


def results(scope: Scope, node: Any) -> list[Result]:
    """Sizes and types of what a node with graphs inside gives; nothing where they do not follow."""
    try:
        inside = insides(scope, node)
    except (KeyError, NotImplementedError):
        return []
    if node.op_type == "If":
        found = [_outputs(one.scope) for one in inside]
        same = all(other == found[0] for other in found)
        return [(name, *kind) for name, kind in zip(node.output, found[0], strict=True) if kind] if same else []
    return _of_rounds(node, inside[0])


def scaled(record: OperatorRecord, rounds: int) -> OperatorRecord:
    """What so many calls of an operator do."""
    counted = {
        item.name: getattr(record, item.name) * rounds
        for item in dataclasses.fields(record)
        if item.type in ("int", "float", "float | None")
        and item.name not in ("left_bits", "right_bits")
        and getattr(record, item.name) is not None
    }
    return dataclasses.replace(record, **counted)


# ---------------------------------------------------------------- branches
def _branches(scope: Scope, node: Any) -> list[Inside]:
    held = attributes_of(node)
    both = {name: held[f"{name}_branch"] for name in ("then", "else")}
    chosen = scope.constant(node.input[0])
    if chosen is None:
        return [Inside(name, inner_scope(scope, graph, {}), 0, 1) for name, graph in both.items()]
    name = "then" if chosen else "else"
    return [Inside(name, inner_scope(scope, both[name], {}), 1, 1)]


# ---------------------------------------------------------------- rounds
def _loop(scope: Scope, node: Any) -> list[Inside]:
    """Inputs: the number of rounds, the condition of the first, and what is carried from round to round."""
    body = attributes_of(node)["body"]
    carried = list(node.input[2:])
    kinds: list[tuple[Sizes, torch.dtype]] = [((), torch.int64), ((), torch.bool)]
    kinds += [(scope.sizes[name], scope.types[name]) for name in carried]
    inner = inner_scope(scope, body, dict(zip((item.name for item in body.input), kinds, strict=True)))
    _check_carried(node, body.output[1 : 1 + len(carried)], kinds[2:], inner)
    most = scope.constant(node.input[0]) if node.input[0] else None
    first = scope.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else True
    if first is not None and not first:
        return [Inside("body", inner, 0, 0)]
    if most is not None and first and _always(inner, body):
        return [Inside("body", inner, max(0, int(most)), max(0, int(most)))]
    least = 1 if first and ((most is None and not node.input[0]) or (most or 0) > 0) else 0
    return [Inside("body", inner, least, None if most is None else max(0, int(most)))]


def _always(inner: Scope, body: Any) -> bool:
    """Whether a loop's body says "go on" whatever it sees: a constant, or the condition that it was given."""
    name = body.output[0].name
    makers = {output: node for node in body.node for output in node.output}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return name == body.input[1].name or bool(inner.constant(name))


def _scan(scope: Scope, node: Any) -> list[Inside]:
    """Inputs: what is carried, and tensors of which each round gets one slice."""
    held = attributes_of(node)
    body, count = held["body"], int(held["num_scan_inputs"])
    carried, sliced = list(node.input[:-count]), list(node.input[-count:])
    axes = held.get("scan_input_axes") or [0] * count
    kinds = [(scope.sizes[name], scope.types[name]) for name in carried]
    rounds = set()
    for name, axis in zip(sliced, axes, strict=True):
        sizes = list(scope.sizes[name])
        rounds.add(sizes.pop(axis))
        kinds.append((tuple(sizes), scope.types[name]))
    if len(rounds) != 1:
        raise NotImplementedError(f"{_called(node)} goes through tensors of different lengths")
    inner = inner_scope(scope, body, dict(zip((item.name for item in body.input), kinds, strict=True)))
    _check_carried(node, body.output[: len(carried)], kinds, inner)
    (times,) = rounds
    return [Inside("body", inner, times, times)]


def _check_carried(
    node: Any, outputs: Sequence[Any], before: Sequence[tuple[Sizes, torch.dtype]], inner: Scope
) -> None:
    for item, (sizes, _) in zip(outputs, before, strict=False):
        after = inner.sizes.get(item.name)
        if after != sizes:
            how = "do not follow from the graph" if after is None else f"change from {sizes} to {after}"
            raise NotImplementedError(
                f"the sizes of what {_called(node)} carries from round to round ({item.name}) {how}"
            )


def _of_rounds(node: Any, inside: Inside) -> list[Result]:
    """What is carried leaves as it entered; what each round gives is stacked, if their number is known."""
    kinds = _outputs(inside.scope)[1 if node.op_type == "Loop" else 0 :]
    stacked = len(node.output) - _carried(node)
    axes = attributes_of(node).get("scan_output_axes") or [0] * stacked
    found: list[Result] = []
    for place, (name, kind) in enumerate(zip(node.output, kinds, strict=True)):
        if kind is None:
            continue
        sizes, dtype = kind
        if place < _carried(node):
            found.append((name, sizes, dtype))
        elif inside.least == inside.most:
            longer = list(sizes)
            axis = axes[place - _carried(node)]
            longer.insert(axis if axis >= 0 else len(longer) + 1 + axis, inside.least)
            found.append((name, tuple(longer), dtype))
    return found


def _carried(node: Any) -> int:
    return len(node.input) - (2 if node.op_type == "Loop" else int(attributes_of(node)["num_scan_inputs"]))


def _outputs(scope: Scope) -> list[tuple[Sizes, torch.dtype] | None]:
    names = [item.name for item in scope.graph.output]
    return [(scope.sizes[n], scope.types[n]) if n in scope.sizes and n in scope.types else None for n in names]


def _called(node: Any) -> str:
    return f"the {node.op_type} {node.name}".rstrip()
