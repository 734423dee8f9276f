import pytest

from reports.figures import scaling
from tests.reports.figures.rows import case, rows
from tests.reports.figures.specs import check
from tests.synthetic import record


def sweep(method="none", **more):
    """Latency 10, 16 and 32 ms at batch 1, 2 and 8: 10, 8 and 4 ms per image."""
    times = {1: 10.0, 2: 16.0, 8: 32.0}
    return [case(method, (t * 0.9, t, t * 1.1), batch=batch, **more) for batch, t in times.items()]


def test_latency_is_per_image_over_the_batch():
    spec = check(scaling.figure(rows(*sweep()))).view("batch size", "Latency per image")
    assert spec["data"][0]["x"] == [1, 2, 8]
    assert spec["data"][0]["y"] == pytest.approx([10, 8, 4])
    assert spec["data"][0]["error_y"]["array"] == pytest.approx([1, 0.8, 0.4])


def test_title_says_what_the_range_gives():
    assert scaling.figure(rows(*sweep())).title == "deit_tiny: 2.5× faster per image from batch 1 to 8"


def test_only_the_axis_may_differ_along_a_curve():
    made = rows(*sweep(), *sweep(dtype="bf16"), *sweep(machine_key="another"))
    assert [len(curve.points) for curve in scaling.curves(made, "batch")] == [3, 3, 3]


def test_resolution_is_another_axis():
    made = rows(*(case("none", (1, 2.0 * size, 1e4), resolution=size) for size in (224, 384)))
    figure = check(scaling.figure(made))
    assert figure.controls[0].options == ("resolution (px)",)
    assert "no case was measured at two values of batch size" in figure.notes


def test_other_protocols_are_not_joined():
    first, second = sweep()[0], sweep()[1]
    second = {**second, "protocol": {**second["protocol"], "hash": "0123456789abcdef"}}
    assert scaling.curves(rows(first, second), "batch") == []


def test_many_curves_share_the_name_of_their_method():
    models = (each for i in range(scaling.MOST_NAMES + 1) for each in sweep(model=f"m{i}"))
    made = rows(record(method="tome"), *models)  # a suite that knows a method, so that models share the name none
    figure = check(scaling.figure(made))
    shown = [trace["name"] for trace in figure.spec["data"] if trace["showlegend"]]
    assert shown == ["none"] and "legend names methods" in figure.notes[-1]


def test_one_batch_is_no_scaling():
    assert "two values of a number of its shape" in check(scaling.figure(rows(record()))).reason
    assert "two values of a number of its shape" in check(scaling.figure([])).reason
