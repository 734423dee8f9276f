import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.pareto import (
    Candidate,
    Estimate,
    Objective,
    front_probability,
    hypervolume,
    pareto,
    staircase,
    undominated_pairs,
    undominated_points,
)

AXES = (Objective("latency_ms", "lower"), Objective("accuracy", "higher"))


def row(name, latency, accuracy, n=5):
    (l0, l1, l2), (a0, a1, a2) = latency, accuracy
    return Candidate(name, (Estimate(l1, l0, l2, n), Estimate(a1, a0, a2, 50_000)))


ORACLE = [
    row("A", (0.9, 1, 1.1), (69.5, 70, 70.5)),
    row("B", (1.9, 2, 2.1), (74.5, 75, 75.5)),
    row("C", (2, 2.2, 2.4), (74.4, 74.9, 75.4)),
    row("D", (3.8, 4, 4.2), (72, 72.5, 73)),
    row("E", (3.9, 4.1, 4.3), (77.5, 78, 78.5)),
]
POINTS = [(r.estimates[0].value, r.estimates[1].value) for r in ORACLE]


def plain(name, *values):
    return Candidate(name, tuple(Estimate(v, exact=True) for v in values))


def test_oracle_front_plausible_and_certified_dominated():
    placed = {p.name: p for p in pareto(ORACLE, AXES)}
    assert {n: p.standing for n, p in placed.items()} == {
        "A": "front",
        "B": "front",
        "C": "plausible",
        "D": "certified-dominated",
        "E": "front",
    }
    assert placed["D"].certified_by == ("B", "C") == placed["D"].dominated_by
    assert placed["C"].dominated_by == ("B",) and placed["C"].certified_by == ()


@pytest.mark.parametrize("seed", range(5))
def test_oracle_probability_of_the_front(seed):
    chance = {p.name: p.p_front for p in pareto(ORACLE, AXES, draws=40_000, seed=seed)}
    expected = {"A": 1.0, "B": 0.985, "C": 0.415, "D": 0.0, "E": 1.0}
    assert chance == pytest.approx(expected, abs=0.01)


def test_oracle_hypervolume_and_staircase():
    assert hypervolume(POINTS, ("lower", "higher"), (5.0, 65.0)) == pytest.approx(37.7)
    xs, ys = staircase(POINTS, ("lower", "higher"))
    assert list(zip(xs, ys, strict=True)) == [(1, 70), (2, 70), (2, 75), (4.1, 75), (4.1, 78)]


def test_same_seed_gives_the_same_probability():
    assert front_probability(ORACLE, AXES, seed=3) == front_probability(ORACLE, AXES, seed=3)


def test_exact_ties_stay_on_the_front_together():
    placed = pareto([plain("a", 1, 70), plain("b", 1, 70), plain("c", 2, 70)], AXES)
    assert [p.standing for p in placed] == ["front", "front", "plausible"]
    assert [p.p_front for p in placed] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("weak", [Estimate(4.0), Estimate(4.0, 3.9, 4.1, 2), Estimate(4.0, 3.9, None, 5)])
def test_row_without_a_good_interval_is_never_certified_and_certifies_nobody(weak):
    slow = Candidate("slow", (weak, Estimate(60.0, 59, 61, 450)))
    placed = pareto([*ORACLE, slow], AXES)[-1]
    assert placed.standing == "plausible" and "certified" in placed.note
    best = Candidate("best", (Estimate(0.1, n=1), Estimate(99.0, 98.9, 99.1, 450)))
    standings = [p.standing for p in pareto([*ORACLE, best], AXES)]
    assert standings[:3] == ["plausible"] * 3 and standings[3] == "certified-dominated"


def test_nan_is_excluded_and_listed_with_its_reason():
    placed = pareto([*ORACLE, Candidate("X", (Estimate(math.nan), Estimate(99.0)))], AXES)
    assert (placed[-1].standing, placed[-1].p_front, placed[-1].note) == ("excluded", None, "no value for latency_ms")
    assert [p.standing for p in placed[:3]] == ["front", "front", "plausible"]


def test_any_number_of_objectives_and_directions():
    axes = (*AXES, Objective("params", "lower"))
    placed = pareto([plain("a", 1, 70, 5), plain("b", 2, 69, 4), plain("c", 2, 69, 6)], axes)
    assert [p.standing for p in placed] == ["front", "front", "certified-dominated"]


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="2000 draws"):
        pareto(ORACLE, AXES, draws=100)
    with pytest.raises(ValueError, match="one per objective"):
        pareto([plain("a", 1)], AXES)
    assert pareto([], AXES) == []


def test_hypervolume_ignores_what_does_not_improve_on_the_reference():
    assert hypervolume([(6.0, 99.0), (1.0, 60.0), (math.nan, 1.0)], ("lower", "higher"), (5.0, 65.0)) == 0.0
    assert hypervolume([(70, 1), (75, 2)], ("higher", "lower"), (65, 5)) == pytest.approx(35.0)


COORDINATES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12)


def is_dominated(p, others):
    return any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in others)


@given(COORDINATES)
@settings(deadline=None)
def test_front_is_what_nobody_dominates(points):
    placed = pareto([plain(str(i), *p) for i, p in enumerate(points)], AXES, draws=2000)
    for p, found in zip(points, placed, strict=True):
        assert (found.standing == "front") == (not is_dominated(p, points))
        assert found.p_front == float(not is_dominated(p, points))


@given(COORDINATES)
@settings(deadline=None)
def test_hypervolume_counts_the_dominated_cells(points):
    cells = sum(any(x <= i and y >= j + 1 for x, y in points) for i in range(9) for j in range(9))
    assert hypervolume(points, ("lower", "higher"), (9, 0)) == pytest.approx(cells)


@given(COORDINATES)
@settings(deadline=None)
def test_staircase_is_monotone_and_ends_on_front_points(points):
    xs, ys = staircase(points, ("lower", "higher"))
    assert xs == sorted(xs) and ys == sorted(ys)
    front = {p for p in points if not is_dominated(p, points)}
    assert front <= set(zip(xs, ys, strict=True))


def test_pruning_hopeless_rows_changes_no_probability():
    rng = np.random.default_rng(0)
    far = [row(f"far{i}", (90 + i, 91 + i, 92 + i), (10, 11, 12)) for i in range(50)]
    assert front_probability([*ORACLE, *far], AXES, seed=1)[:5] == pytest.approx(
        front_probability(ORACLE, AXES, seed=1)
    )
    many = [row(str(i), (v - 0.1, v, v + 0.1), (69, 70 + v, 82)) for i, v in enumerate(rng.random(60))]
    assert len(front_probability(many, AXES, draws=2000)) == 60


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
@settings(deadline=None)
def test_two_objectives_by_sorting_agree_with_looking_at_every_pair(points):
    at = np.array([points], dtype=float)
    assert (undominated_pairs(at) == undominated_points(at)).all()
