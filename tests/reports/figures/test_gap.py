import math

import pytest

from reports.figures import gap
from reports.figures.gap import BY_CASE, BY_METHOD, BY_MODEL
from tests.reports.figures.rows import case, rows
from tests.reports.figures.specs import check
from tests.synthetic import record, suite_records


def oracle_rows():
    """Ideal 3, attainable 5, measured 8 (the waterline oracle), and one that is slower on paper and faster measured."""
    return rows(
        case("a", (7.8, 8.0, 8.2), (79, 80, 81), ideal=3.0, attainable=5.0),
        case("b", (5.8, 6.0, 6.2), (80, 81, 82), ideal=4.0, attainable=4.5),
    )


def test_gap_splits_into_shape_and_kernels():
    slow = gap.gaps(oracle_rows())[1]
    assert slow.efficiency == pytest.approx(0.375)
    assert (slow.shape, slow.kernels) == (pytest.approx(0.6), pytest.approx(0.625))
    assert slow.point.gap == pytest.approx(math.log(1 / 0.375))
    assert sum(slow.point.gap_parts) == pytest.approx(slow.point.gap)


def test_length_of_the_line_on_the_log_axis_is_the_gap():
    spec = gap.figure(oracle_rows()).view(BY_MODEL)
    assert spec["layout"]["xaxis"]["type"] == "log"
    ideal, measured, end = spec["data"][0]["x"][:3]
    assert end is None and math.log(measured / ideal) == pytest.approx(gap.gaps(oracle_rows())[0].point.gap)


def test_a_rank_flip_is_named_when_intervals_do_not_overlap():
    figure = check(gap.figure(oracle_rows()))
    assert "1 pair changes order" in figure.title
    assert figure.notes[0] == "rank flip: deit_tiny · a is faster on paper, deit_tiny · b is faster measured"
    assert list(figure.table["rank flips with"]) == ["deit_tiny · a", "deit_tiny · b"]


def test_overlapping_intervals_are_no_flip():
    wide = rows(
        case("a", (5.0, 8.0, 9.0), (79, 80, 81), ideal=3.0, attainable=5.0),
        case("b", (5.8, 6.0, 6.2), (80, 81, 82), ideal=4.0, attainable=4.5),
    )
    assert gap.flips(gap.gaps(wide)) == []
    assert "no pairs change order" in gap.figure(wide).title


def test_times_are_per_image():
    (row,) = gap.gaps(rows(case("a", (31, 32, 33), ideal=12.0, attainable=20.0, batch=4)))
    assert (row.point.ideal_ms, row.point.attainable_ms, row.point.measured_ms) == (3.0, 5.0, 8.0)
    assert (row.point.low_ms, row.point.high_ms) == (7.75, 8.25)


def test_missing_accuracy_goes_to_the_table_and_never_to_zero():
    made = rows(
        case("a", (7, 8, 9), (79, 80, 81), 3.0, 5.0), case("b", (5, 6, 7), (80, 81, 82), 4.0, 4.5), case("c", (1, 2, 3))
    )
    figure = check(gap.figure(made))
    drawn = [y for trace in figure.view(BY_METHOD)["data"] for y in trace["y"] if y is not None]
    assert min(drawn) >= 79 and len(figure.table) == 3
    assert figure.table["accuracy (%)"][0] is None
    assert any("1 of 3 cases have no accuracy" in note for note in figure.notes)


def test_without_any_accuracy_there_is_still_one_line_per_case():
    figure = check(gap.figure(rows(case("a", (7, 8, 9), None, 3.0, 5.0))))
    assert list(figure.views) == [BY_CASE]


def test_unknown_peak_is_measured_only_and_hollow():
    figure = check(gap.figure(rows(case("a", (7, 8, 9), (79, 80, 81)), case("b", (5, 6, 7), (80, 81, 82)))))
    assert "without a measured peak" in figure.title
    marks = next(t for t in figure.view(BY_CASE)["data"] if t.get("name") == "measured")
    assert all(symbol.endswith("-open") for symbol in marks["marker"]["symbol"])


def test_bounds_come_from_the_layers_where_no_reading_has_them():
    (made,) = rows(record(macs=1.76e9))
    assert gap.bounds(made)[0] == pytest.approx(2 * 1.76e9 / 1.76e11 * 1e3)


def test_failed_and_unmeasured_cases_leave_a_reason():
    figure = check(gap.figure(rows(record(status="oom"))))
    assert figure.spec is None and "no case" in figure.reason


def test_a_whole_suite_draws_with_hostile_names():
    evil = record(model="<img src=x onerror=1>", method="<b>tome", accuracy=90.0)
    figure = check(gap.figure(rows(*suite_records(), evil)))
    assert not any("<img" in text for text in figure.hover)
    assert any("&lt;img" in text for text in figure.hover)
