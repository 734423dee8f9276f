"""What a stream says of itself: its delays, whether it is exact, which products zeros would save."""

from __future__ import annotations

import statistics
from typing import Any

from bench.flags import flag
from bench.reading import Curve, Reading, reading, unavailable
from bench.workloads.steps import Stream

#: Largest difference of a stream that is exact, over the largest absolute reference; in dtypes of two bytes the second.
EXACT, EXACT_NARROW = 1e-4, 5e-2
#: Names of `effective_macs` and the metrics that they are.
EFFECTIVE = {
    "dense": "macs_dense_per_step",
    "spatial": "macs_spatial_per_step",
    "delta": "macs_delta_per_step",
}


def delays(module: Any) -> list[Reading]:
    """What the module declares of its delays and of how many answers a step gives."""
    names = {
        "dependency_delay": "dependency_delay_steps",
        "alignment_delay": "alignment_delay_steps",
        "outputs_per_answer": "outputs_per_answer",
    }
    told = {metric: getattr(module, name, None) for name, metric in names.items()}
    note = "the module's own account"
    return [
        reading(metric, float(value), "counted", part="step", method_note=note)
        for metric, value in told.items()
        if value is not None
    ]


def not_exact(stream: Stream, found: list[Reading], subject: Any) -> list[dict[str, str]]:
    """A flag where a stream that says it is exact differs from its reference by more than rounding."""
    error = next((each for each in found if each.metric == "offline_error"), None)
    if not getattr(stream.module, "exact", False) or error is None or error.value is None:
        return []
    narrow = subject.dtype is not None and subject.dtype.itemsize < 4
    if error.value <= (EXACT_NARROW if narrow else EXACT):
        return []
    text = (
        f"it says that it is exact and differs from its reference by {error.value:.3g} (relative) after the transient"
    )
    return [flag("stream_not_exact", "invalid", text)]


def against_clip(stream: Stream, outputs: list[Any]) -> list[Reading]:
    """How far the last answer is from the clip network on the last window, where the reference is another one."""
    module = stream.module
    last = next(((index, output) for index, output in reversed(list(enumerate(outputs))) if output is not None), None)
    if getattr(module, "reference", None) is None or last is None:
        return []
    index, output = last
    if index + 1 < stream.window:
        return [unavailable("clip_error", "the stream answers before a window is full", "step")]
    expected = module.offline(stream.window_at(index + 1))
    newest = output if output.dim() == expected.dim() else output.select(int(getattr(module, "output_dim", 1)), -1)
    error = float((newest - expected).abs().max()) / (float(expected.abs().max()) or 1.0)
    return [reading("clip_error", error, "measured", part="step", method_note=f"the answer of step {index}")]


def effective(stream: Stream, state: Any) -> tuple[list[Reading], list[Curve]]:
    """Products that hardware which skips zeros would make, over the steps of the clip in steady state."""
    from bench.tensors import copy_of

    ask = getattr(stream.module, "effective_macs", None)
    if ask is None:
        return [], []
    current, rows = copy_of(state, stream.module), list[dict[str, float]]()
    for index in range(stream.warm, stream.length):
        rows.append(ask(stream.inputs[index], current))
        _, current = stream.module.step(stream.inputs[index], current)
    readings, curves, at = list[Reading](), list[Curve](), list(range(len(rows)))
    for name, metric in EFFECTIVE.items():
        if name not in rows[0]:
            continue
        values = [row[name] for row in rows]
        ends = f"least {min(values):.6g}, median {statistics.median(values):.6g}, most {max(values):.6g}"
        note = f"mean of {len(values)} steps; {ends}"
        readings.append(reading(metric, statistics.fmean(values), "modelled", part="step", method_note=note))
        curves.append(Curve(metric, "step", at, values, "modelled", "step", "per stream, of successive inputs"))
    return readings, curves
