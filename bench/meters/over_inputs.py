"""Cost that depends on the input: MACs and time of each input of a fixed sample, one by one, at batch 1.

A subject says `module.input_dependent = True`; its inputs are the task's, in the task's order, so that a method and its
baseline see the same ones. A subject whose products follow from the path that an input takes says
`module.costs_by_path = True` and leaves the paths of its last forward in `module.paths`: then a path is traced once, so
that the sample may hold many inputs.

Percentiles are order statistics of values that occurred: the smallest that at least that share of the inputs does not
exceed. A mean of times is a mean over inputs of each input's median; every input's values are in the record as a curve,
so that two cases can be paired input by input.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.meters import macs
from bench.reading import Curve, Reading, reading, unavailable
from bench.workloads.spread import COUNTED, counted_spread, how, summary

#: Inputs of the sample where the task has more; a module says another number with `module.sampled_inputs`.
SAMPLE = 64
#: Timed runs of each input; they go round the inputs, so that a disturbance does not fall on one.
REPEATS = 5
TIMED = ("input_ms", "input_p50_ms", "input_p90_ms", "input_p95_ms")


@dataclass(frozen=True)
class OverInputs:
    """Readings of the distributions and the curves that they are of."""

    readings: list[Reading]
    curves: list[Curve]


def measure(
    module: nn.Module,
    inputs: Sequence[tuple[Any, ...]],
    *,
    timed: Callable[..., Any] | None = None,
    synchronise: Callable[[], None] = lambda: None,
    repeats: int = REPEATS,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> OverInputs:
    """Distributions of MACs and of time over inputs of one sample each.

    Args:
        module: the eager network, which is counted.
        inputs: positional arguments per input, each with a batch of 1.
        timed: what is timed, where that is something else: the compiled or converted network.
        synchronise: waits until the device is done.
        repeats: timed runs of each input; one untimed round over all of them comes first, so that every path is warm.
        clock: nanoseconds.
    """
    counted = _counts(module, inputs)
    times = _times(timed or module, inputs, synchronise, repeats, clock)
    many = f"{len(inputs)} inputs"
    found = counted_spread(counted, f"over {many}")
    note = f"over {many}, the median of {repeats} runs of each, at batch 1 in one process"
    found += [
        reading(name, value, "measured", n=1, method_note=note, statistic=how(name))
        for name, value in zip(TIMED, summary(times), strict=True)
    ]
    at = list(range(len(inputs)))
    return OverInputs(
        found,
        [
            Curve("macs_mean", "input", at, counted, "counted", note="MACs of each input"),
            Curve("input_ms", "input", at, times, "measured", note=f"median of {repeats} runs of each input"),
        ],
    )


def _counts(module: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> list[float]:
    """MACs of each input."""
    if not getattr(module, "costs_by_path", False):
        return macs.count_over(module, inputs, batch=1).macs
    found, known = list[float](), dict[tuple[int, ...], float]()
    for args in inputs:
        with torch.no_grad():
            module(*args)
        path = tuple(module.paths.tolist())  # type: ignore[operator]
        if path not in known:
            known[path] = macs.count_over(module, [args], batch=1).macs[0]
        found.append(known[path])
    return found


def missing(reason: str) -> OverInputs:
    """Every metric of the distributions, unavailable."""
    return OverInputs([unavailable(name, reason) for name in (*COUNTED, *TIMED)], [])


def _times(
    run: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    synchronise: Callable[[], None],
    repeats: int,
    clock: Callable[[], int],
) -> list[float]:
    """Median milliseconds of each input."""
    for args in inputs:
        run(*args)
    synchronise()
    taken: list[list[float]] = [[] for _ in inputs]
    for _ in range(repeats):
        for place, args in enumerate(inputs):
            start = clock()
            run(*args)
            synchronise()
            taken[place].append((clock() - start) / 1e6)
    return [statistics.median(samples) for samples in taken]
