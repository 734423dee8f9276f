"""The benchmarks of the instrument compute what their tables say; their times are not asserted on."""

from __future__ import annotations

import math
import time

import pytest

from perf import instrument, known, loops
from perf.instrument import Known, Twins


def test_a_busy_wait_lasts_at_least_its_time_and_gives_its_input_back() -> None:
    module = known.BusyWait(2_000_000)
    (x,) = module.example_inputs(3)
    start = time.perf_counter()
    assert module(x) is x
    assert time.perf_counter() - start >= 2e-3
    assert x.shape == (3, 1)


def test_the_loops_make_as_many_iterations_as_their_tools_do() -> None:
    calls: list[None] = []

    def step() -> None:
        calls.append(None)

    assert len(loops.timm(step)) == 40
    assert len(calls) == 50
    calls.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "_timed", lambda step: (step(), 900.0)[1])
        assert len(loops.optimum(step)) == 12  # eleven times 0.9 s is less than ten seconds
        patch.setattr(loops, "_timed", lambda step: (step(), 5000.0)[1])
        assert len(loops.optimum(step)) == 10  # ten iterations at least
    assert len(calls) == 10 + 12 + 10 + 10
    start = time.monotonic()
    times = loops.torch_timer(lambda: time.sleep(0.01))
    assert min(times) >= 10.0  # a block of several is given as the time of one
    assert time.monotonic() - start >= 0.2


def test_intervals_of_mean_and_median_are_the_textbooks() -> None:
    low, high = loops.mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5 / 5)  # t(0.975, 4) times the standard error
    assert (low, high) == pytest.approx((3.0 - half, 3.0 + half))
    # 95 % of the median over ten values: the second and the ninth (binomial tails 0.0107 each)
    assert loops.median_interval([float(i) for i in range(1, 11)]) == (2.0, 9.0)
    assert loops.median_interval([1.0, 2.0, 3.0]) == (0.0, math.inf)  # too few for any


def test_time_for_the_goal_is_the_repetitions_that_the_real_spread_asks_for() -> None:
    rows = [Twins("x", 0, math.exp(sign * 0.0303), 0.9, 1.1, 2.0) for sign in (1, -1)]
    error, repetitions, seconds = instrument.needed(rows)
    assert error == pytest.approx(math.expm1(1.96 * 0.0303))
    assert repetitions == 9  # (1.96 * 0.0303 / ln 1.02)^2 = 8.99
    assert seconds == pytest.approx(18.0)
    exact = [Twins("x", 0, 1.001, 0.9, 1.1, 2.0)]
    assert instrument.needed(exact)[1:] == (1, 2.0)  # never less than once


def test_tables_say_how_far_off_and_how_often_wrong() -> None:
    table = instrument.known_table(
        [Known("a", 1.0, 1.0012, 1.0005, 1.0019, 3.0), Known("b", 1.0, 0.9, 0.0, math.inf, 1.0)]
    )
    assert "| 1 ms | a | 1.0012 ms | +1.2 us (0.120 %) | [+0.5, +1.9] us | 3.0 |" in table
    assert "none: too few samples" in table
    twins = [Twins("a", 0, 1.0, 0.99, 1.01, 4.0), Twins("a", 1, 1.05, 1.03, 1.07, 6.0)]
    line = instrument.twins_table(twins).splitlines()[-1]
    assert line.startswith("| a | 2 | 50 % |")
    assert "| 5.0 |" in line
