"""Bare functions: shares, times and buffers over operations per byte; what is wrong is named and has no mark."""

from dataclasses import replace

from reports.figures import operators
from tests.reports.figures.rows import rows, with_readings
from tests.reports.figures.specs import check
from tests.synthetic import record


def function(name, **values):
    made = record(model=name, latency_ms=1.0)
    made = {**made, "layers": [], "case": {**made["case"], "workload": "operator"}}
    return with_readings(made, **values)


def functions():
    return rows(
        function(
            "fft",
            latency_ms=(0.9, 1.0, 1.1),
            op_per_byte=4.0,
            io_bytes=1e6,
            roofline_share=(8, 10, 12),
            workspace_bytes=2e6,
        ),
        function(
            "monarch",
            latency_ms=(1.8, 2.0, 2.2),
            op_per_byte=90.0,
            io_bytes=1e6,
            roofline_share=(35, 40, 45),
            workspace_bytes=8e6,
        ),
        function("sum", latency_ms=(0.1, 0.1, 0.1), io_bytes=1e6),
    )


def test_the_title_names_the_least_and_the_largest_share():
    figure = check(operators.figure(functions()))
    assert figure.title.startswith("From 10 % of the roofline (fft") and "40 % (monarch" in figure.title
    assert list(figure.views) == ["share of the roofline", "time", "buffers"]
    assert len(figure.table) == 3 and figure.table["op/B"].tolist()[:2] == [4.0, 90.0]


def test_a_function_without_products_stands_in_the_table_alone():
    figure = operators.figure(functions())
    assert sum(len(trace["x"]) for trace in figure.spec["data"]) == 2
    assert any("sum" in note for note in figure.notes)


def test_a_wrong_function_has_no_mark_and_says_why():
    good, other, _ = functions()
    wrong = replace(other, status="invalid", reason="the function is 0.2 from the reference")
    figure = operators.figure([good, wrong])
    assert sum(len(trace["x"]) for trace in figure.spec["data"]) == 1
    assert any("0.2 from the reference" in note for note in figure.notes)


def test_without_bytes_there_is_nothing_to_show():
    assert not operators.wanted(rows(record(model="net", latency_ms=1.0)))
    assert operators.wanted(functions())
    assert operators.figure(functions()[2:]).reason
