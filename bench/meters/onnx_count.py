"""The count of an ONNX file, from its graph: sizes by ONNX's own shape inference, work by a rule per operator.

Nothing is run and nothing goes through torch. What a runtime fuses or leaves out is the runtime's: the graph is counted
as it is written, as a torch network is counted before a compiler changes it. Of what only the data decides (a branch,
the rounds of a loop) the least is counted, the totals are then "at least", and a flag says how much more it may be.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.backends.onnx_file import OnnxFile
from bench.flags import flag
from bench.meters import onnx_contrib as contrib
from bench.meters import onnx_rules as rules
from bench.meters.count_summary import Traced, summary
from bench.meters.macs_count import MacsCount
from bench.meters.onnx_control import CONTROL, Inside, file_scope, insides, scaled
from bench.meters.onnx_rules import OnnxCall
from bench.meters.onnx_sizes import Scope, is_runtimes_own
from bench.meters.operator_record import ModuleVisit, OperatorRecord
from bench.meters.value_checks import ValueChecks

_WHY_ALONE = "an ONNX graph is counted from its nodes; fvcore traces torch modules only"


def count(module: OnnxFile, args: tuple[Any, ...], kwargs: dict[str, Any]) -> MacsCount:
    """What one forward of these inputs computes, reads and writes; per node in `records`.

    Operators without a rule are named in `uncounted`, and every total is then at least what it says.

    Raises:
        NotImplementedError: the sizes of a tensor do not follow from the graph, with the node that they stop at; or
            nothing bounds how often a loop multiplies.
    """
    import onnx

    started = time.perf_counter()
    inputs = module.ordered(args, kwargs)
    given = {item.name: (tuple(t.shape), t.dtype) for item, t in zip(module.inputs, inputs, strict=True)}
    found = _walked(_Known(file_scope(module.model, given)), "")
    seconds = time.perf_counter() - started
    traced = Traced(found.records, found.visits, ValueChecks(), Counter(), {}, seconds)
    told = [flag("onnx_graph", "info", "counted from the graph of the ONNX file, before a runtime optimises it")]
    told += [flag("data_dependent", "warn", text) for text in found.unsure]
    result = summary(traced, told, module, args)
    result.at_least = result.at_least or bool(found.unsure)
    result.versions = {"onnx": onnx.__version__}
    result.second = {"counter": "fvcore", "macs": None, "error": _WHY_ALONE, "agrees": None}
    return result


@dataclass
class _Walk:
    """What a graph surely does, and what it may do beyond that.

    Attributes:
        records: of every node that surely runs.
        visits: by path.
        more: MACs that the data may add.
        unsure: a sentence for each node of which the data decides what runs.
    """

    records: list[OperatorRecord] = field(default_factory=list)
    visits: dict[str, ModuleVisit] = field(default_factory=dict)
    more: int = 0
    unsure: list[str] = field(default_factory=list)

    @property
    def macs(self) -> int:
        """MACs that surely run."""
        return sum(record.macs for record in self.records)

    def repeated(self, rounds: int) -> list[OperatorRecord]:
        """The records of so many rounds; of none nothing is left."""
        return [scaled(record, rounds) for record in self.records] if rounds else []


def _walked(known: _Known, above: str) -> _Walk:
    found = _Walk()
    for place, node in enumerate(known.scope.graph.node):
        path = above + (node.name or f"{node.op_type}_{place}").replace(".", "/")
        record = known.record(node, path)
        found.records.append(record)
        found.visits[path] = known.visit(node, path, len(found.visits), record.dtype)
        if record.kind != "unknown" and known.holds_graphs(node):
            _add_insides(found, known, node, path)
    return found


def _add_insides(found: _Walk, known: _Known, node: Any, path: str) -> None:
    """Add what the graphs inside a node do: all rounds where their number is known, else the least."""
    try:
        inside = insides(known.scope, node)
    except KeyError as error:
        raise _no_sizes(error, path, node) from None
    walks = [(one, _walked(_Known(one.scope), f"{path}.{one.name}.")) for one in inside]
    one, walk = min(walks, key=lambda pair: pair[1].macs)
    if len(walks) == 2:
        _add_branch(found, walk, walks, path)
        return
    if one.most is None and walk.macs + walk.more:
        raise NotImplementedError(
            f"how many rounds {path} ({node.op_type}) makes depends on the data and nothing bounds it: each has "
            f"{walk.macs:,} MACs. Export the network with a fixed number of rounds"
        )
    found.records += walk.repeated(one.least)
    found.visits |= walk.visits
    found.unsure += walk.unsure
    found.more += (one.most or 0) * (walk.macs + walk.more) - one.least * walk.macs
    if one.least != one.most:
        found.unsure.append(_of_rounds(one, walk, path))


def _add_branch(found: _Walk, least: _Walk, walks: list[tuple[Inside, _Walk]], path: str) -> None:
    """Add the branch that multiplies less; whether the other costs more is said."""
    both = ", ".join(f"{one.name} {walk.macs:,}" for one, walk in walks)
    more = max(walk.macs + walk.more for _, walk in walks) - least.macs
    found.records += least.records
    found.visits |= least.visits
    found.more += more
    found.unsure += least.unsure
    found.unsure.append(
        f"which branch of {path} runs depends on the data (MACs: {both}): the lesser one is counted, and up to "
        f"{more:,} MACs may come on top"
    )


def _of_rounds(one: Inside, walk: _Walk, path: str) -> str:
    most = "any number of" if one.most is None else f"{one.least} to {one.most}"
    more = 0 if one.most is None else one.most * (walk.macs + walk.more) - one.least * walk.macs
    return (
        f"{path} makes {most} rounds, as the data says, of {walk.macs:,} MACs each: {one.least} "
        f"{'is' if one.least == 1 else 'are'} counted, and up to {more:,} MACs may come on top"
    )


def _no_sizes(name: Any, path: str, node: Any) -> NotImplementedError:
    return NotImplementedError(
        f"the sizes of {name} at the node {path} ({node.op_type}) do not follow from the graph: export it "
        "with fixed sizes, or with the sizes of every tensor (onnx.shape_inference)"
    )


class _Known:
    """A graph's nodes with what is known of their tensors."""

    def __init__(self, scope: Scope):
        self.scope, self.sizes, self.types, self.weights = scope, scope.sizes, scope.types, scope.weights
        nodes = scope.graph.node
        self.products = {name for node in nodes if node.op_type in ("Mul", "Pow") for name in node.output}

    def holds_graphs(self, node: Any) -> bool:
        """Whether a node is a branch or a loop of ONNX."""
        return node.op_type in CONTROL and node.domain in ("", "ai.onnx")

    def record(self, node: Any, path: str) -> OperatorRecord:
        """What a node does, by its rule."""
        name = f"{node.domain or 'onnx'}::{node.op_type}"
        kind = self._kind(node)
        record = OperatorRecord(name, kind, path, "forward", self._dtype(node))
        if kind in ("view", "unknown"):
            return record
        try:
            call = self.scope.call(node)
        except KeyError as error:
            raise _no_sizes(error, path, node) from None
        self._add_work(record, node, call)
        self._add_bytes(record, node)
        record.data_dependent = node.op_type in rules.STEERING
        return record

    def _kind(self, node: Any) -> str:
        op, table = node.op_type, _table(node)
        if table is None:
            return "unknown"
        if table is rules and (op in rules.FREE or self.holds_graphs(node)):
            return "view"
        copies = contrib.COPIES if table is contrib else rules.COPIES | rules.GATHERS | rules.FILLS
        tables: tuple[tuple[str, Iterable[str]], ...] = (
            ("compute", table.COMPUTE),
            ("vector", table.VECTOR),
            ("move", copies),
        )
        return next((kind for kind, names in tables if op in names), "unknown")

    def _add_work(self, record: OperatorRecord, node: Any, call: OnnxCall) -> None:
        op, table = node.op_type, _table(node)
        assert table is not None
        if op in table.COMPUTE:
            try:
                record.macs = table.COMPUTE[op](call)
            except NotImplementedError:
                record.kind = "unknown"
                return
            record.dense_macs = record.macs
            self._add_bits(record, node, call, table)
            record.vector_ops = table.VECTOR_OF_COMPUTE[op](call) if op in table.VECTOR_OF_COMPUTE else 0
        elif op in table.VECTOR:
            record.vector_ops = table.VECTOR[op](call)
            record.norm_macs = table.NORM_MACS.get(op, 0) * call.elements(0)
        if op in rules.SUMS and (op in rules.SQUARING or node.input[0] in self.products):
            record.elementwise_products = call.elements(0)

    def _add_bits(self, record: OperatorRecord, node: Any, call: OnnxCall, table: Any) -> None:
        op = node.op_type
        second = node.input[table.SECOND_OPERAND.get(op, 1)] if len(node.input) > 1 else node.input[0]
        left = contrib.LEFT_BITS.get(op) if table is contrib else None
        record.left_bits, record.right_bits = left or self._bits(node.input[0]), self._bits(second)
        floating = contrib.FLOAT_PRODUCTS[op](call) if table is contrib and op in contrib.FLOAT_PRODUCTS else 0
        record.bit_operations = (record.macs - floating) * record.left_bits * record.right_bits + floating * 32 * 32

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
        given = [list(self.sizes[name]) for name in node.input if name in self.sizes and name not in self.weights]
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


def _table(node: Any) -> Any:
    """The rules of a node's domain; None for domains that nobody here knows."""
    if is_runtimes_own(node):
        return contrib
    return rules if node.domain in ("", "ai.onnx") else None
