import pytest

from bench.statistics import log_mean_interval
from reports.figures import noise
from reports.figures.noise import BESIDE, BOXES, ORDER
from tests.reports.figures.specs import check
from tests.synthetic import record, samples


def with_files(invocations=3, **fields):
    made = record(method="tome", setting="r=8", latency_ms=30.0, invocations=invocations, **fields)
    files = {}
    for run in made["timing"]["invocations"]:
        raw = samples(made, run["index"])
        raw["cases"][made["baseline_key"]] = {"latency_ms": [run["baseline_median_ms"]] * 10}
        files[run["samples_file"]] = raw
    return made, files


def test_a_box_per_invocation_with_all_its_samples():
    made, files = with_files()
    spec = check(noise.figure(made, files)).view(BOXES)
    assert [trace["name"] for trace in spec["data"]] == ["1", "2", "3"]
    assert len(spec["data"][0]["y"]) == 50


def test_the_band_is_the_interval_of_the_processes_not_of_the_samples():
    made, files = with_files()
    own = [each for each in noise.series(made, files) if each.role == "case"]
    expected = log_mean_interval([each.median for each in own])
    band = noise.figure(made, files).view(BOXES)["layout"]["shapes"][0]
    assert (band["y0"], band["y1"]) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_set_aside_invocations_are_drawn_and_not_counted():
    made, files = with_files(4)
    made["timing"]["invocations"][1] |= {"set_aside": True, "labels": ["preempted"]}
    figure = check(noise.figure(made, files))
    assert "3 processes differ" in figure.title
    assert "set aside, drawn and not counted: process 2" in figure.notes
    assert "process 2: preempted" in figure.notes
    assert len(figure.view(BOXES)["data"]) == 4


def test_relative_view_divides_by_the_baseline_of_the_same_process():
    made, files = with_files()
    spec = noise.figure(made, files).view(BESIDE)
    by_name = {trace["name"]: trace for trace in spec["data"]}
    assert by_name["baseline"]["y"] == [1, 1, 1]
    own = [each for each in noise.series(made, files) if each.role == "case"]
    runs = made["timing"]["invocations"]
    assert by_name["this case"]["y"] == pytest.approx(
        [each.median / run["baseline_median_ms"] for each, run in zip(own, runs, strict=True)], rel=1e-4
    )


def test_order_view_keeps_every_sample_in_order():
    made, files = with_files(1)
    raw = files[made["timing"]["invocations"][0]["samples_file"]]["cases"][made["case_key"]]["latency_ms"]
    assert noise.figure(made, files).view(ORDER)["data"][0]["y"] == pytest.approx(raw, rel=1e-4)


def test_long_runs_are_thinned_in_the_drawing_only():
    made, files = with_files(1)
    name = made["timing"]["invocations"][0]["samples_file"]
    files[name]["cases"][made["case_key"]]["latency_ms"] = [1.0 + i / 1000 for i in range(1000)]
    figure = check(noise.figure(made, files))
    assert len(figure.view(BOXES)["data"][0]["y"]) == noise.MOST_SAMPLES
    assert figure.table["samples"][0] == 1000 and "evenly spaced" in figure.notes[-1]


def test_median_and_spread_are_those_of_the_samples():
    each = noise.Series("case", 0, (1.0, 2.0, 3.0, 4.0))
    assert each.median == 2.5
    table = noise.noise_table([each])
    assert table["IQR / median"][0] == pytest.approx(1.5 / 2.5)


def test_missing_files_and_untimed_cases_say_so():
    made, _ = with_files()
    assert "not beside the records" in check(noise.figure(made, {})).reason
    assert "was not timed" in check(noise.figure(record(status="crashed"), {})).reason
