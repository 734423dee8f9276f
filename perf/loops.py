"""Timing loops as other tools run them by their published defaults, each in fresh processes, to stand beside ours.

- timm, `benchmark.py`: 10 warm-up iterations, 40 timed one by one, the mean; a process per network, as its bulk runner
  starts them.
- torch.utils.benchmark: `Timer.blocked_autorange()` with its defaults, the median of the blocks; all networks one after
  another in one process, as its tutorial does.
- optimum-benchmark, inference scenario: 10 warm-up iterations, then at least 10 iterations and 10 seconds, the mean;
  a process per network.

None of them publishes an interval. What stands in for it here is what a reader of their samples would compute over the
iterations: Student's t for a mean, order statistics for a median, Welch's interval for a comparison, all at 95 %.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from scipy import stats
from torch.utils.benchmark import Timer

from perf import known

Step = Callable[[], Any]
#: Milliseconds per iteration, in the order taken.
Times = list[float]


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3


def timm(step: Step) -> Times:
    """Forty iterations after ten."""
    for _ in range(10):
        step()
    return [_timed(step) for _ in range(40)]


def torch_timer(step: Step) -> Times:
    """Blocks of iterations until there are 0.2 s of them."""
    measured = Timer("step()", globals={"step": step}, num_threads=1).blocked_autorange()
    return [seconds * 1e3 for seconds in measured.times]


def optimum(step: Step) -> Times:
    """Ten iterations and ten seconds, after ten."""
    for _ in range(10):
        step()
    times: Times = []
    while len(times) < 10 or sum(times) < 10_000:
        times.append(_timed(step))
    return times


def mean_interval(times: Sequence[float]) -> tuple[float, float]:
    """Student's t-interval of the mean."""
    low, high = stats.t.interval(0.95, len(times) - 1, statistics.fmean(times), stats.sem(times))
    return float(low), float(high)


def median_interval(times: Sequence[float]) -> tuple[float, float]:
    """The interval of the median by order statistics; infinite where there are too few blocks for one."""
    interval = stats.quantile_test(times, p=0.5).confidence_interval(0.95)
    low, high = float(interval.low), float(interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (0.0, math.inf)


@dataclass(frozen=True)
class Loop:
    """A tool's loop: how it samples, what it reports of the samples, and whether its networks share a process."""

    name: str
    sample: Callable[[Step], Times]
    value: Callable[[Sequence[float]], float]
    interval: Callable[[Sequence[float]], tuple[float, float]]
    one_process: bool


LOOPS = (
    Loop("timm benchmark.py", timm, statistics.fmean, mean_interval, one_process=False),
    Loop("torch.utils.benchmark", torch_timer, statistics.median, median_interval, one_process=True),
    Loop("optimum-benchmark", optimum, statistics.fmean, mean_interval, one_process=False),
)


@dataclass(frozen=True)
class Subject:
    """What a loop times: a builder of `perf.known` by name, with its settings."""

    builder: str
    settings: dict[str, float]


def _in_process(loop: str, subjects: Sequence[Subject], answer: Any) -> None:
    torch.set_num_threads(1)
    sample = next(item.sample for item in LOOPS if item.name == loop)
    found = []
    for subject in subjects:
        torch.manual_seed(0)
        module = getattr(known, subject.builder)(**subject.settings).eval()
        own = getattr(module, "example_inputs", None)
        (x,) = own(1) if own else (torch.randn(1, 3, 224, 224),)
        with torch.no_grad():
            found.append(sample(partial(module, x)))
    answer.send(found)


#: Processes are forked from one that has torch imported, as ours are: no tool is charged for its imports.
_FRESH = multiprocessing.get_context("forkserver")
_FRESH.set_forkserver_preload(["perf.loops"])


def run(loop: Loop, subjects: Sequence[Subject]) -> tuple[list[Times], float]:
    """Each subject's samples in milliseconds, and the seconds that all of it took, processes included."""
    start, found = time.perf_counter(), []
    parts = [list(subjects)] if loop.one_process else [[subject] for subject in subjects]
    for part in parts:
        receive, send = _FRESH.Pipe(duplex=False)
        process = _FRESH.Process(target=_in_process, args=(loop.name, part, send))
        process.start()
        send.close()
        found += receive.recv()
        process.join()
    return found, time.perf_counter() - start
