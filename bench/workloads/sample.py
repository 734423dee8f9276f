"""`sample`: a whole sampler, from noise to images, every step and guidance included.

The subject's module offers

- `plan(shape) -> list of steps`: `shape` the numbers of this workload; each step a dict with at least `name` or `index`
  and `evaluations`, which is how many evaluations of a network an image takes in it (a guidance pair is 2), or a list
  of them; `macs`, MACs per image of the step, if the plan tells them: the trace is then held against it; `params`,
  parameters of the networks that it runs, where steps run different ones. It is asked once, before the first run, and
  what it decides holds for all of them;
- `start(noise, cond) -> state`: everything before the first step (caches are reset here, text is encoded here);
- `step(i, state) -> state`: step i of the plan; it may change the state in place;
- `finish(state) -> images`: everything after the last (latents are decoded here);

and may offer

- `example_noise(batch, seed)`, else the first input of its forward; noise of an image should depend on the seed and the
  image's index alone, so that batches change nothing;
- `example_cond(batch)`, else its second input, else None;
- `cache_bytes(state) -> int`: what has to live from step to step besides the images in the making;
- `representative_step(plan) -> int`; else the middle one.

State is what `start` made. Noise and condition are copied outside the clock for every run.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

from bench.flags import flag
from bench.reading import Curve, Reading, reading, unavailable
from bench.workloads.deriving import Value, derived
from bench.workloads.workload import (
    BATCH,
    RESOLUTION,
    Built,
    Count,
    Facts,
    Part,
    Shape,
    ShapeAxis,
    Spans,
    Workload,
    ask,
    clock_of,
    on_meta,
    repeated,
    require,
)

WORKLOAD = Workload(
    "sample",
    unit="image",
    parts=("image", "step"),
    axes=(
        BATCH,
        RESOLUTION,
        ShapeAxis("steps", 20, unit="step", doc="steps of the sampler"),
        ShapeAxis("guidance", None, 0.0, 1000.0, doc="scale of guidance; null: the model's own, or none"),
    ),
    title="a whole sampler, from noise to images",
    calls=("step",),
)


class _Sampler:
    """A module, its plan, and the noise and condition that every run begins from."""

    def __init__(self, subject: Built, shape: Shape) -> None:
        require(subject.module, WORKLOAD.name, "start", "plan", "step", "finish")
        self.module = subject.module
        self.plan = list(subject.module.plan(dict(shape)))
        self._noise, self._cond = _beginnings(subject, shape["batch"])
        self._begun: Any = None
        self._before: Any = None
        self.state: Any = None

    def prepare(self) -> None:
        """Noise and condition of their own for the next run."""
        from bench.tensors import copy_of

        self._begun = copy_of((self._noise, self._cond), self.module)

    def start(self) -> Any:
        """The state before the first step."""
        return self.module.start(*self._begun)

    def steps(self, state: Any, stop: int | None = None) -> Any:
        """The state after the plan, or before step `stop` of it."""
        for index in range(len(self.plan) if stop is None else stop):
            state = self.module.step(index, state)
        return state

    def image(self) -> Any:
        """The images of one whole run."""
        return self.module.finish(self.steps(self.start()))

    def steps_alone(self) -> Any:
        """The steps of one run; what precedes them stays out of every trace, because it is counted apart."""
        from torch.utils._python_dispatch import _disable_current_modes

        with _disable_current_modes():
            state = self.state_before(0)
        return self.steps(state)

    def state_before(self, index: int) -> Any:
        """A state of its own before step `index`."""
        from bench.tensors import copy_of, ordinary_tensors

        if self._before is None or self._before[0] != index:
            self.prepare()
            with ordinary_tensors():
                self._before = (index, self.steps(self.start(), index))
        return copy_of(self._before[1], self.module)

    @property
    def representative(self) -> int:
        """The step that stands for the others: the module's choice, or the middle one."""
        own = ask(self.module, "representative_step", self.plan)
        return len(self.plan) // 2 if own is None else int(own)

    @property
    def begun(self) -> Any:
        """Noise and condition of the next run."""
        return self._begun


class _Walk:
    """A run taken step by step, each of which can be repeated from where it began."""

    def __init__(self, sampler: _Sampler) -> None:
        self._sampler = sampler
        self._before: Any = None
        self._state: Any = None
        self._after: Any = None

    def go_on(self) -> None:
        """What the last call gave is where the next begins."""
        self._before = self._after

    def prepare(self) -> None:
        """A state of its own for the next call."""
        from bench.tensors import copy_of

        self._state = copy_of(self._before, self._sampler.module)

    def start(self) -> None:
        """Everything before the first step."""
        self._after = self._sampler.start()

    def step(self, index: int) -> None:
        """One step of the plan."""
        self._after = self._sampler.module.step(index, self._state)

    def finish(self) -> Any:
        """Everything after the last step."""
        return self._sampler.module.finish(self._state)


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The whole sampler, and one representative step from the state before it.

    The counted form of the image is its steps alone: conditioner and decoder are counted apart (`counts`).
    """
    sampler, single = _Sampler(subject, shape), _Sampler(subject, shape)
    index, batch = single.representative, float(shape["batch"])

    def prepare() -> None:
        single.state = single.state_before(index)

    def reset() -> None:
        single.state = None

    return [
        Part(
            "image",
            sampler.image,
            units=batch,
            prepare=sampler.prepare,
            counted=sampler.steps_alone,
            held=lambda: sampler.begun,
        ),
        Part(
            "step",
            lambda: single.module.step(index, single.state),
            units=batch,
            prepare=prepare,
            reset=reset,
            held=lambda: single.state,
        ),
    ]


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """Steps and evaluations of the plan, what lives between steps, and the time of every step in a pass of its own."""
    from bench.tensors import ordinary_tensors

    sampler = _Sampler(subject, shape)
    with ordinary_tensors():
        cached, kept = _cached(sampler)
        readings, curves = [*_plan_readings(sampler.plan), cached], [*kept, *_active(sampler.plan)]
        if on_meta(_first_tensor(sampler)):
            return Facts(readings, curves, {"plan": sampler.plan})
        curves += [_step_times(sampler, subject)] if sampler.plan else []
    return Facts(readings, curves, {"plan": sampler.plan, "representative_step": sampler.representative})


def counts(subject: Built, shape: Shape, parts: list[Part], count: Count) -> Facts:
    """MACs per image of every step, and before and after the steps; a flag where the plan says otherwise."""
    sampler = _Sampler(subject, shape)
    batch = shape["batch"]
    walk = _Walk(sampler)
    before = count(Part("start", walk.start, prepare=sampler.prepare)).executed_macs / batch
    macs = []
    for index in range(len(sampler.plan)):
        walk.go_on()
        step = Part("step", partial(walk.step, index), prepare=walk.prepare)
        macs.append(count(step).executed_macs / batch)
    walk.go_on()
    after = count(Part("finish", walk.finish, prepare=walk.prepare)).executed_macs / batch
    readings = [
        reading("macs_conditioner", before, "counted", part="image", method_note="operator trace of start"),
        reading("macs_decoder", after, "counted", part="image", method_note="operator trace of finish"),
    ]
    curve = Curve(
        "macs", "step", list(range(len(macs))), macs, "counted", "step", "operator trace of each step, per image"
    )
    return Facts(readings, [curve], flags=_disagreements(sampler.plan, macs))


def derive(shape: Shape, value: Value) -> list[Reading]:
    """Time per image."""
    batch = shape["batch"]
    note = f"time of the sampler over {batch} images"
    return [derived("time_per_image_ms", "image", value("latency_ms", "image"), lambda ms: ms / batch, note)]


def _beginnings(subject: Built, batch: int) -> tuple[Any, Any]:
    """Noise and condition on the subject's device."""
    from bench.tensors import placed

    noise = ask(subject.module, "example_noise", batch, subject.seed)
    cond = ask(subject.module, "example_cond", batch)
    if noise is None and subject.args:
        noise = subject.args[0]
    if cond is None and len(subject.args) > 1:
        cond = subject.args[1]
    return tuple(placed((noise, cond), subject.device, subject.dtype))


def _evaluations(step: dict[str, Any]) -> int:
    found = step.get("evaluations", 1)
    return len(found) if isinstance(found, list | tuple) else int(found)


def _plan_readings(plan: list[dict[str, Any]]) -> list[Reading]:
    evaluations = sum(_evaluations(step) for step in plan)
    return [
        reading("sampler_steps", len(plan), "counted", method_note="steps of the plan", part="image"),
        reading("network_evaluations", evaluations, "counted", method_note="over the plan, per image", part="image"),
    ]


def _cached(sampler: _Sampler) -> tuple[Reading, list[Curve]]:
    """What lives between steps besides weights, noise, condition and images in the making: the most, and by step."""
    from bench.tensors import held_bytes, weights_of

    if not sampler.plan:
        return unavailable("cache_bytes", "the plan has no step", "image"), []
    sampler.prepare()
    state, kept, note = sampler.start(), list[float](), ""
    for index in range(len(sampler.plan)):
        state = sampler.module.step(index, state)
        own = ask(sampler.module, "cache_bytes", state)
        image = state.get("x") if isinstance(state, dict) else getattr(state, "x", None)
        held = held_bytes(state, without=[weights_of(sampler.module), sampler.begun, image])
        kept.append(float(held if own is None else int(own)))
        note = "the module's own account" if own is not None else _what_was_left_out(image)
    largest = f"largest between two steps; {note}"
    found = reading("cache_bytes", max(kept), "counted", method_note=largest, part="image")
    curve = Curve("cache_bytes", "step", list(range(len(kept))), kept, "counted", "step", note)
    return found, [curve] if max(kept) else []


def _active(plan: list[dict[str, Any]]) -> list[Curve]:
    """Parameters of the networks that each step runs, where the plan says it of all steps."""
    known = [step["params"] for step in plan if step.get("params") is not None]
    if not plan or len(known) < len(plan):
        return []
    note = "of the networks that the step runs, by the plan"
    return [Curve("params", "step", list(range(len(known))), known, "counted", "step", note)]


def _what_was_left_out(image: Any) -> str:
    if image is None:
        return "the state has no x, so that the images in the making are among it"
    return "storages of the state without its x"


def _first_tensor(sampler: _Sampler) -> Any:
    from bench.tensors import tensors_in, weights_of

    sampler.prepare()
    return next(iter([*tensors_in(sampler.begun), *weights_of(sampler.module)]), None)


def _step_times(sampler: _Sampler, subject: Built) -> Curve:
    clock = clock_of(subject)

    def one_pass() -> list[float]:
        spans = Spans(subject.synchronise, clock)
        sampler.prepare()
        state = sampler.start()
        for index in range(len(sampler.plan)):
            with spans.span("step"):
                state = sampler.module.step(index, state)
        return spans.read()["step"]

    passes = repeated(one_pass, clock)
    medians = [statistics.median(times) for times in zip(*passes, strict=True)]
    note = f"median of {len(passes)} runs in one process, each step synchronised: never to be added up to the whole"
    return Curve("latency_ms", "step", list(range(len(medians))), medians, "measured", "step", note)


def _disagreements(plan: list[dict[str, Any]], macs: list[float]) -> list[dict[str, str]]:
    """A flag where the trace of a step counts other MACs than its plan says."""
    wrong = [
        f"step {index}: {step['macs']:.6g} planned, {found:.6g} traced"
        for index, (step, found) in enumerate(zip(plan, macs, strict=True))
        if step.get("macs") is not None and abs(step["macs"] - found) > 0.5
    ]
    if not wrong:
        return []
    text = f"the plan and the trace count differently in {len(wrong)} steps: {'; '.join(wrong[:3])}"
    return [flag("plan_disagrees", "warn", text)]
