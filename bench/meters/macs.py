"""Multiply-accumulates, vector operations, bit operations and compulsory bytes of one forward, never silently wrong.

The first count is a dispatch-mode trace of the real module on its real inputs, in which every operator is counted by
a rule, known to cost none, or named as unknown; then the count is "at least". The second is fvcore's
(`bench.meters.fvcore_count`), which shares no code with it. Two counts that agree can both be blind: what decides is
that no operator is unknown.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.meters import operator_rules
from bench.meters.fvcore_count import OTHER_TERMS, SecondCount, second_count_in_child
from bench.meters.fvcore_count import second_count as count_again
from bench.meters.outside import OutsideWatch, unexplained_gaps
from bench.meters.products import Call, Product
from bench.meters.trace import (
    ModulePaths,
    ModuleVisit,
    OperatorRecord,
    OperatorTrace,
    WeightStorages,
    fast_compile_off,
)
from bench.meters.value_checks import ValueChecks
from bench.reading import Reading, reading, unavailable

Convention = Literal["matmul", "fvcore", "all"]
Flag = dict[str, Any]

CONVENTIONS: dict[str, str] = {
    "matmul": "matrix products and convolutions only; attention in full even where causal; complex products 4 MACs; "
    "Fourier transforms 2.5 N log2 N; no bias, normalisation, softmax or elementwise work",
    "fvcore": "matmul plus what fvcore charges for normalisation (5 per element of an affine layer norm, 2 of a batch "
    "norm in inference), adaptive average pooling, upsampling and grid sampling",
    "all": "matmul MACs plus every vector operation (elementwise, reduction, softmax, normalisation) as one each",
}
TOLERANCE = 0.02


class MiscountError(RuntimeError):
    """The installed torch does not count closed-form blocks as it should; MACs would be wrong."""


@dataclass
class MacsCount:
    """What one forward (or one training step) of a whole batch computes, reads and writes.

    `macs` follows the matmul convention. When `at_least` is true some operator is unknown and every total is a lower
    bound. `flags` are dicts {code, severity, text}; `operators`, `modules` and `uncounted` are lists of plain rows.
    """

    macs: int
    fvcore_macs: float | None
    vector_ops: int
    bit_operations: int
    traffic_bytes: int
    read_bytes: int
    written_bytes: int
    weight_bytes: int
    activation_bytes: int
    dense_equivalent_macs: int
    nonzero_macs: int
    causal_unused_macs: int
    macs_by_dtype: dict[str, int]
    macs_by_phase: dict[str, int]
    conventions: dict[str, float]
    at_least: bool
    uncounted: list[dict[str, Any]]
    coverage: dict[str, Any]
    second: dict[str, Any]
    operators: list[dict[str, Any]]
    tokens: dict[str, list[int]]
    dynamic: bool
    device: str
    seconds: dict[str, float]
    versions: dict[str, str]
    flags: list[Flag] = field(default_factory=list)
    records: list[OperatorRecord] = field(default_factory=list, repr=False)
    visits: dict[str, ModuleVisit] = field(default_factory=dict, repr=False)

    def value(self, convention: Convention = "matmul") -> float:
        """The whole batch's count in a named convention (`CONVENTIONS`)."""
        if convention not in self.conventions:
            raise ValueError(f"convention {convention!r} does not exist; use one of {', '.join(CONVENTIONS)}")
        return self.conventions[convention]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the per-call records, as plain JSON types."""
        hidden = ("records", "visits")
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        return {**plain, "convention_texts": dict(CONVENTIONS)}


# ---------------------------------------------------------------- registration
def register_op(name: str, macs: Callable[..., int | float]) -> None:
    """Count a custom operator from now on: `register_op("mylib::attention", lambda q, k, v: ...)`.

    Args:
        name: qualified operator name, "namespace::name".
        macs: called with the operator's own arguments; returns the MACs of one call.
    """

    def formula(call: Call) -> Product:
        tensors = [leaf for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Tensor)]
        left, right = (tensors * 2)[:2] if tensors else (None, None)
        return Product(int(macs(*call.args, **call.kwargs)), left, right)

    operator_rules.register(name, formula)


# ---------------------------------------------------------------- one trace
@dataclass
class _Traced:
    records: list[OperatorRecord]
    visits: dict[str, ModuleVisit]
    values: ValueChecks
    escapes: Counter[str]
    gaps: dict[str, float]
    seconds: float
    output: Any = None


def _trace(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    grad: bool = False,
    inspect_values: bool = True,
    loss: Callable[[Any], Tensor] | None = None,
) -> _Traced:
    values = ValueChecks() if inspect_values else None
    paths = ModulePaths(module)
    trace = OperatorTrace(paths, WeightStorages(module), values)
    watch = OutsideWatch(paths)
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(fast_compile_off())
        stack.enter_context(torch.enable_grad() if grad else torch.no_grad())
        stack.enter_context(paths)
        stack.enter_context(watch)
        stack.enter_context(trace)
        trace.start_clock()
        output = module(*args, **kwargs)
        trace.stop_clock()
        if loss is not None:
            trace.phase = "backward"
            loss(output).backward()
    if values is not None:
        values.settle_weights()
    gaps: dict[str, float] = defaultdict(float)
    for gap in trace.gaps:
        gaps[gap.path] += gap.seconds
    seconds = time.perf_counter() - started
    return _Traced(trace.records, paths.visits, values or ValueChecks(), watch.escapes, gaps, seconds, output)


def _unwrapped(module: nn.Module) -> tuple[nn.Module, list[Flag]]:
    """The eager module behind a compiled one, and flags that say what kind of module was given."""
    flags: list[Flag] = []
    original = getattr(module, "_orig_mod", None)
    if isinstance(original, nn.Module):
        module = original
        flags.append(_flag("compiled", "info", "the module is compiled; its eager graph was counted"))
    scripted = [
        name or "the module" for name, child in module.named_modules() if isinstance(child, torch.jit.ScriptModule)
    ]
    if scripted:
        flags.append(
            _flag("scripted", "info", f"{scripted[0]} is TorchScript; its operators carry no inner module path")
        )
        fused = sorted(_fused_nodes(module))
        if fused:
            text = (
                f"the script holds fused nodes that no counter can see ({', '.join(fused)}); the count is at least this"
            )
            flags.append(_flag("opaque_script", "warning", text))
    return module, flags


_OPAQUE = ("prim::MKLDNNGroup", "prim::mkldnn_convolution", "prim::TensorExprGroup", "prim::FusionGroup",
           "prim::CudaFusionGroup", "mkldnn_prepacked::conv2d_run", "prepacked::linear_clamp_run",
           "prepacked::conv2d_clamp_run")  # fmt: skip


def _fused_nodes(module: nn.Module) -> set[str]:
    found: set[str] = set()
    for child in module.modules():
        if isinstance(child, torch.jit.ScriptModule):
            try:
                graph = child.inlined_graph
            except (AttributeError, RuntimeError):
                continue
            found |= {name for name in _OPAQUE if graph.findAllNodes(name, recurse=True)}
    return found


def _flag(code: str, severity: str, text: str) -> Flag:
    return {"code": code, "severity": severity, "text": text}


# ---------------------------------------------------------------- count
def count(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    second_count: bool | Literal["child"] = True,
    inspect_values: bool = True,
    self_check: bool = True,
) -> MacsCount:
    """MACs, vector operations, bit operations and compulsory bytes of one eager forward of the whole batch.

    Args:
        module: any module on any device, the meta device included; compiled modules are counted eagerly.
        args: its positional inputs.
        kwargs: its keyword inputs.
        second_count: also run fvcore, here (True) or in a child process ("child").
        inspect_values: also look for zero rows and zero weights (work that is masked, not removed).
        self_check: first make sure that this torch counts closed-form blocks right (once per process).

    Raises:
        MiscountError: the installed torch miscounts; no MACs are reported.
    """
    if self_check:
        self_test()
    kwargs = kwargs or {}
    module, flags = _unwrapped(module)
    traced = _trace(module, args, kwargs, inspect_values=inspect_values)
    gaps = unexplained_gaps(traced.gaps, traced.seconds, lambda: _trace(module, args, kwargs).gaps)
    result = _summary(traced, flags, module, args)
    result.flags += _outside_flags(traced.escapes, gaps)
    result.at_least = result.at_least or bool(gaps) or any(f["code"] == "opaque_script" for f in flags)
    if second_count:
        started = time.perf_counter()
        runner = second_count_in_child if second_count == "child" else count_again
        _join_second(result, runner(module, args, kwargs), traced)
        result.seconds["second"] = time.perf_counter() - started
    return result


def _summary(traced: _Traced, flags: list[Flag], module: nn.Module, args: Any) -> MacsCount:
    records = traced.records
    work = [record for record in records if record.kind != "view"]
    macs = sum(r.macs for r in work)
    norms = sum(r.norm_macs for r in work)
    vector = sum(r.vector_ops for r in work)
    unknown = [r for r in work if r.kind == "unknown"]
    weights = sum(r.weight_read + r.weight_written for r in work)
    activations = sum(r.activation_read + r.activation_written for r in work)
    uncounted = _uncounted(unknown, sum(r.elapsed_s for r in work))
    result = MacsCount(
        macs=macs,
        fvcore_macs=None,
        vector_ops=vector,
        bit_operations=sum(r.bit_operations for r in work),
        traffic_bytes=weights + activations,
        read_bytes=sum(r.weight_read + r.activation_read for r in work),
        written_bytes=sum(r.weight_written + r.activation_written for r in work),
        weight_bytes=weights,
        activation_bytes=activations,
        dense_equivalent_macs=sum(r.dense_macs for r in work),
        nonzero_macs=round(sum(_nonzero(r) for r in work)),
        causal_unused_macs=sum(r.causal_unused_macs for r in work),
        macs_by_dtype=_sums(work, lambda r: r.dtype),
        macs_by_phase=_sums(work, lambda r: r.phase),
        conventions={"matmul": macs, "fvcore": macs + norms, "all": macs + vector},
        at_least=bool(unknown),
        uncounted=uncounted,
        coverage=_coverage(records),
        second={},
        operators=_operators(work),
        tokens={path: visit.tokens for path, visit in traced.visits.items() if visit.tokens},
        dynamic=any(r.data_dependent for r in records),
        device=_device(module, args),
        seconds={"trace": traced.seconds},
        versions={"torch": torch.__version__},
        flags=list(flags),
        records=records,
        visits=traced.visits,
    )
    result.flags += _count_flags(result, traced.values)
    return result


def _nonzero(record: OperatorRecord) -> float:
    return record.nonzero_macs if record.weight_key is not None and record.nonzero_macs else record.macs


def _sums(records: Iterable[OperatorRecord], key: Callable[[OperatorRecord], str]) -> dict[str, int]:
    totals: dict[str, int] = defaultdict(int)
    for record in records:
        if record.macs:
            totals[key(record)] += record.macs
    return dict(totals)


def _device(module: nn.Module, args: Any) -> str:
    tensors = [*module.parameters(), *(leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))]
    return str(tensors[0].device) if tensors else "cpu"


def _uncounted(unknown: list[OperatorRecord], total_s: float) -> list[dict[str, Any]]:
    groups: dict[str, list[OperatorRecord]] = defaultdict(list)
    for record in unknown:
        groups[record.operator].append(record)
    return [
        {
            "operator": name,
            "calls": len(group),
            "module_paths": sorted({r.path for r in group}),
            "time_share": sum(r.elapsed_s for r in group) / total_s if total_s else None,
        }
        for name, group in groups.items()
    ]


def _coverage(records: list[OperatorRecord]) -> dict[str, Any]:
    calls = Counter(record.kind for record in records)
    total = sum(calls.values())
    return {
        "calls": total,
        "by_class": {kind: calls.get(kind, 0) for kind in ("compute", "vector", "move", "view", "unknown")},
        "known_share": (total - calls["unknown"]) / total if total else None,
    }


def _operators(work: list[OperatorRecord]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[OperatorRecord]] = defaultdict(list)
    for record in work:
        groups[record.operator, record.kind, record.dtype].append(record)
    rows = [
        {
            "operator": operator,
            "class": kind,
            "dtype": dtype,
            "calls": len(group),
            "macs": sum(r.macs for r in group),
            "vector_ops": sum(r.vector_ops for r in group),
            "read_bytes": sum(r.weight_read + r.activation_read for r in group),
            "written_bytes": sum(r.weight_written + r.activation_written for r in group),
        }
        for (operator, kind, dtype), group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row["macs"], -row["vector_ops"], row["operator"]))


# ---------------------------------------------------------------- flags
def _count_flags(result: MacsCount, values: ValueChecks) -> list[Flag]:
    flags = []
    for row in result.uncounted:
        where = ", ".join(path or "the root" for path in row["module_paths"][:4])
        share = f", {row['time_share']:.0%} of the time" if row["time_share"] else ""
        text = (
            f"{row['operator']} has no rule: {row['calls']} calls in {where}{share}; every total is at least what it says. "
            f'Register it: macs.register_op("{row["operator"]}", lambda *args: ...)'
        )
        flags.append(_flag("uncounted_operator", "warning", text))
    flags += _masking_flags(values)
    if result.causal_unused_macs:
        text = (
            f"causal attention is counted in full; a kernel that skips the masked half does "
            f"{result.causal_unused_macs / 1e9:.4f} GMACs less"
        )
        flags.append(_flag("causal_in_full", "info", text))
    if result.dense_equivalent_macs != result.macs:
        text = f"sparse products: executed {result.macs / 1e9:.4f} GMACs, dense equivalent {result.dense_equivalent_macs / 1e9:.4f}"
        flags.append(_flag("sparse", "info", text))
    if result.dynamic:
        text = (
            "an operator's result size or value depends on the data: the count may differ for other inputs (count_over)"
        )
        flags.append(_flag("data_dependent", "warning", text))
    if len(result.macs_by_dtype) > 1:
        parts = ", ".join(f"{name} {value / 1e9:.4f}" for name, value in result.macs_by_dtype.items())
        flags.append(
            _flag("mixed_precision", "info", f"GMACs by dtype: {parts}; compare bit operations, not their sum")
        )
    return flags


def _masking_flags(values: ValueChecks) -> list[Flag]:
    flags = []
    rows = {path: share for path, share in values.zero_rows().items() if share >= 0.02}
    if rows:
        path, share = max(rows.items(), key=lambda item: item[1])
        text = (
            f"{share:.0%} of the rows entering {path or 'the root'} are zero ({len(rows)} places in all): masked or padded "
            "tokens are computed all the same; removing them would save work, masking does not"
        )
        flags.append(_flag("masked_tokens", "warning", text))
    scores = {path: share for path, share in values.masked_scores().items() if share >= 0.02}
    if scores:
        path, share = max(scores.items(), key=lambda item: item[1])
        text = f"a mask rules out {share:.0%} of the attention scores in {path or 'the root'}; they are computed and counted"
        flags.append(_flag("masked_attention", "info", text))
    zeros, total = values.zero_weight_share()
    if zeros >= 0.05 and total >= 64:
        text = f"{zeros:.0%} of the multiplied weights are zero but stored dense: any saving is theoretical only"
        flags.append(_flag("masked_weights", "warning", text))
    return flags


def _outside_flags(escapes: Counter[str], gaps: dict[str, float]) -> list[Flag]:
    flags = []
    if escapes:
        parts = ", ".join(f"{what} x{n}" for what, n in escapes.most_common(4))
        text = f"tensors leave torch during the forward ({parts}); what happens to them there is not counted"
        flags.append(_flag("outside_torch", "warning", text))
    for path, seconds in sorted(gaps.items(), key=lambda item: -item[1])[:3]:
        text = f"{seconds * 1e3:.0f} ms of processor time in {path or 'the root'} belong to no operator: work outside torch"
        flags.append(_flag("unexplained_time", "warning", text))
    return flags


# ---------------------------------------------------------------- the second count
def _join_second(result: MacsCount, second: SecondCount, traced: _Traced) -> None:
    """Store fvcore's count beside the first and flag a difference above the tolerance, with its likely reason."""
    result.versions["fvcore"] = second.version
    result.fvcore_macs = second.total
    result.second = {
        "counter": "fvcore", "version": second.version, "macs": second.total, "products": second.products,
        "by_operator": second.by_operator, "unsupported": second.unsupported,
        "error": second.error, "relative_difference": None, "tolerance": TOLERANCE, "agrees": None,
    }  # fmt: skip
    if second.products is None:
        text = f"fvcore could not trace this network ({second.error}); the operator trace stands alone"
        result.flags.append(_flag("second_count_failed", "info", text))
        return
    extra = sum(second.by_operator.get(name, 0) for name in OTHER_TERMS)
    result.conventions["fvcore"] += extra
    first = result.dense_equivalent_macs
    difference = (second.products - first) / first if first else (0.0 if not second.products else float("inf"))
    result.second["relative_difference"] = difference if first else None
    result.second["agrees"] = abs(difference) <= TOLERANCE
    if not result.second["agrees"]:
        result.flags.append(_flag("counts_differ", "warning", _reason(second, first, traced)))


def _reason(second: SecondCount, first: float, traced: _Traced) -> str:
    assert second.products is not None
    lead = f"fvcore counts {second.products / 1e9:.4f} GMACs of products, the operator trace {first / 1e9:.4f}: "
    skipped = [name for name in second.unsupported if name.split("::")[0] not in ("prim",)]
    if second.products < first and skipped:
        return lead + f"fvcore skips {', '.join(skipped[:5])}"
    unknown = sorted({r.operator for r in traced.records if r.kind == "unknown"})
    if unknown:
        return lead + f"the trace does not know {', '.join(unknown[:5])}"
    return lead + "no skipped operator explains it; look at both lists of operators"


# ---------------------------------------------------------------- training and several inputs
def count_training(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    loss: Callable[[Any], Tensor] | None = None,
) -> MacsCount:
    """Forward plus backward of one training step; gradients, buffers and random state are as before afterwards.

    Args:
        module: the module, in the mode (train or eval) to be counted.
        args: positional inputs; kwargs: keyword inputs.
        kwargs: see args.
        loss: a scalar of the output; by default the sum of every floating-point tensor in it.

    Returns:
        A count whose `macs_by_phase` tells forward from backward. Recomputed work (checkpointing, fused attention's
        second look at the scores) counts, because it is executed. There is no second count.
    """
    self_test()
    module, flags = _unwrapped(module)
    devices = sorted({p.device.index for p in module.parameters() if p.is_cuda and p.device.index is not None})
    with _state_kept(module), torch.random.fork_rng(devices=devices):
        traced = _trace(module, args, kwargs or {}, grad=True, inspect_values=False, loss=loss or _sum_of_outputs)
    result = _summary(traced, flags, module, args)
    result.flags += _outside_flags(traced.escapes, {})
    return result


def _sum_of_outputs(output: Any) -> Tensor:
    tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    if not tensors:
        raise ValueError("no output tensor requires a gradient: pass loss=, or check requires_grad of the parameters")
    return torch.stack([tensor.float().sum() for tensor in tensors]).sum()


@contextmanager
def _state_kept(module: nn.Module) -> Iterator[None]:
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


@dataclass(frozen=True)
class CountsOverInputs:
    """Counts of several inputs of one network: per-sample MACs of each, their mean and range, tokens per module."""

    macs: list[float]
    mean: float
    minimum: float
    maximum: float
    dynamic: bool
    tokens: dict[str, list[list[int]]]
    flags: list[Flag]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(self.__dict__)


def count_over(module: nn.Module, inputs: Sequence[tuple[Any, ...]], *, batch: int | None = None) -> CountsOverInputs:
    """Mean, least and largest MACs per sample over real inputs, and whether the cost depends on the input.

    Args:
        module: the network.
        inputs: one tuple of positional arguments per forward.
        batch: samples per forward; by default the first tensor's leading dimension.
    """
    self_test()
    counts = [count(module, args, second_count=False, self_check=False) for args in inputs]
    sizes = [batch or _batch_of(args) for args in inputs]
    macs = [c.macs / size for c, size in zip(counts, sizes, strict=True)]
    dynamic = len({round(value, 3) for value in macs}) > 1
    tokens = {path: [c.tokens.get(path, []) for c in counts] for path in counts[0].tokens}
    flags = {flag["code"]: flag for c in counts for flag in c.flags if flag["code"] != "data_dependent"}
    if dynamic:
        text = (
            f"MACs depend on the input: {min(macs) / 1e9:.4f} to {max(macs) / 1e9:.4f} GMACs over {len(macs)} inputs, "
            f"mean {statistics.fmean(macs) / 1e9:.4f}"
        )
        flags["dynamic"] = _flag("dynamic", "warning", text)
    return CountsOverInputs(macs, statistics.fmean(macs), min(macs), max(macs), dynamic, tokens, list(flags.values()))


def _batch_of(args: Any) -> int:
    first = next((leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.dim() > 0), None)
    return int(first.shape[0]) if first is not None else 1


# ---------------------------------------------------------------- readings
def readings(count: MacsCount, batch: int) -> list[Reading]:
    """The counted metrics as readings: per sample, but traffic per forward of the whole batch."""
    prefix = _lower_bound_note(count)
    notes = {
        "macs": CONVENTIONS["matmul"],
        "macs_fvcore": CONVENTIONS["fvcore"] + ("; fvcore's own total" if count.fvcore_macs is not None else ""),
        "vector_ops": "one per element and elementwise operator; softmax 5, layer norm 7, batch norm 2 per element",
        "bit_operations": "MACs x weight bits x activation bits, summed over operators at their own precision",
        "traffic_bytes": f"weights {count.weight_bytes} B, activations {count.activation_bytes} B; each tensor once per operator",
    }
    values = {
        "macs": count.macs / batch,
        "macs_fvcore": _fvcore_value(count) / batch,
        "vector_ops": count.vector_ops / batch,
        "bit_operations": count.bit_operations / batch,
        "traffic_bytes": float(count.traffic_bytes),
    }
    return [reading(name, values[name], "counted", method_note=prefix + notes[name]) for name in values]


def _fvcore_value(count: MacsCount) -> float:
    """The own total of fvcore where the two counts agree; otherwise the trace's count in fvcore's convention."""
    trusted = count.fvcore_macs is not None and count.second.get("agrees")
    return float(count.fvcore_macs) if trusted else count.conventions["fvcore"]  # type: ignore[arg-type]


def _lower_bound_note(count: MacsCount) -> str:
    if not count.at_least:
        return ""
    names = ", ".join(row["operator"] for row in count.uncounted[:3]) or "work outside the dispatcher"
    return f"at least; not counted: {names}. "


def unavailable_readings(reason: str) -> list[Reading]:
    """All counted metrics as unavailable, for a subject that could not be traced."""
    names = ("macs", "macs_fvcore", "vector_ops", "bit_operations", "traffic_bytes")
    return [unavailable(name, reason) for name in names]


# ---------------------------------------------------------------- self-test
_passed = False


def self_test() -> None:
    """Nothing, if closed-form blocks count as they should with the installed torch (checked once per process).

    Raises:
        MiscountError: a block's count differs from its closed form.
    """
    global _passed  # noqa: PLW0603
    if _passed:
        return
    from bench.meters.selftest import BLOCKS

    for block in BLOCKS:
        module, args, expected = block()
        traced = _trace(module, args, {}, inspect_values=False)
        counted = sum(record.macs for record in traced.records)
        unknown = sorted({record.operator for record in traced.records if record.kind == "unknown"})
        if counted != expected or unknown:
            raise MiscountError(
                f"torch {torch.__version__} counts {block.__name__} as {counted} MACs instead of {expected}"
                f"{' and does not explain ' + ', '.join(unknown) if unknown else ''}; MACs are not reported. "
                f"Install a torch version from constraints.txt"
            )
    _passed = True


__all__ = [
    "CONVENTIONS", "CountsOverInputs", "MacsCount", "MiscountError", "count", "count_over", "count_training",
    "readings", "register_op", "self_test", "unavailable_readings",
]  # fmt: skip
