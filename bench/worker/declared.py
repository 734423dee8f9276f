"""What a subject declares beyond its outputs: labels, dense and nominal counts, a method's cost, inputs' spread."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from bench import workloads
from bench.labels import labels_of
from bench.meters import (
    dtypes,
    method_cost,
    nominal,
    over_inputs,
    scan_counts,
    stated,
    stated_work,
    three_counts,
)
from bench.meters.macs_count import MacsCount
from bench.meters.over_inputs import OverInputs
from bench.reading import Reading
from bench.worker.subject import Subject


def counts_of_part(count: MacsCount, subject: Subject, part: str) -> list[Reading]:
    """Dense, non-zero, nominal and scan counts of one part, where the subject declares what they need."""
    module, batch = subject.counted, subject.case.batch
    kernel = labels_of(module)["kernel"]
    return [
        *three_counts.readings(count, module, kernel, part, batch),
        *nominal.operations(count, module, part, batch),
        *scan_counts.readings(count, module, batch),
    ]


def of_subject(subject: Subject) -> list[Reading]:
    """What belongs to the subject as a whole and needs no run: nominal bits, and what `statements` gives."""
    return [*nominal.bits(subject.counted), *statements(subject)]


def statements(subject: Subject) -> list[Reading]:
    """What the subject states of itself: numbers, operations and their modelled energy, the cost of its method."""
    module = subject.counted
    return [*stated.readings(module), *stated_work.readings(module), *method_cost.readings(module)]


def over_its_inputs(subject: Subject) -> OverInputs | None:
    """The distributions over the task's inputs of a subject that says `input_dependent = True`; None for others."""
    if not getattr(subject.counted, "input_dependent", False):
        return None
    case = subject.case
    if case.workload != workloads.FORWARD:
        return over_inputs.missing(f"inputs one by one are those of a forward, not of the workload {case.workload}")
    if subject.weights["kind"] == "random":
        return over_inputs.missing("with random weights the path that an input takes says nothing of a trained network")
    inputs = list(islice(_one_by_one(subject), int(getattr(subject.counted, "sampled_inputs", over_inputs.SAMPLE))))
    if not inputs:
        return over_inputs.missing("the case has no task, so there is no sample of inputs")
    return over_inputs.measure(subject.counted, inputs, timed=subject.module, synchronise=subject.synchronise)


def _one_by_one(subject: Subject) -> Iterator[tuple[Any, ...]]:
    """The task's inputs in its order, one sample each, on the case's device and in its dtype."""
    if subject.task is None:
        return
    case = subject.case
    for batch in subject.task.batches(1):
        images = batch[0]
        if not isinstance(images, torch.Tensor):
            return
        moved = images.to(case.device)
        yield (moved.to(dtypes.TORCH[case.dtype]) if moved.is_floating_point() else moved,)
