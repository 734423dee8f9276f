"""Throughput and latency of several instances that run at once: pure, from the begin and end of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.statistics import Interval, log_mean_interval

#: Begin and end of each run of one instance in one window, in seconds of one clock for all.
Runs = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Together:
    """What so many instances did at once.

    Attributes:
        instances: how many.
        throughput: samples a second of all together, over rounds.
        latency_ms: median time of a run, over rounds.
        p99_ms: the 99th percentile of all runs of all rounds, in which runs of few samples have no tail.
        slowest_share: runs of the slowest instance over those of the mean one; 1 is fair.
        runs: counted.
    """

    instances: int
    throughput: Interval
    latency_ms: Interval
    p99_ms: float
    slowest_share: float
    runs: int


def rate(windows: Sequence[Runs], start: float, seconds: float, batch: int) -> float:
    """Samples a second of all instances in one window; a run that ends after it counts by the part inside."""
    end = start + seconds
    done = 0.0
    for runs in windows:
        for begin, finish in runs:
            inside = min(finish, end) - max(begin, start)
            done += max(inside, 0.0) / (finish - begin) if finish > begin else 1.0
    return done * batch / seconds


def together(rounds: Sequence[tuple[Sequence[Runs], float, float]], batch: int) -> Together:
    """The summary of rounds, each the runs of every instance, the window's start and its length.

    Raises:
        ValueError: an instance finished no run.
    """
    rates: list[float] = []
    medians: list[float] = []
    every: list[float] = []
    shares: list[float] = []
    for windows, start, seconds in rounds:
        times = [[1e3 * (finish - begin) for begin, finish in runs] for runs in windows]
        if not all(times):
            raise ValueError("an instance finished no run in its window; give longer windows")
        rates.append(rate(windows, start, seconds, batch))
        medians.append(float(np.median(np.concatenate(times))))
        counts = [len(one) for one in times]
        shares.append(min(counts) / (sum(counts) / len(counts)))
        every.extend(value for one in times for value in one)
    return Together(
        instances=len(rounds[0][0]),
        throughput=log_mean_interval(rates),
        latency_ms=log_mean_interval(medians),
        p99_ms=float(np.quantile(every, 0.99)),
        slowest_share=min(shares),
        runs=len(every),
    )
