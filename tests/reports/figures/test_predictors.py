"""Which count time follows: fits of rows, the finding in the title, and where nothing is drawn."""

from bench.reading import reading
from reports.figures import predictors
from tests.reports.figures.rows import rows, with_readings
from tests.reports.figures.specs import check
from tests.synthetic import record

#: Model -> time, activations, MACs, parameters: time is proportional to activations.
NETWORKS = {"a": (2, 10, 5, 3), "b": (4, 20, 4, 9), "c": (8, 40, 40, 2), "d": (16, 80, 30, 8), "e": (32, 160, 90, 7)}


def network(name, time, activations, macs, params):
    made = {**record(model=name, latency_ms=1.0), "layers": []}
    times = {"latency_ms": (0.98 * time, time, 1.02 * time)}
    return with_readings(made, **times, activations=activations * 1e6, macs=macs * 1e9, params=params * 1e6)


def networks():
    return rows(*(network(name, *numbers) for name, numbers in NETWORKS.items()))


def test_the_count_that_time_is_proportional_to_comes_first():
    found = predictors.predicted(networks())
    assert next(each.metric for each in found) == "activations"
    fit = found[0].fit
    assert abs(fit.power - 1) < 1e-9 and abs(fit.correlation - 1) < 1e-9 and fit.n == 5
    figure = check(predictors.figure(networks()))
    assert figure.title.startswith("Time follows activations most closely (r = 1")
    assert next(iter(figure.views)) == "Activations" and len(figure.views) == 3
    assert "power 1" in figure.notes[0] and "5 networks" in figure.notes[0]


def test_every_mark_stands_for_its_row_of_the_table():
    figure = predictors.figure(networks())
    marks = [mark for trace in figure.spec["data"] for mark in trace.get("customdata", [])]
    assert sorted(mark[0] for mark in marks) == [0, 1, 2, 3, 4] and len(figure.table) == 5


def test_few_networks_or_one_count_for_all_give_no_line():
    few = networks()[:3]
    assert not predictors.wanted(few) and predictors.figure(few).reason
    assert predictors.wanted(networks())
    alike = rows(*(network(name, time, 10, 5, 3) for name, (time, *_) in NETWORKS.items()))
    assert not predictors.wanted(alike)


def test_a_reading_of_activations_has_its_unit():
    assert reading("activations", 1.0, "counted").unit == "element"
