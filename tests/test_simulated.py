"""The simulation draws what it says, stops where the driver would, and tells coverage, bias and power rightly."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.session import decide
from bench.statistics import Interval
from perf import rules, simulated
from perf.rules import CHANGES, QUICK, RULES, STANDARD, TOGETHER, VERSION_1, VERSION_2
from perf.scatter import components
from perf.simulated import Answer, simulate
from perf.worlds import BASELINE, BY_5, BY_10, CASES, PRODUCT, SAME, TWIN, WORLDS, World, draw


@pytest.fixture(autouse=True)
def few_processes_for_the_truth(monkeypatch):
    monkeypatch.setattr(simulated, "FOR_TRUTH", 2000)


NOISY = World("noisy", iteration=0.02, wander=0.0, shared_wander=0.0, host=0.03, own=0.01, slope=0.5)


def test_a_world_has_the_components_that_it_says():
    """The estimators of recorded samples find them again, of times and of ratios, and the product's share of them."""
    times = draw(NOISY, np.random.default_rng(1), 1, 600, 40, 0.0)
    found = components(list(times[SAME][0]))
    assert found.iteration == pytest.approx(0.02, rel=0.05)
    assert found.process == pytest.approx(math.hypot(0.03, 0.01), rel=0.1)
    ratio = components(list(times[SAME][0] - times[TWIN][0]))
    assert ratio.process == pytest.approx(0.01 * math.sqrt(2), rel=0.1)
    product = components(list(times[PRODUCT][0]))
    assert product.process == pytest.approx(math.hypot(0.5 * 0.03, 0.01), rel=0.1)
    assert np.mean(times[BY_10] - times[BASELINE]) == pytest.approx(math.log(1.1), abs=0.003)


@pytest.mark.parametrize("tails", [math.inf, 4.0])
def test_wander_and_heavy_tails_keep_their_standard_deviation(tails):
    world = World("wander", iteration=1e-9, wander=0.02, shared_wander=0.0, host=0.05, own=0.0, tails=tails, rounds=5.0)
    times = draw(world, np.random.default_rng(2), 50, 20, 60, 0.0)[BASELINE]
    assert times.mean(axis=2).std() == pytest.approx(0.05, rel=0.15)
    inside = times - times.mean(axis=2, keepdims=True)
    assert inside.std() == pytest.approx(0.02, rel=0.15)
    neighbours = np.mean(inside[..., 1:] * inside[..., :-1]) / np.mean(inside**2)
    assert neighbours == pytest.approx(math.exp(-1 / 5), abs=0.06)


def invocation(values, number):
    def part(name):
        return {"latency_ms": [float(np.exp(values[name][0, number]))], "preempted": [False]}

    return {"cases": {name: part(name) for name in CASES}, "twin": part(TWIN), "seconds": 1.0, "index": number}


@pytest.mark.parametrize("rule", [QUICK, STANDARD, *VERSION_2[1:]], ids=lambda rule: rule.name)
def test_a_protocol_stops_where_the_driver_stops(rule):
    rng = np.random.default_rng(3)
    ended = set()
    for sd in (0.0002, 0.001, 0.004, 0.008, 0.012, 0.02, 0.1):
        of_one_round = {name: rng.normal(0, sd, (1, 20, 1)) for name in (*CASES, TWIN, PRODUCT)}
        values = rules.middles(rule, of_one_round)
        taken = int(rules.processes_taken(rule, values, np.ones((1, 20)))[0])
        done = [invocation(values, number) for number in range(20)]
        driver = next(n for n in range(1, 21) if decide(done[:n], CASES, BASELINE, rule.latency).done)
        assert taken == driver
        ended.add(taken)
    assert len(ended) > 1


def test_the_budget_ends_a_session():
    values = {name: np.random.default_rng(4).normal(0, 0.5, (1, 10)) for name in (*CASES, TWIN, PRODUCT)}
    assert rules.processes_taken(STANDARD, values, np.full((1, 10), 130.0))[0] == 7  # 900 s after the seventh
    assert rules.processes_taken(STANDARD, values, np.full((1, 10), 1.0))[0] == 10


def test_seconds_are_those_of_the_parameters():
    """quick: start, six warm-ups of 1 s, 50 samples of 10 ms each, three windows of 0.1 s for five, 7 x 2 passes."""
    world = World("w", ms=10.0)
    seconds = rules.seconds_of(QUICK, world, rules.fixed_warm_s(QUICK, world), 50, (1, 4))
    assert seconds == pytest.approx(np.full((1, 4), 0.36 + 6 * 1.0 + 6 * 0.5 + 5 * 3 * 0.1 + 4 * 14 * 0.01))
    once = rules.seconds_of(replace(QUICK, windows=1, layers=1), world, 1.0, 50, (1, 4))
    assert once[0, 0] == seconds[0, 0] and once[0, 1:] == pytest.approx(np.full(3, 0.36 + 6.0 + 3.0))


def test_a_row_tells_coverage_bias_and_what_was_found():
    """Four sessions by hand: 5 of 12 ratios are covered, and half of the networks 5 % slower are found."""
    wide, narrow, far = Interval(1.01, 0.98, 1.05, 3), Interval(1.01, 1.005, 1.015, 3), Interval(0.9, 0.89, 0.905, 3)
    slow = Interval(0.95, 0.94, 0.96, 3)
    made = [
        Answer({SAME: same, BY_5: by_5, BY_10: far}, wide, wide, 3, 8.0)
        for same, by_5 in ((wide, slow), (wide, slow), (wide, wide), (narrow, wide))
    ]
    row = simulated.told(QUICK, NOISY, made, math.log(2.0))
    assert (row.processes, row.seconds) == (3, 2.0)
    assert (row.differs, row.false) == (0.25, 0.0)
    assert (row.found_5, row.found_10) == (0.5, 1.0)
    assert row.time_coverage == 0.0 and row.coverage == pytest.approx(5 / 12)
    factors = [1.01] * 4 + [0.95 * 1.05] * 2 + [1.01 * 1.05] * 2 + [0.9 * 1.1] * 4
    errors = np.log(factors)
    assert row.error == pytest.approx(math.expm1(1.96 * math.sqrt(np.mean(np.square(errors)))))
    assert row.bias == pytest.approx(np.mean(errors) / math.log1p(row.half_width))
    assert row.seconds_for(row.error) == row.seconds and row.seconds_for(row.error / 1.99) == 4 * row.seconds
    assert "| quick | 41.7 to 41.7 % |" in simulated.over_worlds([row])


def test_quick_keeps_its_word_where_scatter_is_plain_and_the_same_seed_gives_the_same_row():
    row = simulate(QUICK, NOISY, 200, seed=5)
    assert row == simulate(QUICK, NOISY, 200, seed=5) != simulate(QUICK, NOISY, 200, seed=6)
    assert 0.91 <= row.coverage <= 0.99 and abs(row.bias) < 0.2
    assert 0.91 <= row.time_coverage <= 0.99
    assert row.error < row.half_width and row.found_5 < row.found_10


def test_a_start_that_is_not_over_is_in_the_bias_of_times():
    world = replace(NOISY, host=0.001, own=0.001, iteration=0.001, start_up=(0.2, 0.5))
    cold = QUICK.but("cold", {"warmup_s": 0.0, "warmup_iterations": 1})
    warm = QUICK.but("warm", {"warmup_s": 5.0})
    assert simulate(cold, world, 100).time_bias > 5
    assert abs(simulate(warm, world, 100).time_bias) < 1


def test_version_2_plans_with_the_drivers_own_function_and_keeps_full_rounds_where_there_are_bursts():
    quick, world = VERSION_2[1], World("w", iteration=0.006, wander=0.0, shared_wander=0.0, host=0.01, own=0.002)
    row = simulate(quick, world, 100, seed=8)
    assert (
        row.coverage >= 0.9 and row.time_coverage >= 0.88 and row.seconds < simulate(QUICK, world, 20, seed=8).seconds
    )
    rng = np.random.default_rng(9)
    for bursts, fewer in ((0.0, True), (0.02, False)):
        these = replace(world, bursts=(bursts, 5.0, 0.3))
        times = draw(these, rng, 20, 3, rules.drawn_rounds(quick, these), 1.0)
        _, rounds = rules.said(quick, these, times, 0.16)
        assert (np.mean(rounds[:, 1] < quick.latency.samples) > 0.5) == fewer


def test_candidates_are_honest_in_a_plain_world():
    for rule in (*CHANGES[1:], TOGETHER[1]):
        row = simulate(rule, NOISY, 50, seed=7)
        assert row.coverage >= 0.88 and row.time_coverage >= 0.86, rule.name
        assert rule.latency.invocations <= row.processes <= rule.latency.max_invocations


def test_names_are_names(tmp_path, capsys):
    assert len({rule.name for rule in RULES}) == len(RULES) and len({world.name for world in WORLDS}) == len(WORLDS)
    assert [rule.name for rule in VERSION_1] == ["glance", "quick", "standard", "publish"]
    assert [rule.name for rule in VERSION_2] == [f"v2/{rule.name}" for rule in VERSION_1]
    file = tmp_path / "rows.json"
    words = ["--runs", "3", "--rules", "glance", "v2/quick", "--worlds", "quiet", "--json", str(file)]
    assert simulated.main(words) == 0
    out = capsys.readouterr().out
    assert "\n| glance | quiet | 1.0 |" in out and "\n| v2/quick | quiet |" in out
    assert [row["rule"] for row in json.loads(file.read_text())] == ["glance", "v2/quick"]
