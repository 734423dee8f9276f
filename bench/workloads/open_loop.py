"""An open loop of arrivals at a pipeline: requests come on schedule, whether or not the last one is answered.

A measurement of its own kind, with processes of its own: it shares no column with the service time of one request. The
times of arrival are drawn before the run, and the time in system runs from the scheduled arrival, never from the moment
at which a busy server gets round to it, so that a slow server cannot hide its queue. One server answers in order of
arrival, in this process; with the schedule known beforehand no generator has to run beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.reading import Curve, Reading, reading, unavailable
from bench.sample_sizes import sure_percentile
from bench.workloads import queueing
from bench.workloads.workload import Clock

#: The first share of the requests, while the queue fills, is not kept.
FILLING = 0.1
#: The loop is bounded: fewest and most requests of one rate, and how long it may take at most.
LEAST_REQUESTS, MOST_REQUESTS, MOST_SECONDS = 20, 2000, 60.0
#: Seconds after the last arrival in which open requests may still be answered.
DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class OpenLoop:
    """One run at one rate: seconds since its beginning, in order of arrival; None for what was not answered in time."""

    rate: float
    scheduled: list[float]
    started: list[float | None]
    finished: list[float | None]

    @property
    def stability(self) -> queueing.Stability:
        """Whether the server kept up."""
        return queueing.stability(self.scheduled, self.finished)

    @property
    def kept(self) -> list[float]:
        """Seconds in system of the answered requests after the first tenth."""
        first = int(FILLING * len(self.scheduled))
        pairs = zip(self.scheduled[first:], self.finished[first:], strict=True)
        return [end - start for start, end in pairs if end is not None]

    @property
    def achieved_rate(self) -> float:
        """Requests answered per second, from the beginning until the last answer."""
        ends = [end for end in self.finished if end is not None]
        return len(ends) / max(ends) if ends and max(ends) > 0 else 0.0

    @property
    def services(self) -> list[float]:
        """Seconds of service of the answered requests."""
        pairs = zip(self.started, self.finished, strict=True)
        return [end - start for start, end in pairs if start is not None and end is not None]


def spin_until(moment_ns: int, clock: Clock) -> None:
    """Return at a moment of the clock, not after it: sleeping would overshoot and let the core slow down."""
    while clock() < moment_ns:
        pass


def run(
    serve: Callable[[int], Any],
    rate: float,
    *,
    count: int,
    seed: int,
    kind: queueing.Arrivals = "poisson",
    clock: Clock = time.perf_counter_ns,
    wait_until: Callable[[int, Clock], None] = spin_until,
    seconds: float = MOST_SECONDS,
) -> OpenLoop:
    """One open loop: `count` requests at `rate` per second, in order, each begun once it is there and the last is done.

    Args:
        serve: answers request i and returns when the answer is there (device included).
        rate: offered requests per second.
        count: requests; fewer where `seconds` would not hold them at that rate.
        seed: of the arrivals; equal seeds give the same schedule at every rate, only faster or slower.
        kind: of the arrivals.
        clock: nanoseconds.
        wait_until: returns at a moment of the clock.
        seconds: no request is scheduled later than that; open ones may be answered for a few seconds more.
    """
    if rate <= 0:
        raise ValueError(f"offered rate {rate:g}: requests per second above 0 are wanted")
    unit = queueing.unit_arrivals(count, seed, kind)
    scheduled = [moment / rate for moment in unit if moment / rate <= seconds]
    limit = (scheduled[-1] if scheduled else 0.0) + DRAIN_SECONDS
    started: list[float | None] = []
    finished: list[float | None] = []
    begin = clock()
    for index, moment in enumerate(scheduled):
        if (clock() - begin) / 1e9 > limit:
            break
        wait_until(begin + int(moment * 1e9), clock)
        started.append((clock() - begin) / 1e9)
        serve(index)
        finished.append((clock() - begin) / 1e9)
    missing: list[float | None] = [None] * (len(scheduled) - len(finished))
    return OpenLoop(rate, scheduled, started + missing, finished + missing)


def requests_at(rate: float, seconds: float) -> int:
    """How many requests a run of about so many seconds has at a rate, within the bounds of a loop."""
    return int(min(MOST_REQUESTS, max(LEAST_REQUESTS, rate * seconds)))


_PERCENTILES = {"sojourn_p50_ms": 0.5, "sojourn_p90_ms": 0.9, "sojourn_p99_ms": 0.99}


def readings(loop: OpenLoop) -> list[Reading]:
    """Offered and achieved rate, mean and percentiles of the time in system; no percentile of an unstable queue."""
    state = loop.stability
    found = [
        reading("offered_rate", loop.rate, "measured", n=1, part="request", method_note="scheduled arrivals"),
        reading(
            "achieved_rate", loop.achieved_rate, "measured", n=1, part="request", method_note="until the last answer"
        ),
    ]
    names = ("sojourn_mean_ms", "mean_in_system", *_PERCENTILES)
    if not state.stable:
        return [*found, *(unavailable(name, why_unstable(state), "request") for name in names)]
    return [*found, *(_time_reading(loop, name) for name in names)]


def status(loop: OpenLoop) -> str:
    """`ok`, or `unstable` where the backlog grows."""
    return "ok" if loop.stability.stable else "unstable"


def why_unstable(state: queueing.Stability) -> str:
    """What was seen of a backlog, for the reader."""
    return (
        f"unstable: {state.left} requests were waiting at the last arrival, {100 * state.answered_share:.1f} % were "
        f"answered, the number in system grew by {state.growth_per_s:.3g} per second"
    )


def _time_reading(loop: OpenLoop, name: str) -> Reading:
    kept = loop.kept
    if not kept:
        return unavailable(name, "no request was answered after the first tenth", "request")
    note = f"{len(kept)} requests of one run, from the scheduled arrival; they are not independent of each other"
    common: dict[str, Any] = {"n": 1, "part": "request", "method_note": note}
    if name == "sojourn_mean_ms":
        return reading(name, 1e3 * sum(kept) / len(kept), "measured", **common)
    if name == "mean_in_system":
        pairs = [(start, end) for start, end in zip(loop.scheduled, loop.finished, strict=True) if end is not None]
        number = queueing.mean_in_system([start for start, _ in pairs], [end for _, end in pairs])
        return reading(name, number, "measured", **common)
    value, why = sure_percentile(kept, _PERCENTILES[name])
    if value is None:
        return unavailable(name, why, "request")
    return reading(name, 1e3 * value, "measured", **common)


def curves(loops: Sequence[OpenLoop]) -> list[Curve]:
    """Time in system and achieved rate over offered rate; None where the queue is unstable or n is too small."""
    rates = [loop.rate for loop in loops]
    found = []
    for name in ("achieved_rate", "sojourn_mean_ms", *_PERCENTILES):
        values = [next(item.value for item in readings(loop) if item.metric == name) for loop in loops]
        note = "one open loop per rate, the same arrivals scaled; none where the backlog grows"
        found.append(Curve(name, "rate", rates, values, "measured", "request", note))
    return found


def sweep(
    serve: Callable[[int], Any], rates: Sequence[float], *, seconds: float, seed: int, **options: Any
) -> list[OpenLoop]:
    """An open loop at every rate, ascending; after the first unstable one no faster rate is tried."""
    loops = []
    for rate in sorted(rates):
        loop = run(serve, rate, count=requests_at(rate, seconds), seed=seed, **options)
        loops.append(loop)
        if not loop.stability.stable:
            break
    return loops


def replayed_mean(loop: OpenLoop) -> float:
    """Mean seconds in system that Lindley's recursion gives for the recorded service times and the schedule.

    What the measured mean has beyond that was spent outside of service.
    """
    answered = [index for index, end in enumerate(loop.finished) if end is not None]
    sojourns = queueing.replay([loop.scheduled[index] for index in answered], loop.services)
    return sum(sojourns) / len(sojourns) if sojourns else 0.0
