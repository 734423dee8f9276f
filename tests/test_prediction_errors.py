"""Errors of predicted costs: known cases, definitions by other means, and what is not defined is None."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import prediction_errors as errors

COSTS = st.lists(st.floats(0.01, 1e4), min_size=3, max_size=12)


def test_the_printed_cases_hold():
    assert round(errors.smape([100, 200], [110, 180]), 6) == 10.025063
    assert errors.smape([0.0, 0.0, 0.0], [1.2, 0.3, 1.0]) == 200.0  # no offset in the denominator
    assert errors.smape([0.0, 5.0], [0.0, 5.0]) == 0.0


def test_measures_by_hand():
    y, p = [1.0, 2.0, 4.0], [2.0, 2.0, 2.0]
    assert errors.mape(y, p) == pytest.approx(100 * (1 + 0 + 0.5) / 3)
    assert errors.rmse(y, p) == pytest.approx(math.sqrt(5 / 3))
    assert errors.r2(y, p) == pytest.approx(1 - 5 / (14 / 3))
    assert errors.r2(y, [p - 100 for p in y]) < -1000  # never clipped
    assert errors.p75_abs_rel_error(y, p) == pytest.approx(75.0)
    assert errors.bias_percent([1, 1], [2, 2]) == pytest.approx(100) and errors.spread_percent([1, 1], [2, 2]) == 0
    assert errors.bias_percent([1, 1], [2, 0.5]) == pytest.approx(0)
    assert errors.spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert errors.kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(2 / 3)


def test_the_regret_is_of_the_network_that_would_be_chosen():
    assert errors.top1_regret([3.0, 2.0, 5.0], [1.0, 2.0, 3.0]) == 1.5
    assert errors.top1_regret([3.0, 2.0], [1.0, 1.0]) == 1.25  # nothing chooses: the mean of both


def test_what_is_not_defined_is_none():
    assert errors.mape([0.0, 1.0], [1.0, 1.0]) is None and errors.r2([2.0, 2.0], [1.0, 3.0]) is None
    assert errors.spearman([1.0, 2.0], [3.0, 3.0]) is None and errors.r2_log([0.0, 1.0], [1.0, 1.0]) is None
    assert errors.bias_percent([1.0], [0.0]) is None and errors.ceiling([[1.0]]) is None
    for bad in (([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0])):
        with pytest.raises(ValueError):
            errors.mape(*bad)


@given(COSTS, st.floats(0.1, 10))
@settings(deadline=None, max_examples=30)
def test_a_common_factor_changes_neither_relative_errors_nor_ranks(costs, factor):
    noise = np.random.default_rng(0).uniform(0.5, 2, len(costs))
    predicted = [c * n for c, n in zip(costs, noise, strict=True)]
    for name in ("mape", "smape", "spread_percent", "top1_regret", "p75_abs_rel_error"):
        one = errors.MEASURES[name](costs, predicted)
        other = errors.MEASURES[name]([c * factor for c in costs], [p * factor for p in predicted])
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9)
    assert errors.smape(costs, predicted) <= 200


def test_intervals_hold_the_value_and_are_seeded(monkeypatch):
    monkeypatch.setattr(errors, "RESAMPLES", 200)
    rng = np.random.default_rng(3)
    y = rng.uniform(1, 10, 40)
    p = y * rng.lognormal(0, 0.2, 40)
    once, again = (errors.estimates(y, p, seed=5) for _ in range(2))
    assert once == again
    for name in ("mape", "smape", "spearman", "bias_percent"):
        found = once[name]
        assert found.low < found.value < found.high and found.n == 40
    assert errors.estimates(y[:2], p[:2])["mape"].low is None


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, inside = 100 * math.sqrt(2 / math.pi) * 0.1, 0
    for trial in range(60):
        p = 1 + 0.1 * rng.standard_normal(60)
        found = errors.estimates(np.ones(60), p, trial, ("mape",))["mape"]
        inside += found.low <= truth <= found.high
    assert inside >= 50  # of 60; the percentile bootstrap is a little narrow


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_the_ceiling_is_the_error_of_measuring_again_as_often(processes):
    rng = np.random.default_rng(1)
    true = rng.uniform(1, 10, 2000)
    once, again = (true[:, None] * np.exp(0.05 * rng.standard_normal((2000, processes))) for _ in range(2))
    means = [np.exp(np.log(runs).mean(axis=1)) for runs in (once, again)]
    assert errors.ceiling(once.tolist()) == pytest.approx(errors.mape(*means), rel=0.05)


def test_what_repeats_has_no_ceiling_above_zero():
    assert errors.ceiling([[2.0, 2.0], [3.0, 3.0, 3.0]]) == pytest.approx(0)
    assert errors.repeatability([1.0, 1.1, 0.9]) == pytest.approx(0.1) and errors.repeatability([1.0]) is None
