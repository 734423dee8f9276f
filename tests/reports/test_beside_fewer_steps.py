"""A method beside fewer steps at its products and at its time: by hand, and a difference within the spread is none."""

from types import SimpleNamespace

from reports.beside_fewer_steps import OUTSIDE, table, verdict
from tests.reports.figures.rows import case, rows, with_readings


def made(name, macs, latency, accuracy, **fields):
    return with_readings(case(name, latency, accuracy, **fields), macs=macs)


def lines(*others):
    """Plain: 8 of products and 8 ms at 90 %; two fewer steps of 4 and 2, which take as many ms, at 84 and 70 %."""
    plain = [made("none", 8.0, 8.0, 90.0), made("fewer_steps", 4.0, 4.0, 84.0, setting="steps=4")]
    plain.append(made("fewer_steps", 2.0, 2.0, 70.0, setting="steps=2"))
    listed = rows(*plain, *others)
    site = SimpleNamespace(groups=[SimpleNamespace(index=0)], in_group=lambda index: listed)
    return table(site)[1]


def test_a_method_is_set_beside_the_curve_at_its_products_and_at_its_time():
    (line,) = lines(made("tome", 2.0, 4.0, 80.0))
    assert line[1:] == ["25 %", "50 %", "Accuracy 80.00", "70.00: better", "84.00: worse"]
    (line,) = lines(made("tome", 4.0, 9.0, 84.4))  # half a point of accuracy does not matter
    assert line[4:] == ["84.00: no difference", OUTSIDE]


def test_of_distances_the_smaller_is_better_beyond_the_seeds_spread():
    assert verdict(3.0, 4.0, "frechet_distance", 0.5) == "better"
    assert verdict(4.6, 4.0, "frechet_distance", 0.5) == "worse"
    assert verdict(4.4, 4.0, "frechet_distance", 0.5) == "no difference"


def test_without_a_curve_or_a_method_nothing_is_said():
    assert lines() == []


def test_every_score_has_its_line_and_the_one_that_the_task_names_stands_first():
    def drawn(name, macs, accuracy, distance, **fields):
        made_of = with_readings(case(name, macs, accuracy, **fields), macs=macs, frechet_distance=distance)
        made_of["quality"] = {**made_of["quality"], "metric": "frechet_distance"}
        return made_of

    listed = rows(
        drawn("none", 8.0, 90.0, 10.0),
        drawn("fewer_steps", 2.0, 95.0, 30.0, setting="steps=2"),
        drawn("tome", 2.0, 90.0, 12.0),
    )
    site = SimpleNamespace(groups=[SimpleNamespace(index=0)], in_group=lambda index: listed)
    distance, accuracy = table(site)[1]
    assert distance[3:5] == ["Frechet distance 12.00", "30.00: better"]
    assert accuracy[3:5] == ["Accuracy 90.00", "95.00: worse"]
