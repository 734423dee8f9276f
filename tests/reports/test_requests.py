"""A request stage by stage and latency over the offered load: by hand, in tables and pictures."""

from types import SimpleNamespace

import pytest

from reports import offered, stages
from reports.figures import offered_load, request_stages
from reports.rows import Cell, column_key


def row(name, cells, *, shape=None, status="ok", details=None):
    whole = {"rate": None, "load": None, "servers": 1, "together": 1, "window_ms": 0.0, **(shape or {})}
    case = SimpleNamespace(
        workload="pipeline", model_label=name, full_shape=whole, shape="", device="cpu", dtype="fp32", backend="eager",
        task="none",
    )  # fmt: skip
    cells = {key: Cell(*value, None, "measured") for key, value in cells.items()}
    return SimpleNamespace(
        case=case, cells=cells, name=name, machine_key="m", ranked=status == "ok", status=status, reason="grew",
        record={"workload": details or {}},
        value=lambda metric, part="": getattr(cells.get(column_key(metric, part)), "value", None),
    )  # fmt: skip


def chain(name, decode, infer, **further):
    cells = {
        column_key("stage_share", "decode"): (decode, decode - 1, decode + 1),
        column_key("stage_share", "infer"): (infer, infer - 1, infer + 1),
        column_key("stage_share", "post"): (100 - decode - infer, None, None),
        "nonnetwork_share": (100 - infer, 99 - infer, 101 - infer),
        "latency_ms": (12.0, 11.0, 13.0),
        "request_bytes": (121000.0, None, None),
        **further,
    }
    details = {"stages": ["decode", "infer", "post"], "network": "infer", "bottleneck": "decode"}
    return row(name, cells, details=details)


def loop(rate, p50, p99, *, status="ok"):
    cells = {"offered_rate": (rate, None, None), "offered_load": (rate, None, None)}
    if p50:
        cells |= {"sojourn_p50_ms": (p50, p50 - 1, p50 + 1), "sojourn_p99_ms": (p99, None, None)}
    return row("served", cells, shape={"rate": rate}, status=status)


def site(*rows):
    return SimpleNamespace(rows=list(rows))


def test_stages_stand_in_the_order_of_the_chain_and_in_the_table_by_size():
    found = stages.requests(site(chain("small", 20, 70), chain("large", 80, 15)))
    assert [name for name, _ in found[0].stages] == ["decode", "infer", "post"] and found[1].largest == "decode"
    head, lines = stages.table(found)
    assert head[3] == "outside the network" and lines[1][3] == "85.0 % [84.0, 86.0]"
    assert lines[0][1:3] == ["121,000", "12"] and lines[0][-1] == "infer 70.0 %, decode 20.0 %, post 10.0 %"


def test_a_chain_of_two_stages_or_one_that_failed_has_no_bar():
    bare = chain("bare", 20, 70)
    bare.record["workload"]["stages"] = ["infer", "post"]
    assert stages.requests(site(bare, row("failed", {}, status="crashed"))) == []


def test_bars_are_stacked_shares_with_the_interval_of_what_lies_outside():
    drawn = request_stages.figure(stages.requests(site(chain("small", 20, 70), chain("large", 80, 15))))
    assert drawn.title == "From 30 % (small) to 85 % (large) of a request lie outside the network"
    (spec,) = drawn.views.values()
    bars = [trace for trace in spec["data"] if trace["type"] == "bar"]
    assert [trace["x"] for trace in bars] == [[20, 80], [70, 15], [10, 5]] and spec["layout"]["barmode"] == "stack"
    assert spec["data"][-1]["error_x"]["array"] == pytest.approx([1, 1])
    assert request_stages.figure([]).title == "No stages"


def test_rates_of_sections_and_the_bottleneck_stand_beside_each_other():
    one = chain("small", 20, 70, saturated_rate=(80.0, 78.0, 82.0), network_rate=(110.0, None, None))
    _, (line,) = stages.rates_table(site(one, chain("no load", 20, 70)))
    assert line == ["small", "80 [78, 82]", "-", "-", "110", "-", "-", "decode"]
    one.case.full_shape["servers"] = 2
    assert stages.rates_table(site(one))[1][0][0] == "small, servers 2"


def test_loads_of_one_case_are_one_course_by_rising_rate():
    (course,) = offered.courses(site(loop(80, 30, 90), loop(30, 12, 20), loop(110, None, None, status="unstable")))
    assert [point.rate for point in course.points] == [30, 80, 110] and course.unstable == [110]
    _, lines = offered.table([course])
    assert lines[0][3:5] == ["12 [11, 13]", "-"] and lines[2][3] == "unstable"


def test_loads_that_one_row_rose_through_are_a_course_and_disturbed_ones_are_not_drawn():
    times = {"sojourn_p50_ms": [12.0, 11.0, 13.0]}
    points = [
        {"rate": 30.0, "load": 0.3, "stable": True, "reason": "", "times": times},
        {"rate": 110.0, "load": 1.1, "stable": False, "reason": "grew", "times": {}},
    ]
    rising = row("served", {}, shape={"rising": 1}, details={"rising": points})
    (course,) = offered.courses(site(rising))
    assert course.unstable == [110] and offered.table([course])[1][0][2:4] == ["30 %", "12 [11, 13]"]
    disturbed = loop(80, 30, 90, status="contaminated")
    (course,) = offered.courses(site(disturbed))
    assert offered.table([course])[1][0][2] == "80 %, disturbed" and offered_load.figure([course]).reason


def test_percentiles_are_drawn_up_to_the_rate_at_which_the_backlog_grew():
    found = offered.courses(site(loop(80, 30, 90), loop(30, 12, 20), loop(110, None, None, status="unstable")))
    drawn = offered_load.figure(found)
    assert drawn.title == "The 99th percentile of served at 80 requests per second is 3.0 times its median"
    (spec,) = drawn.views.values()
    assert [trace["name"] for trace in spec["data"]] == ["p50", "p99"]
    assert [trace["x"] for trace in spec["data"]] == [[30, 80], [30, 80]]
    assert [shape["x0"] for shape in spec["layout"]["shapes"]] == [110]
    assert offered_load.figure([]).reason
