"""An open loop of arrivals at a pipeline: requests come on schedule, whether or not the last one is answered.

A measurement of its own kind, with processes of its own: it shares no column with the service time of one request. The
times of arrival are drawn before the run, and the time in system runs from the scheduled arrival, never from the moment
at which a busy server gets round to it, so that a slow server cannot hide its queue. Requests are taken in order of
arrival, by one server in this process or by several (`bench.workloads.servers`), whichever is free first; with the
schedule known beforehand no generator has to run beside them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.reading import Curve, Reading, reading, unavailable
from bench.sample_sizes import sure_percentile
from bench.workloads import queueing
from bench.workloads.workload import Clock

#: The first share of the requests, while the queue fills, is not kept, nor are those of so many mean waits.
FILLING, FILLING_WAITS = 0.1, 5.0
#: The loop is bounded: fewest and most requests of one rate, and how long it may take at most.
LEAST_REQUESTS, MOST_REQUESTS, MOST_SECONDS = 20, 2000, 60.0
#: Seconds after the last arrival in which open requests may still be answered.
DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class OpenLoop:
    """One run at one rate: seconds since its beginning, in order of arrival; None for what was not answered in time.

    `spans` are those in which the server was held by requests that it answers together (`bench.workloads.together`);
    None where it answers one after another.
    """

    rate: float
    scheduled: list[float]
    started: list[float | None]
    finished: list[float | None]
    servers: int = 1
    spans: list[tuple[float, float]] | None = None

    @property
    def stability(self) -> queueing.Stability:
        """Whether the server kept up."""
        return queueing.stability(self.scheduled, self.finished)

    @property
    def first_kept(self) -> int:
        """Place of the first request that is kept: after a tenth of all, and not before five mean waits have passed."""
        pairs = zip(self.scheduled, self.started, strict=True)
        waits = [begun - due for due, begun in pairs if begun is not None]
        filled = FILLING_WAITS * sum(waits) / len(waits) if waits else 0.0
        return max(int(FILLING * len(self.scheduled)), bisect_left(self.scheduled, filled))

    @property
    def kept(self) -> list[float]:
        """Seconds in system of the answered requests that came once the queue had filled."""
        first = self.first_kept
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

    @property
    def busy_share(self) -> float:
        """Share of the time until the last answer in which servers were taken: the utilisation law."""
        taken = sum(self.services) if self.spans is None else sum(end - start for start, end in self.spans)
        last = max((end for end in self.finished if end is not None), default=0.0)
        return taken / (self.servers * last) if last > 0 else 0.0

    @property
    def timed_out_share(self) -> float:
        """Share of the scheduled requests that were not answered before the run was ended."""
        return sum(end is None for end in self.finished) / len(self.finished) if self.finished else 0.0

    @property
    def lateness(self) -> list[float]:
        """Seconds from the scheduled arrival of requests that found a server free until they were taken.

        Only of servers that answer one after another: a batch is taken as its window says.
        """
        if self.spans is not None:
            return []
        late, free = [], [0.0] * self.servers
        for due, begun, end in zip(self.scheduled, self.started, self.finished, strict=True):
            if begun is None or end is None:
                break
            server = min(range(self.servers), key=free.__getitem__)
            if free[server] <= due:
                late.append(begun - due)
            free[server] = end
        return late

    def within(self, seconds: float) -> float:
        """Requests per second that were answered within so many seconds of their scheduled arrival."""
        pairs = [(due, end) for due, end in zip(self.scheduled, self.finished, strict=True) if end is not None]
        last = max((end for _, end in pairs), default=0.0)
        return sum(end - due <= seconds for due, end in pairs) / last if last > 0 else 0.0


def schedule(rate: float, count: int, seed: int, kind: queueing.Arrivals, seconds: float) -> list[float]:
    """Seconds at which requests arrive, none later than `seconds`.

    Raises:
        ValueError: the rate is not above 0.
    """
    if rate <= 0:
        raise ValueError(f"offered rate {rate:g}: requests per second above 0 are wanted")
    return [moment / rate for moment in queueing.unit_arrivals(count, seed, kind) if moment / rate <= seconds]


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
    scheduled = schedule(rate, count, seed, kind, seconds)
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


def run_on_servers(
    serve: Callable[[int], Any],
    rate: float,
    servers: int,
    *,
    count: int,
    seed: int,
    kind: queueing.Arrivals = "poisson",
    clock: Clock = time.perf_counter_ns,
    wait_until: Callable[[int, Clock], None] = spin_until,
    seconds: float = MOST_SECONDS,
    settle: Callable[[], Any] | None = None,
) -> OpenLoop:
    """The same with several servers, each a process on a core of its own; the first that is free takes the next.

    Arguments are those of `run`; `serve` is called in forks of this process, `settle` once in each before it begins.

    Raises:
        ServersFailed: one of them raised, died or took too long.
    """
    from multiprocessing import get_context

    from bench.workloads.servers import together

    scheduled = schedule(rate, count, seed, kind, seconds)
    limit = (scheduled[-1] if scheduled else 0.0) + DRAIN_SECONDS
    turn = get_context("fork").Value("q", 0)

    def work(server: int, begin: Callable[[], int]) -> list[tuple[int, float, float]]:
        start, done = begin(), list[tuple[int, float, float]]()
        while True:
            with turn.get_lock():
                index = turn.value
                turn.value += 1
            if index >= len(scheduled) or (clock() - start) / 1e9 > limit:
                return done
            wait_until(start + int(scheduled[index] * 1e9), clock)
            began = (clock() - start) / 1e9
            serve(index)
            done.append((index, began, (clock() - start) / 1e9))

    told = together(servers, work, timeout_s=60.0 + 2 * limit, settle=settle)
    started: list[float | None] = [None] * len(scheduled)
    finished = list(started)
    for index, begin_s, end_s in (line for lines in told for line in lines):
        started[index], finished[index] = begin_s, end_s
    return OpenLoop(rate, scheduled, started, finished, servers)


def requests_at(rate: float, seconds: float) -> int:
    """How many requests a run of about so many seconds has at a rate, within the bounds of a loop."""
    return int(min(MOST_REQUESTS, max(LEAST_REQUESTS, rate * seconds)))


_PERCENTILES = {"sojourn_p50_ms": 0.5, "sojourn_p90_ms": 0.9, "sojourn_p99_ms": 0.99}
#: What only a queue that keeps up has, by metric.
TIMES = (
    "sojourn_mean_ms",
    "waiting_mean_ms",
    "outside_service_ms",
    "mean_in_system",
    "most_in_system",
    "lateness_p99_ms",
    *_PERCENTILES,
    "sojourn_in_services",
    "sojourn_p99_in_services",
)


def readings(loop: OpenLoop) -> list[Reading]:
    """Offered and achieved rate, mean and percentiles of the time in system; no percentile of an unstable queue."""
    state = loop.stability
    found = [
        reading("offered_rate", loop.rate, "measured", n=1, part="request", method_note="scheduled arrivals"),
        reading(
            "achieved_rate", loop.achieved_rate, "measured", n=1, part="request", method_note="until the last answer"
        ),
    ]
    if not state.stable:
        return [*found, *(unavailable(name, why_unstable(state), "request") for name in TIMES)]
    return [*found, *(_time_reading(loop, name) for name in TIMES)]


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
    value, why = value_of(loop, name)
    if value is None:
        return unavailable(name, why, "request")
    note = f"{len(loop.kept)} requests of one run, from the scheduled arrival; they are not independent of each other"
    return reading(name, value, "measured", n=1, part="request", method_note=note)


def value_of(loop: OpenLoop, name: str) -> tuple[float | None, str]:
    """One of `TIMES` of one run in the metric's unit; or None and the reason."""
    kept = loop.kept
    if not kept:
        return None, "no request was answered after the first tenth and five mean waits: offer them for more seconds"
    if name in _PERCENTILES:
        value, why = sure_percentile(kept, _PERCENTILES[name])
        return (None if value is None else 1e3 * value), why
    if loop.spans is not None and name in _OF_SINGLE_SERVICES:
        return None, "requests are answered together: there is no queue of single services"
    if name == "sojourn_p99_in_services":
        value, why = sure_percentile(kept, 0.99)
        return (None if value is None else value / _mean_service(loop)), why
    if name == "lateness_p99_ms" and not loop.lateness:
        return None, "no request found a server free"
    return _MEANS[name](loop), ""


def _in_system(loop: OpenLoop) -> list[tuple[float, int]]:
    pairs = _answered(loop)
    return queueing.in_system([due for due, _ in pairs], [end for _, end in pairs])


def _answered(loop: OpenLoop) -> list[tuple[float, float]]:
    """When each answered request was due, and when it was answered."""
    return [(due, end) for due, end in zip(loop.scheduled, loop.finished, strict=True) if end is not None]


def mean_in_system(loop: OpenLoop) -> float:
    """Time average of the answered requests in the system, from the first arrival to the last answer."""
    pairs = _answered(loop)
    return queueing.mean_in_system([due for due, _ in pairs], [end for _, end in pairs])


def mean_sojourn(loop: OpenLoop) -> float:
    """Mean seconds in system of all that was answered, those included that the queue filled with; 0 of nothing."""
    pairs = _answered(loop)
    return sum(end - due for due, end in pairs) / len(pairs) if pairs else 0.0


def completed_rate(loop: OpenLoop) -> float:
    """Answers per second from the first arrival to the last answer, as Little's law counts them; 0 of nothing."""
    pairs = _answered(loop)
    span = max((end for _, end in pairs), default=0.0) - (pairs[0][0] if pairs else 0.0)
    return len(pairs) / span if span > 0 else 0.0


def _mean_waiting(loop: OpenLoop) -> float:
    """Mean milliseconds from the scheduled arrival until a server began, of the same requests as the time in system."""
    first = loop.first_kept
    pairs = zip(loop.scheduled[first:], loop.started[first:], loop.finished[first:], strict=True)
    waits = [begun - start for start, begun, end in pairs if begun is not None and end is not None]
    return 1e3 * sum(waits) / len(waits)


def _outside_service(loop: OpenLoop) -> float:
    """Milliseconds by which the mean time in system is longer than that of the replayed queue."""
    return 1e3 * (mean_sojourn(loop) - replayed_mean(loop))


def _mean_service(loop: OpenLoop) -> float:
    """Mean seconds of service of the answered requests."""
    return sum(loop.services) / len(loop.services)


#: What is told of servers alone that answer one request after another.
_OF_SINGLE_SERVICES = ("outside_service_ms", "lateness_p99_ms", "sojourn_in_services", "sojourn_p99_in_services")

_MEANS: dict[str, Callable[[OpenLoop], float]] = {
    "sojourn_in_services": lambda loop: sum(loop.kept) / len(loop.kept) / _mean_service(loop),
    "sojourn_mean_ms": lambda loop: 1e3 * sum(loop.kept) / len(loop.kept),
    "waiting_mean_ms": _mean_waiting,
    "outside_service_ms": _outside_service,
    "mean_in_system": mean_in_system,
    "most_in_system": lambda loop: float(max(number for _, number in _in_system(loop))),
    "lateness_p99_ms": lambda loop: 1e3 * sorted(loop.lateness)[int(0.99 * (len(loop.lateness) - 1))],
}


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
    """Mean seconds in system of the recorded service times with the schedule, each request to the server free first.

    What the measured mean has beyond that was spent outside of service.
    """
    answered = [index for index, end in enumerate(loop.finished) if end is not None]
    sojourns = queueing.replay([loop.scheduled[index] for index in answered], loop.services, loop.servers)
    return sum(sojourns) / len(sojourns) if sojourns else 0.0
