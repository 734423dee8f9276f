"""Time of forwards: warm-up with a steady-state flag, interleaved samples, throughput windows.

The subjects are calls without arguments; the clock is injected, so that tests use one they control.
"""

from __future__ import annotations

import gc
import math
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

STEADY_WINDOW = 10
Step = Callable[[], Any]
Clock = Callable[[], int]


@dataclass(frozen=True)
class Runner:
    """Something to time: a step, what waits for its work to finish, and optionally a timer on the device itself.

    `device_timer` returns the device's own milliseconds for the iterations it is given (CUDA events).
    """

    name: str
    step: Step
    synchronise: Callable[[], None] = lambda: None
    device_timer: Callable[[int], float] | None = None


@dataclass(frozen=True)
class WarmUp:
    """How the warm-up went; `steady` says whether the last ten varied by less than the protocol's limit."""

    iterations: int
    seconds: float
    last_ms: float
    variation: float
    steady: bool


@dataclass
class Samples:
    """Raw samples of one runner, in the order taken; each is the mean of `block` iterations, in milliseconds."""

    block: int
    latency_ms: list[float] = field(default_factory=list)
    device_ms: list[float] = field(default_factory=list)
    preempted: list[bool] = field(default_factory=list)
    minor_faults: list[int] = field(default_factory=list)
    throughput: list[dict[str, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(self.__dict__)


@contextmanager
def collector_off() -> Iterator[None]:
    """Python's garbage collector runs before, not during."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def time_block(runner: Runner, block: int, clock: Clock = time.perf_counter_ns) -> float:
    """Milliseconds per iteration over a block of iterations, all work finished before and after."""
    runner.synchronise()
    start = clock()
    for _ in range(block):
        runner.step()
    runner.synchronise()
    return (clock() - start) / 1e6 / block


def warm_up(
    runner: Runner, *, iterations: int, seconds: float, cap_s: float, variation: float,
    clock: Clock = time.perf_counter_ns, beat: Callable[[], None] = lambda: None,
) -> WarmUp:  # fmt: skip
    """Run until there were `iterations` and `seconds`, then until the last ten vary little or the cap is reached.

    The variation is the coefficient of variation of the last ten (standard deviation over mean).
    """
    start, count = clock(), 0
    recent: list[float] = []
    while True:
        recent = [*recent[-(STEADY_WINDOW - 1) :], time_block(runner, 1, clock)]
        count += 1
        beat()
        elapsed = (clock() - start) / 1e9
        enough = count >= max(iterations, STEADY_WINDOW) and elapsed >= seconds
        spread = statistics.pstdev(recent) / statistics.fmean(recent) if len(recent) == STEADY_WINDOW else math.inf
        done = enough and (spread < variation or elapsed >= _patience(seconds, cap_s))
        if done or elapsed >= cap_s:
            steady = len(recent) == STEADY_WINDOW and spread < variation
            finite = spread if math.isfinite(spread) else 0.0
            return WarmUp(count, elapsed, statistics.median(recent), finite, steady)


def _patience(seconds: float, cap_s: float) -> float:
    """How long to wait for a steady state: on a noisy host it may never come, and waiting buys nothing."""
    return min(cap_s, 2.0 * seconds)


def block_size(iteration_ms: float, min_sample_ms: float) -> int:
    """Iterations per raw sample, so that a sample lasts at least `min_sample_ms`."""
    return max(1, math.ceil(min_sample_ms / max(iteration_ms, 1e-6)))


def rounds_for(iteration_ms: Sequence[float], *, samples: int, min_samples: int, case_seconds: float) -> int:
    """Rounds that a group gets: `samples`, fewer if the slowest member would take longer than its time."""
    slowest = max(iteration_ms)
    return max(min_samples, min(samples, int(case_seconds * 1e3 / max(slowest, 1e-6))))


def _usage() -> tuple[int, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nivcsw, usage.ru_minflt


def take_sample(runner: Runner, into: Samples, clock: Clock = time.perf_counter_ns) -> None:
    """Append one raw sample with whether the process was preempted during it."""
    switches, faults = _usage()
    if runner.device_timer is not None:
        into.device_ms.append(runner.device_timer(into.block) / into.block)
    into.latency_ms.append(time_block(runner, into.block, clock))
    switches_after, faults_after = _usage()
    into.preempted.append(switches_after > switches)
    into.minor_faults.append(faults_after - faults)


def interleave(
    runners: Sequence[Runner], samples: dict[str, Samples], rounds: int, seed: int, *,
    clock: Clock = time.perf_counter_ns, beat: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Take one sample of every runner per round, in an order shuffled anew from the seed each round."""
    generator = random.Random(seed)
    order = list(runners)
    with collector_off():
        for _ in range(rounds):
            generator.shuffle(order)
            for runner in order:
                take_sample(runner, samples[runner.name], clock)
            beat()


def throughput_windows(
    runners: Sequence[Runner], samples: dict[str, Samples], iteration_ms: dict[str, float], *, windows: int,
    window_s: float, seed: int, clock: Clock = time.perf_counter_ns, beat: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Back-to-back forwards in windows of at least `window_s`, one synchronisation at the end, interleaved as well."""
    generator = random.Random(seed + 1)
    order = list(runners)
    with collector_off():
        for _ in range(windows):
            generator.shuffle(order)
            for runner in order:
                iterations = max(2, math.ceil(window_s * 1e3 / iteration_ms[runner.name]))
                milliseconds = time_block(runner, iterations, clock) * iterations
                samples[runner.name].throughput.append({"iterations": iterations, "ms": milliseconds})
                beat()
