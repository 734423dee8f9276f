"""Throughput of several instances: runs on the edge count by their part, rounds give the interval."""

import pytest

from bench.analysis.instances import rate, together


def test_a_run_on_the_edge_counts_by_the_part_inside():
    # two instances, a window of one second from 10: 2.5 runs and 2 runs, each of 4 samples
    one = [[10.0, 10.4], [10.4, 10.8], [10.8, 11.2]]
    two = [[10.0, 10.5], [10.5, 11.0]]
    assert rate([one, two], 10.0, 1.0, batch=4) == pytest.approx(4 * (2.5 + 2.0))


def test_rounds_give_the_interval_and_every_run_the_tail():
    def window(ms, runs=10):
        return [[i * ms / 1e3, (i + 1) * ms / 1e3] for i in range(runs)]

    rounds = [([window(100), window(100)], 0.0, 1.0), ([window(50, 20), window(100)], 0.0, 1.0)]
    found = together(rounds, batch=1)
    assert found.instances == 2 and found.runs == 50
    assert found.throughput.value == pytest.approx((20 * 30) ** 0.5)
    assert found.throughput.low < 20 and found.throughput.high > 30
    assert found.slowest_share == pytest.approx(10 / 15) and found.p99_ms == pytest.approx(100)


def test_an_instance_without_a_run_is_no_zero():
    with pytest.raises(ValueError, match="no run"):
        together([([[], [[0.0, 0.1]]], 0.0, 1.0)], batch=1)
