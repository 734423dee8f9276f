"""The machine's table of kinds of layers is of plain, undisturbed networks, with the range over them."""

from reports.layer_kinds import left_out, table
from reports.rows import rows_of
from tests.synthetic import record


def timed(model, time_ms, **changes):
    """A network of one product of 8.8e9 operations: 50 ms at the synthetic peak of 1.76e11 op/s."""
    item = record(model=model, **changes)
    first = {**item["layers"][0], "operators": ["aten::mm"], "macs": 4.4e9, "read_bytes": 0.0, "write_bytes": 0.0}
    item["layers"] = [{**first, "time_ms": time_ms}]
    return item


def test_a_line_has_the_median_over_networks_and_its_range():
    rows = rows_of([timed("a", 50.0), timed("b", 100.0), timed("c", 500.0)], [])
    assert table(rows) == [
        ("linear (matrix product)", "3", "3", "100 % (100 to 100)", "50 % (10 to 100)", "0.0 % (0.0 to 0.0)")
    ]


def test_methods_and_disturbed_networks_do_not_count_and_the_reader_is_told():
    busy = {**timed("b", 100.0), "status": "contaminated"}
    without = timed("c", None)
    rows = rows_of([timed("a", 50.0), timed("a", 10.0, method="tome", setting="r=8"), busy, without], [])
    assert [line[1] for line in table(rows)] == ["1"]
    assert left_out(rows) == "1 case ran beside other work, 1 case without times of layers"
    assert table(rows_of([busy], [])) == []


def test_bare_functions_are_no_networks():
    rows = rows_of([timed("a", 50.0), timed("product", 50.0, workload="operator", resolution=None)], [])
    assert [line[1] for line in table(rows)] == ["1"]
