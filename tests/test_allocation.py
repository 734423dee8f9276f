"""Processes and iterations of least cost, warm-ups and controls: numbers worked out by hand, laws, and coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.allocation import (
    LEAST_ITERATIONS,
    Costs,
    Slope,
    best_iterations,
    cheapest,
    cochran_df,
    common_warm_up,
    controlled,
    expected_half_width,
    more_iterations_help,
    ratio_by_rounds,
    ratio_with_twin,
    warm_up_needed,
    within_of,
    within_variance,
)
from bench.statistics import log_mean_interval, ratio_interval_paired

COSTS = Costs(process_s=4.0, iteration_s=0.01)
variances = st.floats(1e-8, 1e-2)
few = st.lists(st.integers(50, 200).map(lambda hundredths: hundredths / 100), min_size=3, max_size=10)


def test_numbers_worked_out_by_hand():
    assert within_variance(0.02, 0.01) == pytest.approx(0.000628318 + 0.001, rel=1e-5)
    assert best_iterations(0.01, 0.0001, COSTS) == pytest.approx(200)  # sqrt(4 / 0.01 * 0.01 / 0.0001)
    assert best_iterations(0.01, 0.0, COSTS) == math.inf
    # t(0.975, 4) = 2.776445: exp(2.776445 * sqrt((0.0001 + 0.01 / 100) / 5)) - 1
    assert expected_half_width(0.01, 0.0001, 5, 100) == pytest.approx(math.expm1(2.776445 * math.sqrt(4e-5)), rel=1e-6)
    assert more_iterations_help(0.01, 0.0001, 800) and not more_iterations_help(0.01, 0.0001, 1000)


def test_the_cheapest_plan_is_the_cheapest_of_all_that_are_enough():
    plan = cheapest(0.01, 0.0001, COSTS, 0.02)
    tried = [
        (n * (COSTS.process_s + m * COSTS.iteration_s), n, m)
        for n in range(3, 21)
        for m in range(LEAST_ITERATIONS, 1001)
        if expected_half_width(0.01, 0.0001, n, m) <= 0.02
    ]
    assert (plan.seconds, plan.processes, plan.iterations) == pytest.approx(min(tried)) and plan.reached
    with pytest.raises(ValueError, match="no plan of 1 to 20"):
        cheapest(0.01, 0.0001, COSTS, 0.02, least=1)


@settings(max_examples=60, deadline=None)
@given(variances, variances, st.floats(0.002, 0.2))
def test_a_plan_keeps_its_word_and_a_wider_goal_never_costs_more(within, between, goal):
    plan, wider = (cheapest(within, between, COSTS, width) for width in (goal, 1.5 * goal))
    assert plan.seconds == pytest.approx(plan.processes * (4.0 + 0.01 * plan.iterations))
    assert plan.half_width == expected_half_width(within, between, plan.processes, plan.iterations)
    assert not plan.reached or plan.half_width <= goal * (1 + 1e-9)
    assert not plan.reached or wider.seconds <= plan.seconds


def test_w_comes_back_from_blocks():
    medians = np.random.default_rng(1).normal(0, 0.02, (4000, 10))
    assert within_of(medians).mean() == pytest.approx(8 * 0.02**2, rel=0.03)


@pytest.mark.parametrize(
    ("size", "length", "least", "most"),
    [(0.0, 1.0, 16, 26), (0.05, 3.0, 16, 26), (0.1, 10.0, 24, 60), (0.2, 30.0, 140, 150)],
)
def test_a_warm_up_is_as_long_as_times_fall(size, length, least, most):
    """Nothing to wait for, falls that are over soon, one that lasts; noise of 1 % in each of 2000 warm-ups."""
    logs = np.random.default_rng(2).normal(0, 0.01, (2000, 100)) + size * np.exp(-np.arange(100) / length)
    needed = warm_up_needed(logs)
    assert least <= needed.mean() <= most
    left = size * np.exp(-needed / length)
    assert np.quantile(left, 0.9) < 0.01  # of what noise an iteration has
    assert (warm_up_needed(logs + 3.0) == needed).all()  # in whatever unit
    assert (warm_up_needed(logs[:, :20]) == 20).all()  # too short to say anything


@pytest.mark.parametrize(
    ("falls", "least", "most"),
    [(np.zeros(8), 16, 22), (np.full(8, 0.1), 24, 70), (np.array([0.2, *[0.0] * 7]), 28, 90)],
    ids=["nothing to wait for", "all start slowly", "one of eight does"],
)
def test_all_members_warm_up_as_long_as_all_together_or_one_alone_needs(falls, least, most):
    """Noise of 1 % of an iteration, falls that take ten slices to two thirds, 500 processes of eight members; a member
    for itself would find a fall where there is none in one process of four.
    """
    start = falls[:, None] * np.exp(-np.arange(100) / 10)
    logs = np.random.default_rng(4).normal(0, 0.01, (500, 8, 100)) + start
    needed = common_warm_up(logs)
    assert needed.shape == (500,) and least <= needed.mean() <= most
    assert np.quantile(falls.max() * np.exp(-needed / 10), 0.9) < 0.012
    assert (common_warm_up(logs + np.arange(8)[:, None]) == needed).all()  # of members of any length


def test_a_ratio_by_rounds_by_hand():
    """Rounds of 10, 12 and 30 beside 5, 4 and 10: ratios of 2, 3 and 3; medians of 12 and 5 say 2.4. With a twin of 40,
    12 and 30 the first round's is sqrt(400) over 5.
    """
    base, twin, case = (np.log([10.0, 12.0, 30.0]), np.log([40.0, 12.0, 30.0]), np.log([5.0, 4.0, 10.0]))
    assert math.exp(ratio_by_rounds(base[None], case)) == pytest.approx(3.0)
    assert math.exp(ratio_by_rounds(np.array([base, twin]), case)) == pytest.approx(3.0)
    assert math.exp(ratio_by_rounds(np.array([base, twin]), case + np.log([1.0, 2.0, 4.0]))) == pytest.approx(1.5)


def test_what_slows_a_whole_round_is_in_no_ratio_by_rounds():
    rng = np.random.default_rng(5)
    slow = np.where(rng.random((400, 50)) < 0.5, 0.4, 0.0) + rng.exponential(0.2, (400, 50))  # two states, a long tail
    base, case = (level + slow + rng.normal(0, 0.01, (400, 50)) for level in (0.0, -0.3))
    by_rounds, by_medians = ratio_by_rounds(base[None], case), np.median(base, axis=1) - np.median(case, axis=1)
    assert by_rounds.mean() == pytest.approx(0.3, abs=0.001)
    # sqrt(pi / 2) 0.01 sqrt(2 / 50)
    assert by_rounds.std() == pytest.approx(0.0025, rel=0.15) and by_medians.std() > 1.5 * by_rounds.std()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0.5, 2.0)] * 3), min_size=2, max_size=8))
def test_baseline_and_twin_are_the_same_to_the_ratio(rows):
    base, twin, case = map(list, zip(*rows, strict=True))
    one, other = ratio_with_twin(base, twin, case), ratio_with_twin(twin, base, case)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    alone, plain = ratio_with_twin(base, base, case), ratio_interval_paired(base, case)
    assert (alone.value, alone.low, alone.high) == pytest.approx((plain.value, plain.low, plain.high))


def test_a_twin_takes_a_quarter_of_the_variance():
    """Own levels of equal variance: of 2 there are 3 / 2 left, in the mean over many sessions of five processes."""
    rng = np.random.default_rng(3)
    sides = np.exp(rng.normal(0, 0.02, (2000, 3, 5)))
    plain = [ratio_interval_paired(base, case) for base, _, case in sides]
    helped = [ratio_with_twin(base, twin, case) for base, twin, case in sides]
    left = np.mean([one.se**2 for one in helped]) / np.mean([one.se**2 for one in plain])
    assert left == pytest.approx(0.75, abs=0.03)
    assert np.mean([one.low <= 1 <= one.high for one in helped]) == pytest.approx(0.95, abs=0.015)


@settings(max_examples=40, deadline=None)
@given(few, st.floats(0.1, 10), st.floats(0.0, 2.0))
def test_no_slope_is_no_control_and_the_unit_of_the_product_tells_nothing(values, unit, slope):
    products, elsewhere = [1.1 * value for value in values], [0.9, 1.2, 1.0, 1.3]
    plain, without = log_mean_interval(values), controlled(values, products, elsewhere, Slope(0.0))
    assert (without.value, without.low, without.high) == pytest.approx((plain.value, plain.low, plain.high), rel=1e-6)
    one = controlled(values, products, elsewhere, Slope(slope, 0.5))
    other = controlled(values, [unit * x for x in products], [unit * x for x in elsewhere], Slope(slope, 0.5))
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-6)


def test_a_control_by_hand():
    """y = (0, .1, .2), x = (0, .1, .2), u = (.2, .4): a slope of one leaves nothing but what the others vary."""
    found = controlled(*(np.exp(side).tolist() for side in ([0.0, 0.1, 0.2], [0.0, 0.1, 0.2], [0.2, 0.4])), Slope(1.0))
    assert math.log(found.value) == pytest.approx(0.1 + (0.3 - 0.1))
    assert found.se == pytest.approx(0.1) and found.df == pytest.approx(1)  # sqrt(0.02 / 2), one degree of freedom
    # t(0.975) with 2 and 9 degrees of freedom is 4.302653 and 2.262157
    assert stats.t.ppf(0.975, cochran_df([1.0, 1.0], [2, 9])) == pytest.approx((4.302653 + 2.262157) / 2, rel=1e-6)
    with pytest.raises(ValueError, match="needs 3 pairs and 2 more"):
        controlled([1.0, 1.1], [1.0, 1.1], [1.0, 1.0], Slope(1.0))


@pytest.mark.parametrize("sd", [0.0, 0.3, math.inf])
@pytest.mark.parametrize("n", [3, 10])
def test_controlled_intervals_cover_while_slopes_differ_from_case_to_case(sd, n):
    rng, held, width, plain, runs = np.random.default_rng(4), 0, [], [], 600
    for _ in range(runs):
        slope = 1.4 + 0.3 * rng.normal()
        x, u = rng.normal(0, 0.07, n), rng.normal(0, 0.07, 24)
        y = slope * x + rng.normal(0, 0.03, n)
        found = controlled(np.exp(y), np.exp(x), np.exp(u), Slope(1.4, sd))
        held += found.low <= 1 <= found.high
        width.append(math.log(found.high / found.low))
        plain.append(log_mean_interval(np.exp(y)).half_width)
    assert 0.93 <= held / runs <= 0.985
    if sd < math.inf or n > 3:
        assert np.mean(width) / 2 < 0.8 * np.mean(plain)
