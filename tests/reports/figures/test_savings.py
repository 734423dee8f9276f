import pytest

from reports.figures import savings
from reports.figures.savings import BY_CASE, SCATTER
from tests.reports.figures.rows import rows, with_readings
from tests.reports.figures.specs import check
from tests.synthetic import record, suite_records


def half(method="half", speedup=(1.15, 1.22, 1.29)):
    """A case that halves the MACs and is `speedup` times as fast as its baseline."""
    return with_readings(record(method=method, macs=0.625e9), speedup=speedup)


def test_realised_is_measured_over_promised():
    (found,) = savings.savings(rows(record(), half()))
    assert (found.promised, found.realised) == (2.0, pytest.approx(0.61))


def test_title_says_how_much_of_the_promise_is_kept():
    figure = check(savings.figure(rows(record(), half())))
    assert figure.title == "deit_tiny · half realises 61 % of the speed-up it promises"


def test_several_cases_are_named_from_the_worst_to_the_best():
    figure = savings.figure(rows(record(), half(), half("better", (1.7, 1.8, 1.9))))
    assert (
        figure.title == "Realised of the promised speed-up: from 61 % (deit_tiny · half) to 90 % (deit_tiny · better)"
    )


def test_points_and_the_diagonal_are_where_they_belong():
    spec = check(savings.figure(rows(record(), half()))).view(SCATTER)
    point = next(t for t in spec["data"] if t["name"] == "half")
    assert (point["x"], point["y"]) == ([2.0], [1.22])
    assert point["error_y"]["array"] == [pytest.approx(0.07)] and point["error_y"]["arrayminus"] == [
        pytest.approx(0.07)
    ]
    diagonal = next(t for t in spec["data"] if t["name"] == "all of it")
    assert diagonal["x"] == diagonal["y"]


def test_the_noise_floor_is_a_band_and_hides_what_lies_in_it():
    figure = check(savings.figure(rows(record(), half("none_really", (0.99, 1.0, 1.01)))))
    band = next(shape for shape in figure.view(SCATTER)["layout"]["shapes"] if shape["type"] == "rect")
    assert (band["y0"], band["y1"]) == (0.995, 1.005)
    assert list(figure.table["inside the noise floor"]) == ["yes"]
    assert any("1 of 1 speed-ups cannot be distinguished from noise" in note for note in figure.notes)


def test_without_a_twin_there_is_no_band_and_a_note():
    made = [record(), half()]
    for each in made:
        each["timing"]["noise_floor"] = None
    figure = check(savings.figure(rows(*made)))
    assert not [shape for shape in figure.view(BY_CASE)["layout"]["shapes"] if shape["type"] == "rect"]
    assert any("noise floor is not known" in note for note in figure.notes)


def test_slower_than_the_baseline_is_said_by_name():
    figure = check(savings.figure(rows(record(), half("slow", (0.6, 0.7, 0.8)))))
    assert figure.notes[0] == "deit_tiny · slow is slower than its baseline although it promises 2.00×"


def test_only_baselines_or_failures_leave_a_reason():
    for made in (rows(record()), rows(record(status="oom", method="x")), []):
        assert "no case of this group" in check(savings.figure(made)).reason


def test_a_suite_draws_one_line_per_case_with_the_least_realised_on_top():
    figure = check(savings.figure(rows(*suite_records())))
    shares = list(figure.table["realised (share of promised)"])
    assert shares == sorted(shares) and len(shares) == 6
    names = next(t for t in figure.view(BY_CASE)["data"] if t["mode"] == "text")
    assert names["text"][0].startswith(figure.table["model"][0])
