"""Queues in closed form and by replay: arrivals, times in system, and whether a backlog grows. Pure functions.

Sources: D. V. Lindley, "The theory of queues with a single server", 1952; L. Kleinrock, Queueing Systems I, 1975, for
M/M/1, M/D/1 and the utilisation law; J. D. C. Little, "A proof for the queuing formula L = lambda W", 1961.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

Arrivals = Literal["poisson", "fixed", "bursty"]

#: Share of the offered requests that have to be answered by the end, else the queue is unstable.
COMPLETED = 0.98
#: Fewer open requests than this at the end say nothing of a backlog.
OPEN = 10
#: Bursty arrivals alternate between this many times the mean rate and the rest, for so many mean intervals.
BURST_FACTOR, BURST_LENGTH = 3.0, 20.0


def unit_arrivals(count: int, seed: int, kind: Arrivals = "poisson") -> list[float]:
    """Times of `count` arrivals at a mean rate of 1, ascending; scaled by 1 / rate they are those of any rate.

    `poisson` has exponential intervals, `fixed` equal ones; `bursty` is Poisson in two states of equal mean number of
    arrivals, three times as fast and 0.6 times as fast as the mean, which change after 20 mean intervals on average.
    """
    if kind == "fixed":
        return [float(index + 1) for index in range(count)]
    generator = random.Random(seed)
    if kind == "poisson":
        return list(accumulate(generator.expovariate(1.0) for _ in range(count)))
    return _bursts(count, generator)


def _bursts(count: int, generator: random.Random) -> list[float]:
    slow = 1.0 / (
        2.0 - 1.0 / BURST_FACTOR
    )  # half of the arrivals in each state: mean interval (1/fast + 1/slow) / 2 = 1
    rates = (BURST_FACTOR, slow)
    intervals, state = [], 0
    for _ in range(count):
        intervals.append(generator.expovariate(rates[state]))
        if generator.random() < 1.0 / BURST_LENGTH:
            state = 1 - state
    return list(accumulate(intervals))


def replay(arrivals: Sequence[float], services: Sequence[float], servers: int = 1) -> list[float]:
    """Time in system of every request, served in order of arrival by the server that is free first.

    With one server this is Lindley's recursion W' = max(0, W + S - A) plus the service.
    """
    free = [0.0] * servers
    sojourns = []
    for arrival, service in zip(arrivals, services, strict=True):
        server = min(range(servers), key=free.__getitem__)
        free[server] = max(arrival, free[server]) + service
        sojourns.append(free[server] - arrival)
    return sojourns


def mm1_sojourn(rate: float, service: float) -> float:
    """Mean time in system of M/M/1: s / (1 - rho)."""
    return service / (1.0 - _utilisation(rate, service))


def md1_sojourn(rate: float, service: float) -> float:
    """Mean time in system of M/D/1: s + rho s / (2 (1 - rho))."""
    rho = _utilisation(rate, service)
    return service + rho * service / (2.0 * (1.0 - rho))


def mm2_sojourn(rate: float, service: float) -> float:
    """Mean time in system of M/M/2 with rho = rate s / 2: s / (1 - rho^2)."""
    rho = _utilisation(rate, service / 2.0)
    return service / (1.0 - rho * rho)


def dd_sojourn(rate: float, service: float, servers: int = 1) -> float:
    """Time in system of D/D/c: the service; with equal intervals and equal services nobody waits."""
    _utilisation(rate, service / servers)
    return service


def mg1_sojourn(rate: float, service: float, variation: float) -> float:
    """Mean time in system of M/G/1 (Pollaczek and Khinchine): s + rho s (1 + c^2) / (2 (1 - rho)).

    Args:
        rate: of arrivals.
        service: mean time.
        variation: standard deviation of the service time over its mean, c.
    """
    rho = _utilisation(rate, service)
    return service + rho * service * (1.0 + variation**2) / (2.0 * (1.0 - rho))


def mmc_sojourn(rate: float, service: float, servers: int) -> float:
    """Mean time in system of M/M/c by Erlang's C: s + C s / (c (1 - rho)), rho = rate s / c."""
    rho = _utilisation(rate, service / servers)
    return service + waiting_share(rate, service, servers) * service / (servers * (1.0 - rho))


def waiting_share(rate: float, service: float, servers: int) -> float:
    """Share of the arrivals that find every server of M/M/c busy: Erlang's C."""
    load = rate * service
    rho = _utilisation(rate, service / servers)
    blocked = 1.0
    for number in range(1, servers + 1):  # Erlang's B by its recursion
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1.0 - rho * (1.0 - blocked))


def mm1_quantile(rate: float, service: float, share: float) -> float:
    """The time in system that a share of the requests of M/M/1 stays within: -ln(1 - share) s / (1 - rho)."""
    return -math.log(1.0 - share) * mm1_sojourn(rate, service)


def batch_rate(most: int, fixed: float, each: float) -> float:
    """Requests per time of a server that answers `most` together in fixed + most x each."""
    return most / (fixed + most * each)


def _utilisation(rate: float, service: float) -> float:
    rho = rate * service
    if not 0 <= rho < 1:
        raise ValueError(f"utilisation {rho:g}: a queue has a mean time in system below 1 only")
    return rho


def in_system(arrivals: Sequence[float], finishes: Sequence[float]) -> list[tuple[float, int]]:
    """Moments and the number of requests in the system from then on."""
    changes = sorted([(time, 1) for time in arrivals] + [(time, -1) for time in finishes])
    number, steps = 0, []
    for time, change in changes:
        number += change
        steps.append((time, number))
    return steps


def mean_in_system(arrivals: Sequence[float], finishes: Sequence[float]) -> float:
    """Time average of the number in the system from the first arrival to the last finish.

    By Little's law this is the completed rate times the mean time in system.
    """
    steps = in_system(arrivals, finishes)
    area = sum(number * (later - time) for (time, number), (later, _) in pairwise(steps))
    span = steps[-1][0] - steps[0][0] if steps else 0.0
    return area / span if span > 0 else 0.0


@dataclass(frozen=True)
class Stability:
    """Whether a queue keeps up.

    Attributes:
        stable: see `stability`.
        answered_share: of all requests, those that were answered at all.
        left: requests that were in the system when the last one arrived.
        growth_per_s: how fast the number in system grew from the first third of the arrivals to the last.
    """

    stable: bool
    answered_share: float
    left: int
    growth_per_s: float


def stability(arrivals: Sequence[float], finishes: Sequence[float | None]) -> Stability:
    """Whether the number in the system stays where it is while requests arrive.

    A queue is unstable if less than 98 % of its requests are answered; or if at the last arrival at least ten of them
    and more than 2 % are still open, and there were twice as many in the last third of the arrivals as in the first. A
    short run of a busy but stable queue ends with some requests open by chance; that alone says nothing.

    Args:
        arrivals: seconds, ascending.
        finishes: seconds, in the order of the arrivals; None for what was never answered.
    """
    if not arrivals:
        return Stability(True, 1.0, 0, 0.0)
    ended = sorted(end for end in finishes if end is not None)
    seen = [index + 1 - bisect_right(ended, time) for index, time in enumerate(arrivals)]
    third = max(1, len(seen) // 3)
    early, late = (sum(part) / third for part in (seen[:third], seen[-third:]))
    span = (arrivals[-1] - arrivals[0]) * 2 / 3
    share, left = len(ended) / len(arrivals), seen[-1]
    grows = left >= OPEN and left > (1 - COMPLETED) * len(arrivals) and late > 2 * early
    growth = (late - early) / span if span > 0 else 0.0
    return Stability(share >= COMPLETED and not grows, share, left, growth)
