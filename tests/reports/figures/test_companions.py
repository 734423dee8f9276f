"""The line to beat goes through the plain sampler's rows, and a method is judged at its own cost."""

import pytest

from bench.canonical import settings_text
from reports.figures import companions
from tests.reports.figures.rows import case, rows
from tests.reports.figures.specs import check


def found(**others):
    """Plain at 8 ms, fewer steps at 2 and 4 ms, and other methods by name: latency and accuracy."""
    made = [case("none", 8.0, 90.0), case("fewer_steps", 2.0, 70.0, setting="steps=2")]
    made.append(case("fewer_steps", 4.0, 84.0, setting="steps=4"))
    return rows(*made, *(case(name, *values) for name, values in others.items()))


def test_the_curve_is_read_between_two_steps_on_a_logarithmic_axis():
    points = companions.curve(found(), "latency_ms", "accuracy")
    assert points == [(2.0, 70.0), (4.0, 84.0), (8.0, 90.0)]
    assert companions.at(points, 2.0) == 70.0 and companions.at(points, 8.0) == 90.0
    assert companions.at(points, 2 * 2**0.5) == pytest.approx(77.0)
    assert companions.at(points, 1.9) is None and companions.at(points, 9.0) is None


def test_a_method_is_better_or_worse_than_fewer_steps_at_its_own_cost():
    listed = found(evit=(4.0, 86.0), tome=(4.0, 83.0), cheap=(1.0, 60.0))
    verdict = {a.row.case.method: a.beats("accuracy") for a in companions.beside(listed, "latency_ms", "accuracy")}
    assert verdict == {"evit": True, "tome": False, "cheap": None}
    figure = check(companions.figure(listed))
    assert figure.title.startswith("1 of 2 cases beat fewer steps")
    column = "accuracy of fewer steps at equal latency_ms"
    assert figure.table.set_index("method")[column]["evit"] == 84.0


def test_without_a_score_or_fewer_steps_there_is_no_such_figure():
    assert companions.wanted(found(evit=(4.0, 86.0)))
    assert not companions.wanted(found())
    assert not companions.wanted(rows(case("none", 8.0, 90.0), case("tome", 4.0, 80.0), case("evit", 5.0, 81.0)))
    assert not companions.wanted(rows(case("none", 8.0), case("fewer_steps", 4.0), case("evit", 5.0)))
    assert companions.figure(rows(case("none", 8.0, 90.0))).reason


def test_every_plain_sampler_has_a_curve_of_its_own_and_another_network_is_beside_it():
    """A deeper sampler costs twice as much; a network that is compared with the first is no plain sampler itself."""
    deep = [
        case("none", 16.0, 95.0, model="deep"),
        case("fewer_steps", 8.0, 92.0, model="deep", setting="steps=4"),
        case("tome", 8.0, 93.0, model="deep"),
    ]
    other = case("none", 4.0, 80.0, model="other", against=settings_text({"model": "deit_tiny"}))
    listed = rows(*(row.record for row in found(evit=(4.0, 86.0))), *deep, other)
    found_beside = companions.beside(listed, "latency_ms", "accuracy")
    verdict = {each.row.name: (each.plain, each.beats("accuracy")) for each in found_beside}
    assert verdict == {"deit_tiny · evit": (84.0, True), "deep · tome": (92.0, True), "other": (84.0, False)}
    figure = check(companions.figure(listed))
    (view,) = figure.views.values()
    lines = {trace["name"]: len(trace["x"]) for trace in view["data"] if trace["mode"] == "lines"}
    assert lines == {"fewer steps, deit_tiny": 3, "fewer steps, deep": 2}
