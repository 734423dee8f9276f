"""How many sessions a gate needs: the formula against simulated sessions, through the interval that the gate uses."""

import math

import numpy as np
import pytest

from bench.analysis.compare import compare
from bench.analysis.power import MOST, needed, power
from bench.statistics import difference_p, ratio_interval_welch
from tests.synthetic import record


@pytest.mark.parametrize(
    ("noise", "n", "difference", "rows"),
    [(0.01, 3, 0.05, 1), (0.03, 4, 0.10, 1), (0.03, 3, 0.10, 10), (0.02, 5, 0.05, 4)],
)
def test_the_formula_is_what_simulated_sessions_give(noise, n, difference, rows):
    generator = np.random.default_rng(7)
    draws, found = 1500, 0
    for _ in range(draws):
        before, after = (np.exp(generator.normal(0, noise, n)) * factor for factor in (1.0, 1 + difference))
        ratio = ratio_interval_welch(after.tolist(), before.tolist())
        found += difference_p(ratio, 0.02) * rows < 0.05 and ratio.value > 1
    expected = power(noise, n, difference, 0.02, rows=rows)
    assert found / draws == pytest.approx(expected, abs=0.04)  # three standard errors of the simulation


def test_what_is_needed_is_the_first_number_that_is_enough():
    for noise in (0.005, 0.02, 0.05):
        n = needed(noise, 0.10, 0.02)
        assert power(noise, n, 0.10, 0.02) >= 0.9
        assert n == 2 or power(noise, n - 1, 0.10, 0.02) < 0.9


def test_more_noise_more_rows_and_less_difference_need_more_and_none_is_found_within_the_margin():
    base = needed(0.03, 0.10, 0.02)
    assert needed(0.06, 0.10, 0.02) > base
    assert needed(0.03, 0.05, 0.02) > base
    assert needed(0.03, 0.10, 0.02, rows=20) > base
    assert needed(0.03, 0.01, 0.02) is None and needed(5.0, 0.10, 0.02) is None
    assert power(0.03, 1, 0.10, 0.02) == 0.0
    assert power(0.0, 2, 0.10, 0.02) == 1.0 and power(0.0, 2, 0.01, 0.02) == 0.0
    assert base <= MOST


def sessions(noise, count, start):
    """A side: sessions of one case that differ by this noise, in the clock and not in the reference GEMM."""
    generator, made = np.random.default_rng(start), []
    for number in range(count):
        host = math.exp(generator.normal(0, noise))
        own = record(latency_ms=40 * host, baseline_ms=40 * host, noise=0.0001, invocations=3, seed=number)
        own["timing"] = {**own["timing"], "session": f"s{start}{number}"}
        own["started_at"] = f"2026-01-01T00:{start:02}:{number:02}+00:00"
        made.append({**own, "content_hash": f"{start}{number}"})
    return made


def test_the_gate_says_when_it_has_too_few_sessions_and_is_silent_when_it_has_enough():
    quiet = compare(sessions(0.005, 4, 1), sessions(0.005, 4, 2))
    assert not any("too few" in note for note in quiet.notes)
    busy = compare(sessions(0.10, 4, 3), sessions(0.10, 4, 4))
    (note,) = [note for note in busy.notes if "too few" in note]
    assert "sessions to find 10 % more time nine times in ten".replace("10 %", "10%") in note and "and has 4" in note


def test_one_session_a_side_speaks_of_processes_and_of_what_it_does_not_see():
    a, b = (sessions(0.0, 1, start) for start in (5, 6))
    for side, factors in ((a, (1, 1.2, 0.9)), (b, (1.1, 0.85, 1))):
        for line, factor in zip(side[0]["timing"]["invocations"], factors, strict=True):
            line["median_ms"] *= factor
    (note,) = [note for note in compare(a, b).notes if "too few timed processes" in note]
    assert "alternate a and b" in note and "and has 3" in note
