"""A table of layers: what each module's own operators compute, read and write, and the time they take.

Counts come from the operator trace, times from a separate pass with module hooks; neither runs while an end-to-end
latency is taken. Time that no layer explains is reported, never spread.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter  # taken before the user's code could put another clock in its place
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.meters import macs
from bench.meters.hooks import ForwardHooks
from bench.meters.macs import MacsCount
from bench.meters.trace import ModuleVisit, OperatorRecord
from bench.workloads.counting import PartCall

LayerRow = dict[str, Any]
#: What a row holds, also where there is none: a forward of views alone has no row.
COLUMNS = (
    "index", "name", "module_path", "op", "input_shapes", "output_shapes", "dtype", "macs", "vector_ops",
    "bit_operations", "read_bytes", "write_bytes", "weight_bytes", "activation_bytes", "intensity", "calls",
    "operators", "uncounted", "tokens", "tokens_per_call", "provenance_bytes", "time_ms", "time_low_ms",
    "time_high_ms", "share",
)  # fmt: skip

_NOTE = (
    "Counts: operator trace. time_ms: median over repeated forwards of the module's own time (its children's taken "
    "off), from a pass of its own with module hooks; time_low_ms to time_high_ms is the 95 % order-statistic interval "
    "of that median. end_to_end_ms: forwards without hooks, alternating with the hooked ones. share: time_ms over "
    "end_to_end_ms. unexplained_ms: end_to_end_ms less all rows; below zero it is what the hooks cost. "
    "intensity: 2 x MACs over bytes."
)


@dataclass(frozen=True)
class LayerTable:
    """Rows in execution order, one per module whose own operators do work, and what the rows leave over."""

    rows: list[LayerRow]
    info: dict[str, Any] = field(default_factory=dict)


def table(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    repeats: int = 20,
    warmup: int = 2,
    counted: MacsCount | None = None,
) -> LayerTable:
    """The layer table of one forward of the whole batch.

    Args:
        module: the subject, in the state in which it is to run.
        args: its positional inputs.
        kwargs: its keyword inputs.
        repeats: timed forwards with and without hooks each; 0 leaves the times out (meta tensors always do).
        warmup: forwards before the first timed one.
        counted: a count of the same forward, to spare a second trace.
    """
    kwargs = kwargs or {}
    count = counted if counted is not None else macs.count(module, args, kwargs, second_count=False)
    timing = _Timing.unavailable("meta tensors take no time") if count.device == "meta" else None
    if timing is None:
        timing = _time(module, args, kwargs, repeats, warmup) if repeats else _Timing.unavailable("repeats=0")
    rows = _counted_rows(count)
    for row in rows:
        _add_time(row, timing)
    return LayerTable(rows, _info(rows, timing, count))


def module_times(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    repeats: int,
    warmup: int = 2,
    reset: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """One process's medians in ms: `own` per module path, `plain` and `hooked` forwards; `repeats` of each.

    For tables whose unit of replication is the process: counts are made once, these are joined from several processes.
    """
    timing = _time(module, args, kwargs or {}, repeats, warmup, reset or (lambda: None))
    own = {path: statistics.median(samples) for path, samples in timing.own.items()}
    whole = {"plain": statistics.median(timing.plain), "hooked": statistics.median(timing.hooked)}
    return {"own": own, **whole, "repeats": repeats}


# ---------------------------------------------------------------- counts
def _counted_rows(count: MacsCount) -> list[LayerRow]:
    """One row per module path with operators of its own that are not mere views, in order of first execution."""
    groups: dict[str, list[OperatorRecord]] = defaultdict(list)
    for record in count.records:
        if record.kind != "view":
            groups[record.path].append(record)
    return [_row(index, path, group, count) for index, (path, group) in enumerate(groups.items())]


def _row(index: int, path: str, group: list[OperatorRecord], count: MacsCount) -> LayerRow:
    visit = count.visits.get(path) or ModuleVisit(path, "", 0)
    weights = sum(r.weight_read + r.weight_written for r in group)
    activations = sum(r.activation_read + r.activation_written for r in group)
    work = sum(r.macs for r in group)
    tokens = visit.tokens[0] if visit.tokens else None
    return {
        "index": index,
        "name": path.rsplit(".", 1)[-1] or visit.op or "root",
        "module_path": path,
        "op": visit.op or "root",
        "input_shapes": visit.input_shapes,
        "output_shapes": visit.output_shapes,
        "dtype": _dtype(group),
        "macs": work,
        "vector_ops": sum(r.vector_ops for r in group),
        "bit_operations": sum(r.bit_operations for r in group),
        "read_bytes": sum(r.weight_read + r.activation_read for r in group),
        "write_bytes": sum(r.weight_written + r.activation_written for r in group),
        "weight_bytes": weights,
        "activation_bytes": activations,
        "intensity": 2 * work / (weights + activations) if weights + activations else None,
        "calls": max(visit.calls, 1),
        "operators": sorted({r.operator for r in group}),
        "uncounted": sorted({r.operator for r in group if r.kind == "unknown"}),
        "tokens": tokens,
        "tokens_per_call": visit.tokens if len(set(visit.tokens)) > 1 else None,
        "provenance_bytes": "counted",
    }


def _dtype(group: list[OperatorRecord]) -> str:
    """The dtype of the operator with the most MACs, else of the one that moves most."""
    return max(group, key=lambda r: (r.macs, r.activation_read + r.activation_written)).dtype


# ---------------------------------------------------------------- times
@dataclass(frozen=True)
class _Timing:
    """Own time of each module path per forward and of the whole forward, in ms; or the reason why there is none."""

    own: dict[str, list[float]]
    hooked: list[float]
    plain: list[float]
    reason: str = ""

    @classmethod
    def unavailable(cls, reason: str) -> _Timing:
        return cls({}, [], [], reason)


class _HostClock:
    """Marks are readings of the host's clock, in ms."""

    def mark(self) -> float:
        return perf_counter() * 1e3

    def between(self, start: Any, end: Any) -> float:
        return end - start

    def wait(self) -> None:
        return None


class _CudaClock:
    """Marks are events in the current stream: kernels are timed where they run, without a wait per layer."""

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end)

    def wait(self) -> None:
        torch.cuda.synchronize()


class _LayerClock(ForwardHooks):
    """Marks at the entry and exit of every module, by process-wide hooks that leave the modules untouched."""

    def __init__(self, module: nn.Module, clock: _HostClock | _CudaClock) -> None:
        self._names = {id(child): name for name, child in module.named_modules()}
        self._clock = clock
        self._events: list[tuple[str | None, Any]] = []

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """Stamp the begin of a module's forward."""
        known = self._names.get(id(module))
        self._events.append((known if known is not None else "?" + type(module).__name__, self._clock.mark()))

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Stamp its end."""
        self._events.append((None, self._clock.mark()))

    def own_times(self) -> dict[str, float]:
        """Own time per path of the forward just run, after its last kernel is done; forgets the marks."""
        own: dict[str, float] = defaultdict(float)
        stack: list[tuple[str, Any, float]] = []
        for path, mark in self._events:
            if path is not None:
                name = path if not path.startswith("?") else self._nested_name(stack, path)
                stack.append((name, mark, 0.0))
                continue
            name, start, inside = stack.pop()
            whole = self._clock.between(start, mark)
            own[name] += whole - inside
            if stack:
                outer, begun, spent = stack[-1]
                stack[-1] = (outer, begun, spent + whole)
        self._events.clear()
        return dict(own)

    @staticmethod
    def _nested_name(stack: list[tuple[str, Any, float]], path: str) -> str:
        outer = stack[-1][0] if stack else ""
        return f"{outer}.<{path[1:]}>".lstrip(".")


def _time(
    module: nn.Module,
    args: Any,
    kwargs: dict[str, Any],
    repeats: int,
    warmup: int,
    reset: Callable[[], None] = lambda: None,
) -> _Timing:
    cuda = any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in [*tree_leaves(args), *module.parameters()])
    clock = _CudaClock() if cuda else _HostClock()
    own: dict[str, list[float]] = defaultdict(list)
    hooked: list[float] = []
    plain: list[float] = []
    with torch.no_grad():
        for _ in range(warmup):
            module(*args, **kwargs)
            reset()
        for _ in range(repeats):
            plain.append(_forward_ms(module, args, kwargs, clock))
            reset()
            with _LayerClock(module, clock) as layers:
                hooked.append(_forward_ms(module, args, kwargs, clock))
            reset()
            for path, milliseconds in layers.own_times().items():
                own[path].append(milliseconds)
    return _Timing(dict(own), hooked, plain)


def _forward_ms(module: nn.Module, args: Any, kwargs: dict[str, Any], clock: _HostClock | _CudaClock) -> float:
    if isinstance(module, PartCall):  # what has to be prepared before each run
        module.renew()
    clock.wait()
    start = clock.mark()
    module(*args, **kwargs)
    end = clock.mark()
    clock.wait()
    return clock.between(start, end)


def median_interval(samples: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """The narrowest symmetric order-statistic interval that covers the median with this confidence.

    The whole range when there are too few samples for it (five or fewer at 95 %). Source: Conover, Practical
    Nonparametric Statistics, section 3.2.
    """
    from scipy import stats  # a second of import that a table without times need not pay

    ordered = sorted(samples)
    lowest = int(stats.binom.ppf((1 - confidence) / 2, len(ordered), 0.5))
    if stats.binom.cdf(lowest - 1, len(ordered), 0.5) > (1 - confidence) / 2:
        lowest -= 1
    lowest = max(0, lowest - 1)
    return ordered[lowest], ordered[len(ordered) - 1 - lowest]


def _add_time(row: LayerRow, timing: _Timing) -> None:
    samples = timing.own.get(row["module_path"])
    if not samples:
        row.update(time_ms=None, time_low_ms=None, time_high_ms=None, share=None)
        return
    low, high = median_interval(samples)
    median = statistics.median(samples)
    whole = statistics.median(timing.plain)
    row.update(time_ms=median, time_low_ms=low, time_high_ms=high, share=median / whole if whole else None)


def _info(rows: list[LayerRow], timing: _Timing, count: MacsCount) -> dict[str, Any]:
    info: dict[str, Any] = {
        "repeats": len(timing.plain),
        "end_to_end_ms": None,
        "end_to_end_low_ms": None,
        "end_to_end_high_ms": None,
        "hooked_end_to_end_ms": None,
        "explained_ms": None,
        "unexplained_ms": None,
        "reason": timing.reason or None,
        "intensity_unit": "op/B (2 operations per MAC)",
        "at_least": count.at_least,
        "device": count.device,
        "method_note": _NOTE,
    }
    if timing.plain:
        whole = statistics.median(timing.plain)
        explained = sum(row["time_ms"] for row in rows if row["time_ms"] is not None)
        low, high = median_interval(timing.plain)
        info.update(
            end_to_end_ms=whole,
            end_to_end_low_ms=low,
            end_to_end_high_ms=high,
            explained_ms=explained,
            hooked_end_to_end_ms=statistics.median(timing.hooked),
            unexplained_ms=whole - explained,
        )
    return info
