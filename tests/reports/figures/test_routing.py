"""A threshold is judged against paths chosen at random between the two ends of one trained network."""

import pytest

from reports.figures import routing
from tests.reports.figures.rows import case, rows, with_readings
from tests.reports.figures.specs import check


def at(setting, cost, accuracy, varies=True):
    """A row of an early exit; with a fixed path it has one cost and no distribution of them."""
    made = case("jei_dnn", 5.0, accuracy, setting=setting)
    return with_readings(made, **({"macs_mean": cost, "macs": 1.0} if varies else {"macs": cost}))


def found(*further):
    ends = [at("exit=1", 100.0, 60.0, varies=False), at("exit=12", 1100.0, 90.0, varies=False)]
    return rows(case("none", 8.0, 90.0), *ends, *further)


def test_the_line_joins_the_two_fixed_paths_and_is_straight_in_the_mean_cost():
    listed = found(at("threshold=0.5", 600.0, 80.0), at("threshold=0.3", 350.0, 66.0))
    (family,) = routing.families(listed)
    assert family.ends == ((100.0, 60.0), (1100.0, 90.0))
    assert family.by_lot(600.0) == pytest.approx(75.0) and family.by_lot(350.0) == pytest.approx(67.5)
    assert family.by_lot(50.0) is None and family.by_lot(1200.0) is None
    assert [cost for _, cost, _ in family.points] == [350.0, 600.0]
    figure = check(routing.figure(listed))
    assert figure.title.startswith("1 of 2 thresholds beat paths chosen at random")
    column = "accuracy of random paths at equal cost"
    assert figure.table[column].tolist() == pytest.approx([67.5, 75.0])


def test_gates_have_curves_of_their_own_against_one_line():
    listed = found(at("threshold=0.5", 600.0, 80.0), at("gate='maxp', threshold=0.5", 600.0, 70.0))
    lines = routing.families(listed)
    assert len(lines) == 2 and lines[0].ends == lines[1].ends


def test_another_training_has_another_line_or_none():
    assert routing.families(found(at("lam=2, threshold=0.5", 600.0, 80.0))) == []


def test_without_two_fixed_paths_there_is_no_such_figure():
    alone = rows(case("none", 8.0, 90.0), at("threshold=0.5", 600.0, 80.0))
    assert not routing.wanted(alone)
    assert routing.figure(alone).reason
