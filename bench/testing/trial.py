"""A subject being tested: what has been built of it is shared between its checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bench.testing.subject import Subject
from bench.worker import global_state
from bench.worker import subject as worker
from bench.worker.parts import as_forward, as_step, parts_of, running


@dataclass(frozen=True)
class Again:
    """A second build from the same seed: its weights and inputs before and after two runs, and what the runs gave."""

    weights: tuple[dict[str, Tensor], dict[str, Tensor]]
    inputs: tuple[list[Tensor], list[Tensor]]
    answers: tuple[list[Tensor], list[Tensor]]


class Trial:
    """Builds of one subject; what several checks look at is built and run once."""

    def __init__(self, subject: Subject):
        self.subject = subject
        #: What building and running it changed for others in the process; told by `again`, also where that failed.
        self.changes: list[str] = []

    def build(self, **changes: Any) -> worker.Subject:
        """A fresh build at the tiny setting; `changes` as for `Subject.recipe`."""
        return worker.build(self.subject.recipe(**changes))

    @cached_property
    def built(self) -> worker.Subject:
        """The build that checks share; to be run, not changed."""
        return self.build()

    @cached_property
    def answer(self) -> list[Tensor]:
        """What the shared build gives."""
        return run(self.built)

    @cached_property
    def again(self) -> Again:
        """A second build, run twice."""
        worker.set_precision(self.subject.recipe().case)  # ours, and no change that the subject makes
        known = global_state.read()
        try:
            fresh = self.build()
            weights, inputs, answer = state(fresh.module), tensors_of(fresh), run(fresh)
        finally:
            self.changes = global_state.put_back(known)
        second = run(fresh)
        return Again((weights, state(fresh.module)), (inputs, tensors_of(fresh)), (answer, second))

    @cached_property
    def macs(self) -> Any:
        """The count of one run of the shared build, by the operator trace."""
        return count(self.built)

    @cached_property
    def settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Every setting that the model and the method are called with, including axes of the shape that it takes."""
        recipe = self.subject.recipe()
        model, _, _, _ = self.subject.entries()
        shape = {
            name: value for name, value in recipe.case.full_shape.items() if model.accepts(name) and value is not None
        }
        return {**recipe.model_settings, **shape}, dict(recipe.method_settings)


@lru_cache(maxsize=4)
def trial_of(subject: Subject) -> Trial:
    """The trial that all checks of a subject share; only of the last few, for their networks are held in memory."""
    return Trial(subject)


def run(built: worker.Subject) -> list[Tensor]:
    """The tensors that one whole run gives, copied."""
    with running(built.case.workload):
        answer = as_step(parts_of(built)[0])()
    return [leaf.detach().clone() for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]


def count(built: worker.Subject) -> Any:
    """MACs of one whole run (`bench.meters.macs.MacsCount`), without the second counter, which has its own tests."""
    from bench.meters import macs

    with running(built.case.workload), as_forward(built, parts_of(built)[0]) as (module, args, kwargs):
        return macs.count(module, args, kwargs, second_count=False, inspect_values=False)


def step_readings(built: worker.Subject) -> dict[str, float | None]:
    """What the workload itself counts of a training step, by the names of readings."""
    from bench.meters import macs
    from bench.workloads import training_step
    from bench.workloads.counting import counter

    shape, parts = built.case.full_shape, parts_of(built)
    with running(built.case.workload):
        saved = training_step.facts(built, shape, parts)
        counted = training_step.counts(built, shape, parts, counter(built.counted, macs.count))
    return {item.metric: item.value for item in [*saved.readings, *counted.readings]}


def on_meta(trial: Trial) -> worker.Subject:
    """The subject built without storage, with the real build's inputs likewise."""
    recipe = trial.subject.recipe()
    with torch.device("meta"):
        module, given = worker.build_model(recipe)
        if recipe.method_path is not None:
            module = worker.with_method(recipe, module, recipe.method_settings, given)
    module = module.eval()

    def moved(value: Any) -> Any:
        return value.to("meta") if isinstance(value, Tensor) else value

    args, kwargs = tree_map(moved, (trial.built.args, trial.built.kwargs))
    case = replace(trial.built.case, device="meta")  # a workload makes what it adds, such as ids, where the subject is
    return replace(trial.built, case=case, module=module.to("meta"), args=args, kwargs=kwargs)


def state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, copied."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def tensors_of(built: worker.Subject) -> list[Tensor]:
    """The inputs of a build, copied."""
    return [leaf.clone() for leaf in tree_leaves((built.args, built.kwargs)) if isinstance(leaf, Tensor)]


def largest_difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest absolute difference between two answers; infinite where numbers or shapes differ, or for NaN."""
    if len(one) != len(other) or any(a.shape != b.shape for a, b in zip(one, other, strict=True)):
        return float("inf")
    largest = 0.0
    for a, b in zip(one, other, strict=True):
        equal = a.double().eq(b.double()) if a.is_floating_point() else a.eq(b)  # equal infinities differ by nothing
        apart = (a.double() - b.double()).abs().masked_fill(equal, 0.0)
        largest = max(largest, float(apart.nan_to_num(nan=float("inf")).max()) if apart.numel() else 0.0)
    return largest
