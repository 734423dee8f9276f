"""The parts of a built subject's workload, as the meters and the clock take them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any

import torch

from bench import workloads
from bench.errors import UsageError
from bench.worker.subject import Subject
from bench.workloads.workload import Part

#: Runs from which the share of preparation is told, after one that is not kept.
SHARE_RUNS = 5


def parts_of(subject: Subject) -> list[Part]:
    """What the case's workload makes of the subject: the whole first.

    Raises:
        UsageError: the subject does not offer what the workload needs, or the workload's parts are not those it
            declares.
    """
    case = subject.case
    module = workloads.module_of(case.workload)
    parts: list[Part] = list(module.make_parts(subject, case.full_shape))
    known, made = module.WORKLOAD.parts, [part.name for part in parts]
    # a pipeline's stages are the subject's own: then the workload declares the whole alone
    if not made or made[0] != known[0] or len(set(made)) < len(made):
        raise UsageError(f"workload {case.workload} made the parts {made}; the first has to be {known[0]}, each once")
    return parts


def as_step(part: Part) -> Callable[[], Any]:
    """One run as a call without arguments; the bare call where nothing is prepared or put back."""
    if part.prepare is None and part.reset is None:
        return part.call
    return part.run


def prepared_share(part: Part, synchronise: Callable[[], None], clock: Callable[[], int] = perf_counter_ns) -> float:
    """Share of the time of prepared runs, 0 to 1, that is not the run's own: what is made before and put back after it.

    What cannot stop its meter between two runs (a counter of joules) measures both.
    """
    if part.prepare is None and part.reset is None:
        return 0.0
    whole, own = 0, 0
    for turn in range(SHARE_RUNS + 1):
        begin = clock()
        if part.prepare is not None:
            part.prepare()
        synchronise()
        start = clock()
        part.call()
        synchronise()
        end = clock()
        if part.reset is not None:
            part.reset()
        synchronise()
        if turn:  # the first makes what later ones find
            whole, own = whole + clock() - begin, own + end - start
    return 1.0 - own / whole if whole else 0.0


@contextmanager
def as_forward(
    subject: Subject, part: Part, *, counted: bool = True
) -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """The part as meters of one forward take it: a module and its inputs, of the eager graph.

    A plain forward is the subject itself; any other part is a module that makes one run of it, with the subject's
    modules under their own names, prepared before and put back after; with `counted` it runs what is counted of the
    part.
    """
    if subject.case.workload == workloads.FORWARD:
        yield subject.counted, subject.args, subject.kwargs
        return
    from bench.workloads.counting import part_call

    with part_call(subject.counted, part, counted=counted) as call:
        yield call, call.inputs(), {}


@contextmanager
def running(workload: str) -> Iterator[None]:
    """The mode of torch that runs of a workload are made in: with gradients where it trains, else inference mode."""
    grad = workloads.find(workload).grad
    mode: contextlib.AbstractContextManager[Any] = torch.enable_grad() if grad else torch.inference_mode()
    with mode:
        yield


@contextmanager
def counting(workload: str) -> Iterator[None]:
    """The mode that runs are counted in: as they run where they need gradients, else without any."""
    with running(workload) if workloads.find(workload).grad else torch.no_grad():
        yield
