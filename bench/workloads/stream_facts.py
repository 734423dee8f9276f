"""What is asked of a stream besides its speed: its delay, its state's traffic, and the offline network's answers.

Steps are compared with the offline output at the same step, streams of one batch with the same stream alone.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.flags import flag
from bench.reading import Curve, Reading, reading, unavailable
from bench.sample_sizes import samples_for_percentile, sure_percentile
from bench.workloads.steps import Stream
from bench.workloads.workload import Built, Spans, clock_of, repeated

#: Seconds after which no further pass is begun to have enough steps for a percentile.
TIMED_SECONDS = 10.0
#: Relative difference of a stream that is alone from the same one in a batch: kernels may sum in another order.
TOLERANCE, NARROW_TOLERANCE = 1e-3, 5e-2


def delay(stream: Stream, outputs: list[Any]) -> Reading:
    """Steps from the initial state to the first output, that one included."""
    told = getattr(stream.module, "first_output", None)
    if not outputs and told is not None:
        note = "from the initial state, that step included; the module's own account"
        return reading("delay_steps", int(told) + 1, "counted", part="step", method_note=note)
    first = next((index for index, output in enumerate(outputs) if output is not None), None)
    if first is None:
        return unavailable("delay_steps", f"no output in the first {len(outputs)} steps", "step")
    return reading(
        "delay_steps", first + 1, "counted", part="step", method_note="from the initial state, that step included"
    )


def agreement(stream: Stream, outputs: list[Any]) -> tuple[list[Reading], list[Curve]]:
    """The largest error over the steps that must agree, its kin, and the error of every step that can be compared.

    `offline_nrmse` is the root mean square of the differences over the range of the reference; `offline_agreement` the
    share of answers whose largest number is the same one. Both are over the same steps as the error.
    """
    given = [(index, output) for index, output in enumerate(outputs) if output is not None]
    if not given:
        return [unavailable("offline_error", f"no output in the first {len(outputs)} steps", "step")], []
    reference = _offline_outputs(stream, given[-1])
    pairs = list(zip(given[::-1], reference[::-1], strict=False))[::-1]
    scale = max(float(expected.abs().max()) for _, expected in pairs) or 1.0
    errors = [float((output - expected).abs().max()) / scale for (_, output), expected in pairs]
    places = [index for (index, _), _ in pairs]
    curve = Curve(
        "offline_error", "step", places, errors, "measured", "step", "against the offline output at the same step"
    )
    first = int(getattr(stream.module, "transient", 0))
    steady = [error for place, error in zip(places, errors, strict=True) if place >= first]
    if not steady:
        why = f"no output from step {first} on among the first {len(outputs)}"
        return [unavailable("offline_error", why, "step")], [curve]
    note = f"{len(steady)} outputs from step {first} on"
    over = f"{note}, over the largest absolute offline output"
    found = reading("offline_error", max(steady), "measured", part="step", method_note=over)
    return [found, *_kin([pair for pair in pairs if pair[0][0] >= first], note)], [curve]


def _kin(pairs: list[tuple[tuple[int, Any], Any]], note: str) -> list[Reading]:
    """The normalised mean error and the share of equal choices."""
    import torch

    said = torch.stack([output.double() for (_, output), _ in pairs])
    wanted = torch.stack([expected.double() for _, expected in pairs])
    told: dict[str, Any] = {"part": "step", "method_note": note}
    spread = float(wanted.max() - wanted.min())
    found = list[Reading]()
    if spread:
        rms = float((said - wanted).square().mean().sqrt())
        found.append(reading("offline_nrmse", rms / spread, "measured", **told))
    if said.dim() > 2 and said.shape[-1] > 1:
        same = 100.0 * float((said.argmax(-1) == wanted.argmax(-1)).double().mean())
        found.append(reading("offline_agreement", same, "measured", **told))
    return found


def _offline_outputs(stream: Stream, last: tuple[int, Any]) -> list[Any]:
    """Offline outputs, in order, of the clip up to the step of the last output."""
    index, output = last
    module = stream.module
    found = getattr(module, "reference", module.offline)(stream.clip(index + 1))
    if isinstance(found, list | tuple):
        return list(found)
    if found.dim() == output.dim():
        return [found]
    return list(found.unbind(int(getattr(module, "output_dim", 1))))


def traffic(stream: Stream, state: Any) -> Reading:
    """Bytes of the state that a step reads and writes, mean over one period in steady state."""
    from bench.tensors import copy_of
    from bench.workloads import state_traffic

    current, read, written = copy_of(state, stream.module), 0, 0
    for index in range(stream.warm, stream.warm + stream.period):
        after: list[Any] = []

        def step(held: Any, index: int = index, after: list[Any] = after) -> Any:
            after.append(stream.module.step(stream.inputs[index], held)[1])
            return after[0]

        found = state_traffic.of_step(step, current)
        current, read, written = after[0], read + found.read, written + found.written
    each = (read / stream.period, written / stream.period)
    note = f"{each[0]:.6g} read and {each[1]:.6g} written by operators, mean of {stream.period} steps"
    return reading("state_traffic_bytes", (read + written) / stream.period, "counted", part="step", method_note=note)


def first_output(stream: Stream, outputs: list[Any], subject: Built) -> Reading:
    """Milliseconds of all steps from the initial state to the first output."""
    steps = next((index + 1 for index, output in enumerate(outputs) if output is not None), None)
    if steps is None:
        return unavailable("first_output_ms", f"no output in the first {len(outputs)} steps", "step")
    clock = clock_of(subject)

    def one_pass() -> float:
        state = stream.module.init(stream.batch)
        subject.synchronise()
        start = clock()
        stream.steps(state, 0, steps)
        subject.synchronise()
        return (clock() - start) / 1e6

    passes = repeated(one_pass, clock)
    note = f"{steps} steps from the initial state, median of {len(passes)} passes in one process"
    return reading("first_output_ms", statistics.median(passes), "measured", part="step", n=1, method_note=note)


def timed_steps(stream: Stream, state: Any, subject: Built) -> tuple[list[Reading], Curve]:
    """The time that 99 of 100 steps keep within, the rate that follows, and the times over one period."""
    times = times_of_steps(stream, state, subject, TIMED_SECONDS)
    every = [time for one_pass in times for time in one_pass]
    note = f"{len(every)} steps of {len(times)} passes over a clip in one process, each synchronised"
    middle = reading("step_p50_ms", statistics.median(every), "measured", part="step", n=1, method_note=note)
    value, why = sure_percentile(every, 0.99)
    if value is None or value <= 0:
        readings = [unavailable(name, why or "steps took no time", "step") for name in ("step_p99_ms", "rate_max")]
    else:
        told: dict[str, Any] = {"part": "step", "n": 1, "method_note": note}
        readings = [
            reading("step_p99_ms", value, "measured", **told),
            reading("rate_max", 1e3 / value, "measured", **told),
            reading("step_max_ms", max(every), "measured", **told),
        ]
    tenth, _ = sure_percentile(every, 0.9)
    if tenth is not None:
        readings.append(reading("step_p90_ms", tenth, "measured", part="step", n=1, method_note=note))
    readings += [middle, *_missed(stream, every, note)]
    places = range(stream.period)
    medians = [
        statistics.median(time for one_pass in times for time in one_pass[place :: stream.period]) for place in places
    ]
    return readings, Curve(
        "latency_ms", "step", list(places), medians, "measured", "step", f"medians by place in the period, {note}"
    )


def _missed(stream: Stream, every: list[float], note: str) -> list[Reading]:
    """How many steps are late, and how late answers are, where the module says how fast inputs come."""
    rate = getattr(stream.module, "rate_hz", None)
    if not rate:
        return []
    late = 100.0 * sum(time > 1e3 / rate for time in every) / len(every)
    note = f"at {rate:g} steps/s, {note}"
    found = [reading("miss_share", late, "measured", part="step", n=1, method_note=note)]
    waits = getattr(stream.module, "dependency_delay", None)
    if waits is not None:
        whole = 1e3 * float(waits) / rate + statistics.median(every)
        told = f"{float(waits):g} steps of waiting and the median of a step, {note}"
        found.append(reading("answer_delay_ms", whole, "measured", part="step", n=1, method_note=told))
    return found


def times_of_steps(stream: Stream, state: Any, subject: Built, seconds: float) -> list[list[float]]:
    """Milliseconds of single steps in steady state, pass by pass over the clip, as many as a 99th percentile needs.

    No pass is begun after so many seconds, beyond the second.
    """
    from bench.tensors import copy_of

    clock = clock_of(subject)
    began, passes = clock(), list[list[float]]()
    wanted = samples_for_percentile(0.99)
    while len(passes) < 2 or (sum(map(len, passes[1:])) < wanted and (clock() - began) / 1e9 < seconds):
        spans = Spans(subject.synchronise, clock)
        current = copy_of(state, stream.module)
        for index in range(stream.warm, stream.length):
            with spans.span("step"):
                _, current = stream.module.step(stream.inputs[index], current)
        passes.append(spans.read()["step"])
    return passes[1:]


def independence(stream: Stream, outputs: list[Any], subject: Built) -> list[dict[str, str]]:
    """A flag where the first stream of a batch answers otherwise when it is alone."""
    first = next(((index, output) for index, output in enumerate(outputs) if output is not None), None)
    if stream.batch == 1 or first is None or stream.along_time == 0 or len(first[1]) != stream.batch:
        return []
    index, beside = first
    try:
        state = stream.module.init(1)
        for each in stream.inputs[: index + 1]:
            alone, state = stream.module.step(each[:1].clone(), state)
        error = float((alone - beside[:1]).abs().max()) / (float(beside[:1].abs().max()) or 1.0)
    except Exception as failure:  # what the batch gives stands
        text = f"one stream alone could not be run ({type(failure).__name__}: {failure})"[:300]
        return [flag("streams_not_checked", "info", text)]
    narrow = subject.dtype is not None and subject.dtype.itemsize < 4
    if error <= (NARROW_TOLERANCE if narrow else TOLERANCE):
        return []
    text = (
        f"the first of {stream.batch} streams answers {error:.3g} (relative) otherwise when it is alone: they touch "
        "each other"
    )
    return [flag("streams_mixed", "invalid", text)]


def successive(stream: Stream) -> list[dict[str, str]]:
    """A flag where every input of the clip is the same."""
    first, *others = stream.inputs
    if any(not bool((each == first).all()) for each in others):
        return []
    text = "example_clip repeats one input: what depends on change is not what a real stream costs"
    return [flag("repeated_input", "warn", text)]
