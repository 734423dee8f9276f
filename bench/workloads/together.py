"""Requests that are answered several at a time: a server takes what has come, waits a little for more, and runs once.

Dynamic batching: the server takes the first waiting request, then what arrives within its window, at most so many;
what can be done for one request alone is done as soon as it is taken, the rest for all of them at once. With a batch
cost a + cB the saturated rate is B / (a + cB); at low load nobody waits for longer than the window.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.workloads import open_loop
from bench.workloads.open_loop import OpenLoop
from bench.workloads.queueing import Arrivals
from bench.workloads.workload import Clock


@dataclass(frozen=True)
class Together:
    """A server of batches.

    Attributes:
        each: what is done for request i alone.
        answer: what is done for several at once, given what `each` gave for them.
        most: requests of one batch.
        window_s: seconds that the first of a batch waits for others at most.
    """

    each: Callable[[int], Any]
    answer: Callable[[list[Any]], Any]
    most: int
    window_s: float


def run(
    server: Together,
    rate: float,
    *,
    count: int,
    seed: int,
    kind: Arrivals = "poisson",
    clock: Clock = time.perf_counter_ns,
    wait_until: Callable[[int, Clock], None] = open_loop.spin_until,
    seconds: float = open_loop.MOST_SECONDS,
) -> OpenLoop:
    """One open loop of arrivals at a server of batches; arguments as of `open_loop.run`."""
    scheduled = open_loop.schedule(rate, count, seed, kind, seconds)
    limit = (scheduled[-1] if scheduled else 0.0) + open_loop.DRAIN_SECONDS
    started: list[float | None] = []
    finished: list[float | None] = []
    spans: list[tuple[float, float]] = []
    begin = clock()

    def now() -> float:
        return (clock() - begin) / 1e9

    while len(started) < len(scheduled) and now() <= limit:
        wait_until(begin + int(scheduled[len(started)] * 1e9), clock)
        first = now()
        values = list[Any]()
        while True:
            started.append(now())
            values.append(server.each(len(started) - 1))
            due = scheduled[len(started)] if len(started) < len(scheduled) else None
            until, another = _next(server, first, len(values), due, now())
            if until is not None:
                wait_until(begin + int(until * 1e9), clock)
            if not another:
                break
        server.answer(values)
        end = now()
        finished += [end] * len(values)
        spans.append((first, end))
    missing: list[float | None] = [None] * (len(scheduled) - len(finished))
    return OpenLoop(rate, scheduled, started + missing, finished + missing, spans=spans)


def _next(server: Together, first: float, held: int, due: float | None, now: float) -> tuple[float | None, bool]:
    """Until when the server waits, None for not at all, and whether another request then belongs to the batch.

    Args:
        server: of batches.
        first: when its first request was taken.
        held: requests that it has.
        due: when the next one is scheduled, None where there is none.
        now: the moment.
    """
    if held >= server.most:
        return None, False
    if due is not None and due <= now:
        return None, True
    end = first + server.window_s
    if due is not None and due <= end:
        return due, True
    return (end if end > now else None), False


def mean_together(loop: OpenLoop) -> float:
    """Requests of a batch, mean over batches."""
    assert loop.spans is not None
    return sum(end is not None for end in loop.finished) / max(1, len(loop.spans))
