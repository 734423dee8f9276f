"""`stream`: an online network, one time step after another, beside the offline network on a whole window.

The subject's module offers

- `init(batch) -> state`: the state before the first step, of `batch` independent streams;
- `step(x, state) -> (y or None, state)`: one time step; None while there is nothing to say; the state may change in
  place;
- `offline(clip) -> y`: the answer for every position that the whole clip can answer, stacked along `output_dim`, or one
  answer of the shape of a step's, which is then that of the last step;
- `period` (an int): steps from one output to the next in steady state;
- `example_clip(batch, length)`: a clip of `length` time steps, seeded, of real successive inputs;

and may offer

- `time_dim` (1): where time runs in a clip; a step gets the clip at one place of it, without that dimension;
- `hop` (1): samples of one step; with more, a step gets `hop` samples and keeps the dimension; a clip of `length` steps
  then has `length` x `hop` samples;
- `output_dim` (1): where time runs in offline outputs;
- `window`: steps of the clip that the offline network is run on where the shape names none, else 16;
- `transient` (0): the first step from which steps and offline must agree;
- `first_output`: the first step that answers; the warm-up then lasts until one period after it and the transient;
- `reference(clip)`: what the steps are compared with where that is not `offline`, which users run on a window: the
  network without temporal padding, every window by itself; a tensor along `output_dim`, or a list;
- `exact`: whether steps must agree with that reference (true), or come near it (false);
- `outputs_per_answer` (1): answers that one step gives at once, behind one another along `output_dim`;
- `fixed_window` (false): the offline network takes the last window of a longer clip, and no window but its own;
- `settled(batch)`: the state of a stream that has long been answering, its tensors not made yet and each layer about
  to answer; used in place of the warm-up where nothing has values;
- `cycle` (1): steps after which costs repeat, where they differ between the steps of more than one period;
- `dependency_delay`, `alignment_delay`: steps, in the mean, from an input to the first answer that depends on it; steps
  by which an answer lags what it describes; `rate_hz`: steps a second that the input comes at;
- `drift_steps` (0): steps after which rounding may have piled up in what it keeps; `time_repeats` (1): steps after
  which its own count of time comes round;
- `effective_macs(x, state)`: products of the next step by name (`dense`, `spatial`, `delta`), per stream, that
  hardware which skips zeros would make; neither argument is changed.

The last output of the steps answers the same as the last offline one, and so on backwards. State is what `init` made. A
timed run is whole periods on the next inputs of a clip; at its end the state of after the warm-up is put back, outside
the clock, and the clip starts over, so that every pass over it is the same.
"""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import Any

from bench.reading import Curve, Reading, reading, unavailable
from bench.workloads import stream_batches, stream_declared, stream_facts, stream_over_time
from bench.workloads.deriving import Value, combined, derived
from bench.workloads.steps import Stream
from bench.workloads.workload import (
    BATCH,
    RESOLUTION,
    Built,
    Count,
    Facts,
    Part,
    Shape,
    ShapeAxis,
    Workload,
    on_meta,
    require,
)

WORKLOAD = Workload(
    "stream",
    unit="step",
    parts=("step", "clip"),
    axes=(
        BATCH,
        RESOLUTION,
        ShapeAxis(
            "window", None, unit="step", doc="time steps of the clip of the offline network; null: the model's own"
        ),
        ShapeAxis("steps", None, unit="step", doc="time steps of one timed run, whole periods; null: one period"),
        ShapeAxis("streams", None, doc="largest batch of the search for streams_max; null: no search"),
    ),
    title="one period of an online network; the offline network on a whole window",
    calls=("step", "offline"),
)


class _Walk:
    """A stream in steady state taken step by step, each of which can be repeated from where it began."""

    def __init__(self, stream: Stream) -> None:
        from bench.tensors import ordinary_tensors

        self._stream = stream
        self._state: Any = None
        self._after: Any = None
        with ordinary_tensors():
            self._before = stream.warmed()[1]

    def go_on(self) -> None:
        """The state after the last step is where the next begins."""
        self._before = self._after

    def prepare(self) -> None:
        """A state of its own for the next step."""
        from bench.tensors import copy_of

        self._state = copy_of(self._before, self._stream.module)

    def step(self, index: int) -> Any:
        """One step of the clip."""
        output, self._after = self._stream.module.step(self._stream.inputs[index], self._state)
        return output


class _Run:
    """The next whole periods of a stream in steady state."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._steady: Any = None
        self._at = stream.length
        self._mode: bool | None = None
        self.state: Any = None

    def prepare(self) -> None:
        """The state of the steady stream: as the last run left it, or put back at the end of the clip."""
        import torch

        from bench.tensors import copy_of, ordinary_tensors

        stream = self._stream
        if self._steady is None:
            with ordinary_tensors():
                self._steady = stream.warmed()[1]
        ended = self._at + stream.per_run > stream.length
        # a state that was written in inference mode cannot be changed in place outside of it
        if ended or self._mode != torch.is_inference_mode_enabled():
            self._at = stream.warm
            self.state = copy_of(self._steady, stream.module)

    def held(self) -> Any:
        """The state and the inputs of the next run."""
        return self.state, self._stream.inputs[self._at : self._at + self._stream.per_run]

    def call(self) -> list[Any]:
        """The outputs of one run."""
        import torch

        self._mode = torch.is_inference_mode_enabled()
        outputs, self.state = self._stream.steps(self.state, self._at, self._stream.per_run)
        self._at += self._stream.per_run
        return outputs


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """Whole periods of steps in steady state, and the offline network on one window.

    Raises:
        UsageError: the module lacks a call, or the run is no whole number of periods.
    """
    require(subject.module, WORKLOAD.name, "init", "step", "offline", "example_clip")
    stream = Stream(subject, shape)
    run = _Run(stream)
    window = stream.clip(stream.window)
    batch = float(shape["batch"])
    return [
        Part("step", run.call, units=batch * stream.per_run, prepare=run.prepare, held=run.held, varies=True),
        Part("clip", lambda: stream.module.offline(window), units=batch, held=lambda: window),
    ]


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """State and its traffic, delay, agreement with the offline network step by step, and the times of single steps."""
    from bench.tensors import held_bytes, ordinary_tensors, weights_of

    stream = Stream(subject, shape)
    with ordinary_tensors():
        outputs, state = stream.warmed()
        state_bytes = held_bytes(state, without=weights_of(stream.module))
        readings = [
            reading("state_bytes", state_bytes, "counted", part="step", method_note=f"after {stream.warm} steps"),
            reading("period_steps", stream.period, "counted", part="step", method_note="the module's own account"),
            stream_facts.delay(stream, outputs),
            *stream_declared.delays(stream.module),
            stream_facts.traffic(stream, state),
        ]
        if on_meta(stream.inputs[0]):
            why = "meta tensors have no values and take no time"
            missing = ("offline_error", "first_output_ms", "step_p99_ms", "rate_max")
            return Facts([*readings, *(unavailable(name, why, "step") for name in missing)])
        compared = outputs
        if (
            getattr(stream.module, "exact", True) is False
        ):  # an error needs more steps than the sight that there is none
            compared = stream.steps(stream.module.init(stream.batch), 0, stream.length)[0]
        error, curves = stream_facts.agreement(stream, compared)
        flags = [*stream_facts.independence(stream, outputs, subject), *stream_facts.successive(stream)]
        flags += stream_declared.not_exact(stream, error, subject)
        effective, effective_curves = stream_declared.effective(stream, state)
        timed, curve = stream_facts.timed_steps(stream, state, subject)
        course, grown = stream_over_time.trend(stream, state, subject)
        flags += grown
        readings += [*error, *effective, *stream_declared.against_clip(stream, outputs)]
        readings += [stream_facts.first_output(stream, outputs, subject), *timed, *course]
        readings += [
            *stream_over_time.drift(stream, state, subject), *stream_batches.most_streams(subject, shape),
        ]  # fmt: skip
    return Facts(readings, [*curves, *effective_curves, curve], flags=flags)


def counts(subject: Built, shape: Shape, parts: list[Part], count: Count) -> Facts:
    """Products of every step of one period in steady state, per stream."""

    stream = Stream(subject, shape)
    walk = _Walk(stream)
    macs, executed = [], 0.0
    steps = max(stream.period, stream.cycle)
    for index in range(stream.warm, stream.warm + steps):
        found = count(Part("step", partial(walk.step, index), prepare=walk.prepare))
        macs.append(found.macs / stream.batch)
        executed += found.executed_macs / stream.batch / steps
        walk.go_on()
    note = f"mean of {steps} steps; least {min(macs):.6g}, most {max(macs):.6g}"
    note += f"; {executed:.6g} are executed" if executed > statistics.fmean(macs) else ""
    mean = reading("macs_per_step", statistics.fmean(macs), "counted", part="step", method_note=note)
    curve = Curve(
        "macs", "step", list(range(len(macs))), macs, "counted", "step", "one period in steady state, per stream"
    )
    answers = steps / stream.period * stream.answers
    each = reading("macs_per_output", sum(macs) / answers, "counted", part="step", method_note=f"{answers:g} answers")
    whole = count(parts[1]).macs / stream.batch
    told: dict[str, Any] = {"part": "step", "method_note": "MACs of the clip over those of the step part"}
    ratios = [
        reading("clip_mac_ratio", whole / each.value, "counted", **told) if each.value else None,
        reading("break_even_hop_macs", whole / mean.value, "counted", **told) if mean.value else None,
    ]
    return Facts([mean, each, *(ratio for ratio in ratios if ratio is not None)], [curve])


def derive(shape: Shape, value: Value) -> list[Reading]:
    """Time per step and per output, and what the clip costs beside them."""
    period, answered = value("period_steps", "step"), value("outputs_per_answer", "step")
    every = 1 if period is None or period.value is None else int(period.value)
    many = 1 if answered is None or answered.value is None else int(answered.value)
    steps = int(shape["steps"] or every)
    run, clip = value("latency_ms", "step"), value("latency_ms", "clip")
    note = f"{steps} steps of a run, {'an output' if many == 1 else f'{many} outputs'} every {every}"
    per_output = derived("time_per_output_ms", "step", run, lambda ms: ms * every / steps / many, note)
    per_step = derived("time_per_step_ms", "step", run, lambda ms: ms / steps, note)
    faster = _ratio("clip_speedup", clip, per_output)
    realised = _realised(faster, value("clip_mac_ratio", "step"))
    return [per_step, per_output, faster, _ratio("break_even_hop", clip, per_step), realised]


def _realised(faster: Reading, fewer: Reading | None) -> Reading:
    """Log of the factor in time over log of that in products: how much of the promise is kept; 1 is all of it."""
    if faster.value is None or fewer is None or fewer.value is None:
        return unavailable("clip_realised_share", "the clip or the steps have no time or no products", "step")
    if fewer.value <= 1:
        return unavailable("clip_realised_share", "the stream saves no products", "step")
    share = math.log(faster.value) / math.log(fewer.value)
    note = "log of the speed-up over log of the ratio of products, both against the clip"
    return reading("clip_realised_share", share, faster.provenance, part="step", n=faster.n, method_note=note)


def _ratio(metric: str, above: Reading | None, below: Reading) -> Reading:
    """A time over a time; without an interval, because the two are paired only where they are timed together."""
    if above is None or above.value is None or not below.value:
        return unavailable(metric, "the clip or the steps have no time", "step")
    return combined(metric, "step", [(_plain(above), 1.0 / below.value)], "time of the clip over that of the step part")


def _plain(found: Reading) -> Reading:
    return reading(found.metric, float(found.value or 0.0), found.provenance, part=found.part, n=found.n)
