"""A pipeline under load: how many requests it can answer, and how long they take when they arrive by themselves.

Two measurements beside the time of one request, which share no column with it or with each other:

- *saturated* (a closed loop): every server has the next request as soon as the last is answered;
- an *open loop* of arrivals at the rate of the shape (`bench.workloads.open_loop`).

Each is repeated, an open loop with the next seed, and where there are several servers in fresh processes; values are
geometric means over the runs with t-intervals on logs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.flags import LATE_ARRIVALS, flag
from bench.reading import Reading, reading, unavailable
from bench.workloads import open_loop, queueing, servers
from bench.workloads.open_loop import OpenLoop
from bench.workloads.workload import Clock, Facts

#: Runs of each measurement: what is repeated, and what intervals stand on.
RUNS = 5
#: Share of the shape's seconds that a saturated run takes, and requests after which it ends whatever the clock says.
SATURATED_SHARE, MOST_ANSWERED = 0.05, 50_000
#: Per cent of the time that servers can be busy at most, rounding apart: more means that the books are wrong.
FULL = 102.0

#: Prepares a request outside the clock and gives the call that answers it.
Ready = Callable[[int], Callable[[], Any]]
#: Lateness of arrivals above this share of the median time in system, or above so many ms, contaminates the row.
LATE_SHARE, LATE_MS = 0.1, 1.0


@dataclass(frozen=True)
class Site:
    """Where requests are answered: how many servers, by which clock, and how a moment is awaited."""

    count: int
    clock: Clock
    wait_until: Callable[[int, Clock], None]

    @property
    def how(self) -> str:
        """In words, for a note."""
        return (
            "one server, in this process" if self.count == 1 else f"{self.count} processes, each on a core of its own"
        )


def saturated(ready: Ready, site: Site, seconds: float, most: int = 1) -> list[float]:
    """Requests answered per second of every run, all servers together; the time to prepare the next is not counted.

    Args:
        ready: prepares call i, which answers `most` requests.
        site: where.
        seconds: of a run.
        most: requests of a call.
    """
    return [most * sum(_rates(ready, site, seconds)) for _ in range(RUNS)]


def _rates(ready: Ready, site: Site, seconds: float) -> list[float]:
    if site.count == 1:
        return [_back_to_back(ready, site.clock, seconds)]

    def work(server: int, begin: Callable[[], int]) -> float:
        site.wait_until(begin(), site.clock)
        return _back_to_back(ready, site.clock, seconds)

    return servers.together(site.count, work, timeout_s=60.0 + 3 * seconds, settle=ready(0))


def _back_to_back(ready: Ready, clock: Clock, seconds: float) -> float:
    """Requests per second of answering them one after another for so many seconds."""
    busy, answered = 0, 0
    while busy < seconds * 1e9 and answered < MOST_ANSWERED:
        answer = ready(answered)
        start = clock()
        answer()
        busy += clock() - start
        answered += 1
    return 1e9 * answered / busy if busy else 0.0


def saturated_readings(whole: Sequence[float], network: Sequence[float] | None, why: str, how: str) -> list[Reading]:
    """The saturated rate of the chain, and how much of the network's own it is.

    Args:
        whole: requests per second of the chain, by run.
        network: the same of the stage that runs the network on inputs that are ready; None where there is none.
        why: there is none.
        how: they were taken, for the note.
    """
    note = f"{how}; {len(whole)} runs"
    found = [over_runs("saturated_rate", whole, note)]
    if network is None:
        return [*found, *(unavailable(name, why, "request") for name in ("network_rate", "serving_efficiency"))]
    found.append(over_runs("network_rate", network, note))
    if min(network) <= 0:
        return [*found, unavailable("serving_efficiency", "the network alone took no time", "request")]
    shares = [100 * chain / alone for chain, alone in zip(whole, network, strict=True)]
    return [*found, over_runs("serving_efficiency", shares, f"over the network alone on ready inputs, {note}")]


def arrivals(
    make: Callable[[int], Sequence[Callable[[], Any]]],
    site: Site,
    rate: float,
    count: int,
    seed: int,
    kind: queueing.Arrivals = "poisson",
) -> list[OpenLoop]:
    """Open loops at a rate, each with the next seed; the first that is unstable ends them: the others would be as well.

    Args:
        make: `make(n)` prepares n requests, each with all that it changes its own, and gives the calls that answer
            them.
        site: where.
        rate: offered, per second.
        count: requests of one run.
        seed: of the first run's arrivals.
        kind: of the arrivals.
    """
    return until_unstable(lambda turn: _one_loop(make(count + 1), site, rate, seed + turn, kind))


def until_unstable(loop_of: Callable[[int], OpenLoop]) -> list[OpenLoop]:
    """The loops of all runs, or those until the first that is unstable: the others would be as well.

    Args:
        loop_of: makes one, given the number of the run.
    """
    loops = []
    for turn in range(RUNS):
        loop = loop_of(turn)
        loops.append(loop)
        if not loop.stability.stable:
            break
    return loops


def _one_loop(
    answers: Sequence[Callable[[], Any]], site: Site, rate: float, seed: int, kind: queueing.Arrivals
) -> OpenLoop:
    """One run; the last of the prepared requests is one that servers answer before it begins."""
    *arriving, before = answers
    options: dict[str, Any] = {
        "count": len(arriving), "seed": seed, "kind": kind, "clock": site.clock, "wait_until": site.wait_until,
    }  # fmt: skip
    if site.count == 1:
        return open_loop.run(lambda index: arriving[index](), rate, **options)
    return open_loop.run_on_servers(lambda index: arriving[index](), rate, site.count, settle=before, **options)


def loop_facts(loops: Sequence[OpenLoop], saturated_rate: float, how: str, limit_ms: float | None = None) -> Facts:
    """Rates, waiting and time in system over the runs; an unstable queue has no times, and says how it grows.

    Args:
        loops: a run each.
        saturated_rate: of the same processes, per second.
        how: they were taken, for the notes.
        limit_ms: within which an answer is a good one; None for no goodput.
    """
    unstable = [loop for loop in loops if not loop.stability.stable]
    utilisation = _utilisation(loops, how)
    found = [
        reading("offered_rate", loops[0].rate, "measured", part="request", method_note="scheduled arrivals"),
        over_runs("achieved_rate", [loop.achieved_rate for loop in loops], f"until the last answer, {how}"),
        _load(loops[0].rate, saturated_rate),
        utilisation,
        over_runs("timed_out_share", [100 * loop.timed_out_share for loop in loops], "not answered in time"),
    ]
    if limit_ms is not None:
        good = [loop.within(limit_ms / 1e3) for loop in loops]
        found.append(over_runs("goodput", good, f"within {limit_ms:g} ms of the scheduled arrival, {how}"))
    details = {"runs": [_described(loop) for loop in loops], "first_run": _recorded(loops[0]), "how": how}
    flags = _books(utilisation)
    if unstable:
        why = open_loop.why_unstable(unstable[0].stability)
        found += [unavailable(name, why, "request") for name in open_loop.TIMES]
        flags.append(flag("unstable", "invalid", why))
    else:
        times = [_over_loops(name, loops, how) for name in open_loop.TIMES]
        flags += _late(times)
        found += times
    return Facts(found, details={"open_loop": details}, flags=flags)


def _late(times: Sequence[Reading]) -> list[dict[str, str]]:
    """The disturbance of requests that were taken later than a free server could, by more than a measurement may."""
    value = {item.metric: item.value for item in times}
    late, median = value["lateness_p99_ms"], value["sojourn_p50_ms"]
    if late is None or (late <= LATE_MS and (median is None or late <= LATE_SHARE * median)):
        return []
    text = f"one in a hundred arrivals at a free server was taken {late:.3g} ms late: other work was in the way"
    return [flag(LATE_ARRIVALS, "warn", text)]


def _books(utilisation: Reading) -> list[dict[str, str]]:
    """A flag where servers were busy for longer than there was time."""
    if utilisation.value is None or utilisation.value <= FULL:
        return []
    text = f"the servers were busy {utilisation.value:.1f} % of the time: rate and service are not those of one queue"
    return [flag("over_full", "warn", text)]


def _described(loop: OpenLoop) -> dict[str, Any]:
    """A run in numbers; mean times are of all that was answered, so that Lindley's and Little's laws can be held to."""
    state = loop.stability
    return {
        "requests": len(loop.scheduled), "left": state.left, "answered_share": state.answered_share,
        "growth_per_s": state.growth_per_s, "replayed_mean_ms": 1e3 * open_loop.replayed_mean(loop),
        "mean_sojourn_ms": 1e3 * open_loop.mean_sojourn(loop), "mean_in_system": open_loop.mean_in_system(loop),
        "completed_rate": open_loop.completed_rate(loop),
    }  # fmt: skip


def _recorded(loop: OpenLoop) -> dict[str, list[float | None]]:
    """When each request of a run was due, taken and answered, in ms from its beginning; None for what never was."""

    def in_ms(moments: Sequence[float | None]) -> list[float | None]:
        return [None if moment is None else round(1e3 * moment, 4) for moment in moments]

    return {
        "scheduled_ms": in_ms(loop.scheduled),
        "started_ms": in_ms(loop.started),
        "finished_ms": in_ms(loop.finished),
    }


def _load(rate: float, saturated_rate: float) -> Reading:
    if saturated_rate <= 0:
        return unavailable("offered_load", "the saturated rate is not known", "request")
    return reading("offered_load", 100 * rate / saturated_rate, "measured", n=1, part="request",
                   method_note="offered over saturated rate")  # fmt: skip


def _utilisation(loops: Sequence[OpenLoop], how: str) -> Reading:
    """The utilisation law: throughput times mean service over servers."""
    shares = [100 * loop.busy_share for loop in loops]
    return over_runs("utilisation", shares, f"achieved rate x mean service / servers, {how}")


def _over_loops(name: str, loops: Sequence[OpenLoop], how: str) -> Reading:
    values = [open_loop.value_of(loop, name) for loop in loops]
    missing = next((why for value, why in values if value is None), None)
    if missing is not None:
        return unavailable(name, missing, "request")
    note = f"{len(loops[0].kept)} requests of a run, from the scheduled arrival, {how}"
    return over_runs(name, [value for value, _ in values if value is not None], note)


def over_runs(metric: str, values: Sequence[float], note: str) -> Reading:
    """The geometric mean over runs with its interval; the plain mean without one where a value is not above 0."""
    from bench.statistics import log_mean_interval

    told: dict[str, Any] = {"part": "request", "method_note": note, "n": len(values)}
    if min(values) <= 0:
        return reading(metric, sum(values) / len(values), "measured", statistic="mean over runs", **told)
    found = log_mean_interval(values)
    return reading(
        metric, found.value, "measured", ci_low=found.low, ci_high=found.high, statistic=found.method, **told
    )
