"""The checks of the battery. Each takes a `Trial` and raises CheckFailed unless its first line holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bench.canonical import BASELINE_METHOD
from bench.config.signatures import signature, split_path
from bench.errors import UsageError
from bench.labels import labels_of
from bench.meters.dtypes import TORCH
from bench.testing.other_process import run_elsewhere
from bench.testing.subject import entry_of
from bench.testing.trial import Trial, count, largest_difference, on_meta, run, state, step_readings, trial_of
from bench.worker import subject as worker

#: Relative difference that another order of additions makes in single precision.
ROUNDING = 1e-4


class CheckFailed(AssertionError):
    """A subject does not hold what it claims; the message says what was found."""


def builds(trial: Trial) -> None:
    """Raise CheckFailed unless it is built, in evaluation mode, labels its row, and gives tensors without NaN."""
    training = [name for name, part in trial.built.module.named_modules() if part.training]
    if training:
        raise CheckFailed(
            f"it is in training mode: {training[0] or 'the module itself'}; end with `return model.eval()`"
        )
    try:
        labels_of(trial.built.module)
    except UsageError as error:
        raise CheckFailed(
            f"its row cannot be labelled: {error}; an attribute of that name is read as the label"
        ) from error
    if not trial.answer:
        raise CheckFailed("a run gives no tensor")
    _finite(trial.answer, "its answer")


def seeded(trial: Trial) -> None:
    """Raise CheckFailed unless two builds from one seed have the same weights and give the same, bit for bit."""
    weights, (others, _) = state(trial.built.module), trial.again.weights
    if list(weights) != list(others):
        raise CheckFailed("two builds from one seed have different parameters")
    for name, value in weights.items():
        if not torch.equal(value, others[name]):
            raise CheckFailed(
                f"two builds from one seed differ in {name}: draw from torch's own generator, or seed yours"
            )
    apart = largest_difference(trial.answer, trial.again.answers[0])
    if apart:
        raise CheckFailed(f"two builds from one seed answer differently, by {apart:.3g}")


def steady(trial: Trial) -> None:
    """Raise CheckFailed unless a second run gives the same and leaves inputs and weights as they were."""
    apart = largest_difference(*trial.again.answers)
    if apart:
        raise CheckFailed(f"a second run on the same inputs answers differently, by {apart:.3g}")
    if any(not torch.equal(a, b) for a, b in zip(*trial.again.inputs, strict=True)):
        raise CheckFailed("a run changes its own inputs")
    before, after = trial.again.weights
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    if changed:
        raise CheckFailed(f"a run changes its own weights or buffers: {changed[0]}")


def identity(trial: Trial) -> None:
    """Raise CheckFailed unless the identity setting reproduces the plain network."""
    subject = trial.subject
    plain, reduced = trial.build(method=BASELINE_METHOD), trial.build(method=subject.identity)
    apart = largest_difference(run(plain), run(reduced))
    if apart > subject.identity_tolerance:
        raise CheckFailed(
            f"{subject.identity} differs from the plain network by {apart:.3g}, more than the stated "
            f"{subject.identity_tolerance:g}"
        )


def meta_counts(trial: Trial) -> None:
    """Raise CheckFailed unless what is counted without storage is what is counted for real."""
    real, meta = trial.macs, count(on_meta(trial))
    for name in ("macs", "method_macs"):  # vector operations depend on how a device's kernels are cut
        if getattr(real, name) != getattr(meta, name):
            raise CheckFailed(f"{name} on the meta device {getattr(meta, name)}, for real {getattr(real, name)}")


def closed_form(trial: Trial) -> None:
    """Raise CheckFailed unless the executed MACs of one sample are those of the closed form."""
    assert trial.subject.closed_form is not None
    expected = worker.find(trial.subject.closed_form)(*trial.settings)
    found = trial.macs.macs / trial.built.case.batch
    if trial.macs.at_least:
        raise CheckFailed(f"the count is only a lower bound: {trial.macs.uncounted}")
    if found != expected:
        raise CheckFailed(f"executed {found:g} MACs a sample, the closed form says {expected:g}")


def step_form(trial: Trial) -> None:
    """Raise CheckFailed unless a training step's backward and what is saved for it are those of the closed form."""
    subject = replace(trial.subject, workload="training_step")
    assert subject.step_form is not None
    built = trial_of(subject).build()
    expected = worker.find(subject.step_form)(*trial.settings, built.case.batch)
    found = step_readings(built)
    for name, value in expected.items():
        if name not in found:
            raise CheckFailed(f"the closed form gives {name}, and a step has {', '.join(sorted(found))}")
        if found[name] != value:
            raise CheckFailed(f"a step has {name} {found[name]}, the closed form says {value}")


def state_loads(trial: Trial) -> None:
    """Raise CheckFailed unless its state, loaded into a build from another seed, gives the same answer."""
    other = trial.build(seed=1)
    try:
        other.module.load_state_dict(state(trial.built.module))
    except RuntimeError as error:
        raise CheckFailed(f"its state does not load back: {error}") from error
    case = replace(other.case, seed=trial.built.case.seed)  # so that a workload draws the same prompt for both
    moved = replace(other, case=case, args=trial.built.args, kwargs=trial.built.kwargs)
    apart = largest_difference(trial.answer, run(moved))
    if apart:
        raise CheckFailed(
            f"with its state loaded back it answers differently, by {apart:.3g}: not all of it is in the state"
        )


def keeps_global_state(trial: Trial) -> None:
    """Raise CheckFailed if building or running it changes what others in the process run under; put back either way."""
    try:
        trial.again  # noqa: B018 - building and running it is what is looked at
    finally:
        if trial.changes:  # also where it failed, most likely for that
            raise CheckFailed(f"it changes {', '.join(trial.changes)}: others in the process run under that as well")


def hands_over(trial: Trial) -> None:
    """Raise CheckFailed unless another process that gets it by cloudpickle gives the same answer."""
    module, _ = split_path(trial.subject.recipe().model_path)
    apart = largest_difference(trial.answer, run_elsewhere(trial.built, module))
    if apart > _scale(trial.answer) * ROUNDING:
        raise CheckFailed(f"in another process it answers differently, by {apart:.3g}")


def every_dtype(trial: Trial) -> None:
    """Raise CheckFailed unless it runs in every dtype that it claims, and answers in it."""
    for name in trial.subject.dtypes:
        if name == "tf32" and trial.subject.device == "cpu":
            raise CheckFailed("it claims tf32, which only a GPU computes in")
        try:
            answer = trial.answer if name == trial.built.case.dtype else run(trial.build(dtype=name))
        except (RuntimeError, NotImplementedError) as error:
            raise CheckFailed(f"it claims {name} and does not run in it: {error}") from error
        _finite(answer, f"its answer in {name}")
        wrong = {str(t.dtype) for t in answer if t.is_floating_point()} - {str(TORCH[name])}
        if wrong:
            raise CheckFailed(f"built in {name} it answers in {', '.join(sorted(wrong))}")


def batches(trial: Trial) -> None:
    """Raise CheckFailed unless a batch of two gives what two batches of one give."""
    both = trial.built if trial.built.case.batch == 2 else trial.build(batch=2)
    together, one = trial.answer if both is trial.built else run(both), trial.build(batch=1)
    apart = []
    for place in range(2):
        _begin_at(one.module, both.module, place)
        worker.seed_everything(one.case.seed)  # so that one that draws as it runs begins anew
        apart.append(run(replace(one, args=tuple(_row(value, place) for value in both.args))))
    joined = [torch.cat(pair) for pair in zip(*apart, strict=True)]
    difference = largest_difference(together, joined)
    if difference > _scale(together) * ROUNDING:
        raise CheckFailed(f"a sample's answer depends on its neighbour in the batch, by {difference:.3g}")


def _begin_at(one: Any, both: Any, place: int) -> None:
    """A sampler's single image is to begin where image `place` of the batch of two does; so is a stream's clip."""
    if hasattr(both, "example_noise"):
        one.example_noise = lambda batch, seed: both.example_noise(2, seed)[place : place + 1]
    if hasattr(both, "example_cond"):
        rows = tree_map(lambda value: _row(value, place), both.example_cond(2))
        one.example_cond = lambda batch: rows
    if hasattr(both, "example_clip"):
        one.example_clip = lambda batch, length: both.example_clip(2, length)[place : place + 1]


def understood(trial: Trial) -> None:
    """Raise CheckFailed if the planner does not understand a setting's annotation, so that any value passes."""
    model, _, method, _ = trial.subject.entries()
    for kind, entry in (("model", model), ("method", method)):
        if entry is None:
            continue
        unchecked = signature(entry.path).unchecked
        if unchecked:
            raise CheckFailed(
                f'{kind} "{entry.name}": the annotation of {", ".join(unchecked)} is missing or not of the vocabulary '
                "of bench.config.settings, so that a wrong value is found only while measuring"
            )


def refusals(trial: Trial) -> None:
    """Raise CheckFailed unless each setting that it should refuse is refused, by the planner or when it is built."""
    for spec in trial.subject.refuses:
        try:
            is_method = spec.partition("(")[0].strip() == trial.subject.method.partition("(")[0].strip()
            entry, settings = entry_of(spec, is_method=is_method)
            if is_method:
                trial.build(method=spec)
            else:
                worker.find(entry.path)(**{**entry.settings, **settings})
        except (UsageError, ValueError):
            continue
        raise CheckFailed(f"{spec} is not refused")


def _finite(answer: list[Tensor], what: str) -> None:
    """Raise CheckFailed if there is a NaN; -inf is a masked logit."""
    for tensor in answer:
        if tensor.is_floating_point() and tensor.isnan().any():
            raise CheckFailed(f"{what} holds NaN")


def _scale(answer: list[Tensor]) -> float:
    """Size of the numbers of an answer, at least 1."""
    finite = [t[t.isfinite()].abs().max().item() for t in answer if t.is_floating_point() and t.isfinite().any()]
    return max([1.0, *finite])


def _row(value: object, place: int) -> object:
    """One sample of a batched input."""
    return value[place : place + 1] if isinstance(value, Tensor) and value.dim() else value
