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
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

STEADY_WINDOW = 10
#: Of runs that last seconds: how many warm up, and how many raw samples a process takes at least.
FEW_WARM_UPS, FEW_SAMPLES = 2, 3
#: Most values of a trace of a warm-up: of what ran more often neighbours are put together.
MOST_OF_TRACE = 2048
#: A device's throughput window is tried until it is long enough, at most so often, each time so much longer than
#: needed.
REHEARSALS, REHEARSAL_MARGIN = 3, 1.1
Step = Callable[[], Any]
Clock = Callable[[], int]


class DeviceClock(Protocol):
    """A clock of the device itself: marks in its queue of work, which are read once all of it is done (CUDA events)."""

    def start(self) -> None:
        """Mark the beginning."""

    def stop(self) -> None:
        """Mark the end."""

    def elapsed_ms(self) -> float:
        """Milliseconds between the marks; only after waiting for the device."""


@dataclass(frozen=True)
class Runner:
    """Something to time: a step, what waits for its work, the device's own clock, what precedes and follows it.

    With a device's clock, with `before` (a flush of the cache, a fresh forward) or `after` (what puts back what the
    step changed), every iteration is timed on its own; what precedes and follows it is not timed. `spans` gives the
    milliseconds of spans inside the last step, by name.
    """

    name: str
    step: Step
    synchronise: Callable[[], None] = lambda: None
    device_clock: DeviceClock | None = None
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    spans: Callable[[], dict[str, list[float]]] | None = None

    @property
    def is_alone(self) -> bool:
        """Whether every iteration has to be timed by itself."""
        return not (self.device_clock is None and self.before is None and self.after is None and self.spans is None)


@dataclass(frozen=True)
class WarmUp:
    """How the warm-up went; `steady` says whether the last ten varied by less than the protocol's limit.

    It is None where one run was the warm-up. `trace_ms` has the times of all its iterations in order, means of `chunk`
    neighbours each, where it was kept.
    """

    iterations: int
    seconds: float
    last_ms: float
    variation: float
    steady: bool | None
    trace_ms: list[float] | None = None
    chunk: int = 1


@dataclass
class Samples:
    """Raw samples of one runner, in the order taken; each is the mean of `block` iterations, in milliseconds."""

    block: int
    latency_ms: list[float] = field(default_factory=list)
    device_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    preempted: list[bool] = field(default_factory=list)
    minor_faults: list[int] = field(default_factory=list)
    throughput: list[dict[str, float]] | None = field(default_factory=list)
    spans: list[dict[str, list[float]]] = field(default_factory=list)

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
    """Milliseconds per iteration over a block of iterations, all work finished before and after; see `time_both`."""
    return time_both(runner, block, clock)[0]


def time_both(runner: Runner, block: int, clock: Clock = time.perf_counter_ns) -> tuple[float, float | None]:
    """Milliseconds per iteration of the same iterations by the host's clock and by the device's, None without one.

    The host's time holds launching and waiting as well, so that it is the longer one. A device is waited for after
    every iteration: launched one behind the other they would hide their launches behind each other's work, and the
    latency of a short forward, which needs a block, would mean something else than that of a long one.
    """
    if not runner.is_alone:
        timed = [_time_back_to_back(runner, block, clock)]
    else:
        timed = [_time_single(runner, clock) for _ in range(block)]
    device = [of_device for _, of_device in timed if of_device is not None]
    return sum(host for host, _ in timed) / block, sum(device) / block if device else None


def _time_single(runner: Runner, clock: Clock) -> tuple[float, float | None]:
    """One iteration by both clocks, after what precedes it."""
    if runner.before is not None:
        runner.before()
    taken = _time_back_to_back(runner, 1, clock)
    if runner.after is not None:
        runner.after()
    return taken


def _time_back_to_back(runner: Runner, iterations: int, clock: Clock) -> tuple[float, float | None]:
    """Milliseconds that iterations back to back take by the host's and the device's clock."""
    device = runner.device_clock
    runner.synchronise()
    start = clock()
    if device is not None:
        device.start()
    for _ in range(iterations):
        runner.step()
    if device is not None:
        device.stop()
    runner.synchronise()
    milliseconds = (clock() - start) / 1e6
    return milliseconds, None if device is None else device.elapsed_ms()


def warm_up(
    runner: Runner,
    *,
    iterations: int,
    seconds: float,
    cap_s: float,
    variation: float,
    clock: Clock = time.perf_counter_ns,
    heartbeat: Callable[[], None] = lambda: None,
    few: bool = False,
    long_ms: float = math.inf,
    patient: bool = True,
    traced: bool = False,
) -> WarmUp:
    """Run until there were `iterations` and `seconds`, then until the last ten vary little or the cap is reached.

    The variation is the coefficient of variation of the last ten (standard deviation over mean). With `few`, for runs
    that may last seconds, `FEW_WARM_UPS` runs and `seconds` are enough. A first run of `long_ms` or more is all of it.
    Unless it is `patient` it ends at its seconds, steady or not: where times of a first process say how long the others
    warm up, a noisy host is not waited for. With `traced` the result holds the times of all iterations.
    """
    start, times = clock(), list[float]()
    least = FEW_WARM_UPS if few else max(iterations, STEADY_WINDOW)
    patience = _steady_state_timeout_s(seconds, cap_s) if patient and not few else seconds
    while True:
        times.append(time_block(runner, 1, clock))
        heartbeat()
        elapsed = (clock() - start) / 1e9
        if times[0] >= long_ms:
            return WarmUp(1, elapsed, times[0], 0.0, None)
        recent = times[-STEADY_WINDOW:]
        known = len(recent) >= (FEW_WARM_UPS if few else STEADY_WINDOW)
        spread = statistics.pstdev(recent) / statistics.fmean(recent) if known else math.inf
        enough = len(times) >= least and elapsed >= seconds
        capped = elapsed >= cap_s and (known or not few)
        if capped or (enough and (spread < variation or elapsed >= patience)):
            finite = spread if math.isfinite(spread) else 0.0
            done = WarmUp(len(times), elapsed, statistics.median(recent), finite, known and spread < variation)
            return replace(done, **_trace(times)) if traced else done


def _trace(times: Sequence[float]) -> dict[str, Any]:
    """The fields of a warm-up that hold its times: as they are, or means of neighbours where there are too many."""
    chunk = math.ceil(len(times) / MOST_OF_TRACE)
    whole = len(times) // chunk * chunk
    means = [statistics.fmean(times[at : at + chunk]) for at in range(0, whole, chunk)]
    return {"trace_ms": [float(f"{mean:.6g}") for mean in means], "chunk": chunk}


def _steady_state_timeout_s(seconds: float, cap_s: float) -> float:
    """How long to wait for a steady state: on a noisy host it may never come, and waiting buys nothing."""
    return min(cap_s, 2.0 * seconds)


def block_size(iteration_ms: float, min_sample_ms: float) -> int:
    """Iterations per raw sample, so that a sample lasts at least `min_sample_ms`."""
    return max(1, math.ceil(min_sample_ms / max(iteration_ms, 1e-6)))


def rounds_for(
    iteration_ms: Sequence[float],
    *,
    samples: int,
    min_samples: int,
    case_seconds: float,
    few: bool = False,
    long_ms: float = math.inf,
    long_samples: int = 1,
) -> int:
    """Rounds that a group gets: `samples`, fewer if the slowest member would take longer than its time.

    With `few`, for runs that may last seconds, `FEW_SAMPLES` are enough where more would take longer than that; where
    the slowest takes `long_ms` or more, `long_samples`.
    """
    slowest = max(iteration_ms)
    least = min(min_samples, FEW_SAMPLES) if few else min_samples
    least = min(least, long_samples) if slowest >= long_ms else least
    return max(least, min(samples, int(case_seconds * 1e3 / max(slowest, 1e-6))))


def resource_usage() -> tuple[int, int]:
    """This process's involuntary context switches and minor page faults so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nivcsw, usage.ru_minflt


def take_sample(
    runner: Runner,
    into: Samples,
    clock: Clock = time.perf_counter_ns,
    loss: float | None = None,
    processor: Clock = time.thread_time_ns,
) -> None:
    """Append one raw sample with whether the process was preempted during it.

    A long sample meets some thread of the kernel almost surely, for microseconds. With `loss` a switch counts only if
    the calling thread went without a processor for at least that share of the sample; `None` counts every switch, as is
    right where others work for the thread (several threads, a device) and its own processor time tells nothing.
    """
    _prime_caches(runner)
    switches, faults = resource_usage()
    computing = processor()
    host, device = time_both(runner, into.block, clock)
    computed_ms = (processor() - computing) / 1e6 / into.block
    into.latency_ms.append(host)
    into.cpu_ms.append(computed_ms)
    if device is not None:
        into.device_ms.append(device)
    switches_after, faults_after = resource_usage()
    into.preempted.append(switches_after > switches and (loss is None or host - computed_ms >= loss * host))
    into.minor_faults.append(faults_after - faults)
    if runner.spans is not None:
        into.spans.append(runner.spans())


def _prime_caches(runner: Runner) -> None:
    """One step that is not timed where a device's caches should be warm: another member ran just before this one."""
    if runner.device_clock is not None and runner.before is None:
        runner.step()


def interleave(
    runners: Sequence[Runner],
    samples: dict[str, Samples],
    rounds: int,
    seed: int,
    *,
    clock: Clock = time.perf_counter_ns,
    turn: Callable[[str], None] = lambda name: None,
    between: Callable[[], None] = lambda: None,
    loss: float | None = None,
) -> None:
    """Take one sample of every runner per round, in an order reshuffled from the seed each round.

    `loss` is that of `take_sample`; `turn` is told whose sample is next and `between` is called after every round,
    while nothing is timed.
    """
    generator = random.Random(seed)
    order = list(runners)
    with collector_off():
        for _ in range(rounds):
            generator.shuffle(order)
            for runner in order:
                turn(runner.name)
                take_sample(runner, samples[runner.name], clock, loss)
            between()


def throughput_windows(
    runners: Sequence[Runner],
    samples: dict[str, Samples],
    iteration_ms: dict[str, float],
    *,
    windows: int,
    window_s: float,
    seed: int,
    clock: Clock = time.perf_counter_ns,
    turn: Callable[[str], None] = lambda name: None,
    heartbeat: Callable[[], None] = lambda: None,
) -> None:
    """Back-to-back forwards in windows of at least `window_s`, one synchronisation at the end, interleaved as well.

    Back to back leaves no room for what precedes a step: throughput is always that of warm caches. A forward that has
    to be put back is timed alone also here, or every further one of a window would be of another state.
    """
    generator = random.Random(seed + 1)
    order = list(runners)
    counts: dict[str, int] = {}
    with collector_off():
        for _ in range(windows):
            generator.shuffle(order)
            for runner in order:
                turn(runner.name)
                if runner.name not in counts:
                    counts[runner.name] = _iterations_of(runner, iteration_ms[runner.name], window_s * 1e3, clock)
                iterations = counts[runner.name]
                milliseconds = _window(runner, iterations, clock)
                taken = samples[runner.name].throughput
                assert taken is not None  # only where no windows are wanted
                taken.append({"iterations": iterations, "ms": milliseconds})
                heartbeat()


def _window(runner: Runner, iterations: int, clock: Clock) -> float:
    """Milliseconds of so many iterations, without those of putting back what each of them changes."""
    if runner.after is None:
        return _time_back_to_back(runner, iterations, clock)[0]
    total = 0.0
    for _ in range(iterations):
        total += _time_back_to_back(runner, 1, clock)[0]
        runner.after()
    return total


def _iterations_of(runner: Runner, iteration_ms: float, window_ms: float, clock: Clock) -> int:
    """Iterations that fill a window, from the time of a synchronised one.

    Back to back a device takes less for each, so there the number is rehearsed, outside the windows: to measure windows
    and drop the short ones would drop the fast ones.
    """
    iterations = max(2, math.ceil(window_ms / iteration_ms))
    for _ in range(REHEARSALS if runner.device_clock is not None else 0):
        taken = _window(runner, iterations, clock)
        if taken >= window_ms:
            break
        iterations = math.ceil(REHEARSAL_MARGIN * iterations * window_ms / max(taken, window_ms / 100))
    return iterations
