"""Multiply-accumulates, vector operations, bit operations and compulsory bytes of one forward, never silently wrong.

The first count is a dispatch-mode trace of the real module on its real inputs, in which every operator is counted by
a rule, known to cost none, or named as unknown; then the count is "at least". The second is fvcore's
(`bench.meters.fvcore_count`), which shares no code with it. Two counts that agree can both be blind: what decides is
that no operator is unknown.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.backends.onnx_file import OnnxFile
from bench.flags import Flag, flag
from bench.meters import onnx_count, own_rules
from bench.meters.count_flags import foreign_flags, outside_flags, thread_flags, unwrapped
from bench.meters.count_summary import Traced, join_second, joined, summary
from bench.meters.fvcore_count import SecondCount, second_count_in_child
from bench.meters.fvcore_count import second_count as count_again
from bench.meters.inputs import batch_for, tokens_of
from bench.meters.macs_count import CONVENTIONS, MacsCount
from bench.meters.outside import OutsideWatch, unexplained_gaps
from bench.meters.own_rules import register_op
from bench.meters.parameters_read import ParameterReads
from bench.meters.reach import Reached, every_module, is_training, look, tensors_in
from bench.meters.state import attributes_kept
from bench.meters.threads import ThreadClocks, ThreadsFollowed, unseen_operators
from bench.meters.trace import (
    ModulePaths,
    WeightStorages,
    compiler_loaded,
    compilers_off,
    deeper_recursion,
    operator_trace,
)
from bench.meters.value_checks import ValueChecks
from bench.reading import Reading, reading, unavailable
from bench.workloads.counting import PartCall


class MiscountError(RuntimeError):
    """The installed torch does not count closed-form blocks as it should; MACs would be wrong."""


# ---------------------------------------------------------------- one trace
def _trace(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, reached: Reached | None = None, **options: Any
) -> Traced:
    """One traced run; a second one, guarded, if the network brought a compiler in while it ran."""
    compiler_known = compiler_loaded()
    try:
        traced = _trace_once(module, args, kwargs, reached or look(module), **options)
    except Exception:
        if compiler_known or not compiler_loaded():
            raise
    else:
        if compiler_known or not compiler_loaded():
            return traced
    return _trace_once(module, args, kwargs, look(module), **options)


def _trace_once(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    reached: Reached,
    *,
    grad: bool = False,
    inspect_values: bool = True,
    loss: Callable[[Any], Tensor] | None = None,
) -> Traced:
    values = ValueChecks() if inspect_values else None
    paths = ModulePaths(module, reached)
    reads = ParameterReads(reached)
    trace = operator_trace(paths, WeightStorages(reached), values, reads)
    given = tensors_in((args, kwargs))
    trace.knows(given)
    paths.inputs = {id(tensor) for tensor in given}
    watch = OutsideWatch(paths)
    threads, clocks = ThreadsFollowed(lambda: trace.in_thread(paths.current)), ThreadClocks()
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(compilers_off())
        stack.enter_context(deeper_recursion())
        stack.enter_context(torch.enable_grad() if grad else torch.no_grad())
        for watching in (paths, watch, threads, trace):
            stack.enter_context(watching)
        try:
            output = _run_watched(trace, lambda: module(*args, **kwargs), loss)
        finally:
            stack.close()
            overwritten = trace.put_back()
    if values is not None:
        values.settle_weights()
    seconds = time.perf_counter() - started
    return Traced(
        trace.records,
        paths.visits,
        values or ValueChecks(),
        watch.escapes,
        _seconds_by_path(trace.gaps),
        seconds,
        output,
        batch=paths.batch,
        foreign=list(trace.foreign.values()),
        overwritten=overwritten,
        in_threads=bool(threads.idents),
        other_threads=clocks.moved(threads.idents),
        reads=reads,
    )


def _run_watched(trace: Any, forward: Callable[[], Any], loss: Callable[[Any], Tensor] | None) -> Any:
    """The output of a forward under the trace, followed by a backward where there is a loss."""
    trace.start_clock()
    output = forward()
    trace.stop_clock()
    if loss is not None:
        trace.phase = "backward"
        loss(output).backward()
    return output


def _seconds_by_path(gaps: Iterable[Any]) -> dict[str, float]:
    """Time between operators that nothing explains, summed by the module that it was spent in."""
    found: dict[str, float] = defaultdict(float)
    for gap in gaps:
        found[gap.path] += gap.seconds
    return found


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
        module: any module on any device, the meta device included; compiled modules are counted eagerly, ONNX files
            from their graph.
        args: its positional inputs.
        kwargs: its keyword inputs.
        second_count: also run fvcore, in a fork of this process (True) or in a fresh one ("child").
        inspect_values: also look for zero rows and zero weights (work that is masked, not removed).
        self_check: first make sure that this torch counts closed-form blocks right (once per process).

    Raises:
        MiscountError: the installed torch miscounts; no MACs are reported.
    """
    if self_check:
        self_test()
    kwargs = kwargs or {}
    module, flags = unwrapped(module)
    if isinstance(module, OnnxFile):
        return onnx_count.count(module, args, kwargs)
    reached = look(module)
    in_training = any(map(is_training, reached.modules))
    with attributes_kept(reached), _state_kept(module) if in_training else nullcontext():
        return _count(module, args, kwargs, reached, flags, second_count, inspect_values)


def _count(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    reached: Reached,
    flags: list[Flag],
    second: bool | str,
    inspect_values: bool,
) -> MacsCount:
    traced = _trace(module, args, kwargs, reached=reached, inspect_values=inspect_values)
    gaps = unexplained_gaps(traced.gaps, traced.seconds, lambda: _trace(module, args, kwargs).gaps)
    result = summary(traced, flags, module, args)
    result.input_tokens = 0 if isinstance(module, PartCall) else tokens_of(args, kwargs)
    unseen = _unseen_operators(module, args, kwargs) if traced.other_threads else []
    result.flags += [
        *outside_flags(traced.escapes, gaps),
        *thread_flags(unseen),
        *foreign_flags(module, traced.foreign),
    ]
    result.at_least = bool(result.at_least or gaps or unseen or any(f["code"] == "opaque_script" for f in flags))
    if second:
        started = time.perf_counter()
        join_second(result, _second(module, args, kwargs, traced, second, unseen), traced)
        result.seconds["second"] = time.perf_counter() - started
    return result


def _second(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    traced: Traced,
    how: bool | str,
    unseen: Sequence[str],
) -> SecondCount:
    """The second count, given a time that goes by what the first took; none of a forward that works in threads."""
    if not tensors_in(traced.output):
        return SecondCount(None, error="the forward returns no tensor, so that torch's tracer keeps nothing of it")
    if traced.in_threads or unseen:
        return SecondCount(None, error="the forward works in other threads, which torch's tracer does not follow")
    if traced.escapes:
        return SecondCount(
            None, error="tensors leave torch during the forward, and torch's tracer does not follow them back"
        )
    runner = second_count_in_child if how == "child" else count_again
    return runner(module, args, kwargs, timeout_s=60 + 60 * traced.seconds)


def _unseen_operators(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    with torch.no_grad(), attributes_kept(look(module)):
        return unseen_operators(lambda: module(*args, **kwargs))


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
    module, flags = unwrapped(module)
    with attributes_kept(look(module)), _state_kept(module):
        traced = _trace(module, args, kwargs or {}, grad=True, inspect_values=False, loss=loss or _sum_of_outputs)
    result = summary(traced, flags, module, args)
    result.flags += outside_flags(traced.escapes, {})
    return result


def _sum_of_outputs(output: Any) -> Tensor:
    tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    if not tensors:
        raise ValueError("no output tensor requires a gradient: pass loss=, or check requires_grad of the parameters")
    return torch.stack([tensor.float().sum() for tensor in tensors]).sum()


@contextmanager
def _state_kept(module: nn.Module) -> Iterator[None]:
    """Gradients, buffers (running statistics) and random state are afterwards what they were before."""
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for part in every_module(module) for buffer in part.buffers()]
    for parameter, _ in gradients:
        parameter.grad = None
    devices = sorted({p.device.index for p, _ in gradients if p.is_cuda and p.device.index is not None})
    try:
        with torch.random.fork_rng(devices=devices):
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
    sizes = [batch_for(module, args, {}, batch).size for args in inputs]
    macs = [c.macs / size for c, size in zip(counts, sizes, strict=True)]
    dynamic = len({round(value, 3) for value in macs}) > 1
    tokens = {path: [c.tokens.get(path, []) for c in counts] for path in counts[0].tokens}
    flags = {flag["code"]: flag for c in counts for flag in c.flags if flag["code"] != "data_dependent"}
    if dynamic:
        text = (
            f"MACs depend on the input: {min(macs) / 1e9:.4f} to {max(macs) / 1e9:.4f} GMACs over {len(macs)} inputs, "
            f"mean {statistics.fmean(macs) / 1e9:.4f}"
        )
        flags["dynamic"] = flag("dynamic", "warn", text)
    return CountsOverInputs(macs, statistics.fmean(macs), min(macs), max(macs), dynamic, tokens, list(flags.values()))


# ---------------------------------------------------------------- readings
def readings(count: MacsCount, batch: int) -> list[Reading]:
    """The counted metrics as readings: per sample, but traffic per forward of the whole batch."""
    prefix = _lower_bound_note(count)
    notes = {
        "macs": CONVENTIONS["matmul"],
        "macs_method": (
            "products of the reduction method itself, such as its matching; executed, in macs_fvcore, not in macs"
        ),
        "macs_fvcore": CONVENTIONS["fvcore"] + ("; fvcore's own total" if count.fvcore_macs is not None else ""),
        "vector_ops": "one per element and elementwise operator; softmax 5, layer norm 7, batch norm 2 per element",
        "activations": "outputs of convolutions and of matrix products with a weight, in the forward",
        "bit_operations": "MACs x weight bits x activation bits, summed over operators at their own precision",
        "traffic_bytes": (
            f"weights {count.weight_bytes} B, activations {count.activation_bytes} B; each tensor once per operator"
        ),
    }
    values = {
        "macs": count.macs / batch,
        "macs_method": count.method_macs / batch,
        "macs_fvcore": _fvcore_value(count) / batch,
        "vector_ops": count.vector_ops / batch,
        "activations": count.activations / batch,
        "bit_operations": count.bit_operations / batch,
        "traffic_bytes": float(count.traffic_bytes),
    }
    found = [reading(name, values[name], "counted", method_note=prefix + notes[name]) for name in values]
    return [*found, _parameters_read(count, batch), *_macs_per_token(count, batch, prefix)]


def _parameters_read(count: MacsCount, batch: int) -> Reading:
    """Distinct parameters that a run of the whole batch read; unavailable with the reason where that is not known."""
    found = count.parameters_read
    if found is None or found.count is None:
        return unavailable("params_read", found.reason if found else "reads of parameters were not followed")
    of_batch = "" if batch == 1 else f" of a batch of {batch}"
    note = f"{_lower_bound_note(count)}distinct parameters that the operators of a run{of_batch} read"
    note += "; at most: rows of look-ups that are not followed count as all different" if found.at_most else ""
    return reading("params_read", found.count, "counted", method_note=note)


def _macs_per_token(count: MacsCount, batch: int, prefix: str) -> list[Reading]:
    """MACs of a sample over its tokens; nothing of a network that takes no token ids, for which it has no meaning."""
    if not count.input_tokens:
        return []
    note = f"{prefix}MACs of a sample over its {count.input_tokens} tokens"
    return [reading("macs_per_token", count.macs / batch / count.input_tokens, "counted", method_note=note)]


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
    names = ("macs", "macs_method", "macs_fvcore", "vector_ops", "activations", "bit_operations", "traffic_bytes",
             "params_read")  # fmt: skip
    return [unavailable(name, reason) for name in names]


# ---------------------------------------------------------------- self-test
self_test_passed = False


def self_test() -> None:
    """Raise MiscountError unless closed-form blocks count as they should with this torch (checked once per process).

    Examples of users' own rules (`bench.counting_rule`) are held to their expected MACs likewise.

    Raises:
        MiscountError: a block's count differs from its closed form.
    """
    global self_test_passed  # noqa: PLW0603
    own_rules.load_installed()
    for rule in own_rules.untried():
        _try_own(rule)
    if self_test_passed:
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
    self_test_passed = True


def _try_own(rule: own_rules.OwnRule) -> None:
    """Raise MiscountError unless the example of a user's own rule counts as its author says."""

    class Example(nn.Module):
        def forward(self, *args: Any) -> Any:
            return operator(*args)

    namespace, _, name = rule.name.partition("::")
    operator = getattr(getattr(torch.ops, namespace), name.partition(".")[0])
    assert rule.example is not None
    traced = _trace(Example(), rule.example(), {}, inspect_values=False)
    calls = [record for record in traced.records if record.operator == rule.name.partition(".")[0]]
    counted = sum(record.macs for record in calls)
    if not calls or counted != rule.expected:
        found = f"{counted} MACs" if calls else "no call of it"
        raise MiscountError(
            f"the counting rule of {rule.name}: its example gives {found}, and {rule.expected} MACs are expected; "
            "mend the rule or the expected value"
        )
    own_rules.tried(rule)


__all__ = [
    "CONVENTIONS",
    "CountsOverInputs",
    "MacsCount",
    "MiscountError",
    "count",
    "count_over",
    "count_training",
    "joined",
    "readings",
    "register_op",
    "self_test",
    "unavailable_readings",
]
