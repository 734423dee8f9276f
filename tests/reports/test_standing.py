"""Only like rows are ranked together, and a rank says no more than the intervals do."""

from hypothesis import given
from hypothesis import strategies as st

from reports.fronts import mark_fronts
from reports.groups import group
from reports.rows import columns_of, rows_of
from reports.standing import Span, rank_intervals, rank_rows
from tests.synthetic import record, suite_records


def _stood(records):
    rows = rows_of(records, [])
    groups = group(rows)
    rank_rows(rows, groups, columns_of(rows))
    mark_fronts(rows, groups)
    return rows, groups


def _row(rows, method, setting="", model="deit_tiny"):
    return next(r for r in rows if (r.case.model, r.case.method, r.case.setting) == (model, method, setting))


def test_ranks_of_known_spans():
    spans = [Span(1, 2), Span(1.5, 3), Span(4, 5), Span(4, 5), Span(9, 9)]
    assert rank_intervals(spans) == [(1, 2), (1, 2), (3, 4), (3, 4), (5, 5)]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), min_size=1, max_size=30))
def test_a_rank_interval_counts_the_rows_that_are_separated(parts):
    spans = [Span(low, low + width) for low, width in parts]
    for span, (best, worst) in zip(spans, rank_intervals(spans), strict=True):
        assert best == 1 + sum(other.high < span.low for other in spans)
        assert worst == len(spans) - sum(other.low > span.high for other in spans)


def test_other_conditions_make_another_group_that_names_what_differs():
    rows, groups = _stood([record(), record(dtype="bf16"), record(batch=8), record(machine_key="other")])
    assert len(groups) == 4
    assert {row.group for row in rows} == {0, 1, 2, 3}
    assert {"fp32", "batch 1"} <= set(groups[rows[0].group].differs) | {"fp32", "batch 1"}
    assert any("bf16" in item.differs for item in groups)
    assert any("batch 8" in item.differs for item in groups)


def test_rows_of_one_group_do_not_say_that_they_differ():
    _, groups = _stood(suite_records())
    assert len(groups) == 1
    assert groups[0].differs == ()


def test_failed_and_contaminated_rows_are_visible_without_a_rank():
    failed = record(
        method="tome", setting="r=1", status="oom", error={"phase": "measure", "type": "X", "message": "no memory"}
    )
    disturbed = record(method="tome", setting="r=2", status="ok", latency_ms=1.0)
    disturbed["status"] = "contaminated"
    rows, _ = _stood([record(), failed, disturbed])
    assert len(rows) == 3
    assert _row(rows, "tome", "r=1").rank == {} and "no memory" in _row(rows, "tome", "r=1").reason
    assert _row(rows, "tome", "r=2").rank == {} and _row(rows, "tome", "r=2").contaminated
    assert _row(rows, "none").rank["latency_ms"] == (1, 1)


def test_an_estimate_is_not_ranked_among_measurements():
    estimated = record(method="tome", setting="r=1", latency_ms=1.0)
    for item in estimated["readings"]:
        if item["metric"] == "latency_ms":
            item["provenance"] = "estimated"
    rows, _ = _stood([record(), estimated])
    assert "latency_ms" not in _row(rows, "tome", "r=1").rank
    assert _row(rows, "none").rank["latency_ms"] == (1, 1)


def test_realised_gain_is_speedup_over_mac_ratio_with_the_scaled_interval():
    base, half = record(), record(method="tome", setting="r=8", macs=0.5e9, baseline_macs=1.25e9, latency_ms=20.0)
    rows, _ = _stood([base, half])
    cells = _row(rows, "tome", "r=8").cells
    assert cells["mac_ratio"].value == 2.5
    assert cells["realised_gain"].value == 2.0 / 2.5
    assert cells["realised_gain"].low == 2.0 * 0.98 / 2.5
    assert _row(rows, "none").cells["speedup"].value is None


def test_without_the_baseline_the_reason_stands_in_place_of_the_ratio():
    rows, _ = _stood([record(method="tome", setting="r=8", macs=0.5e9)])
    assert rows[0].cells["mac_ratio"].value is None and rows[0].cells["mac_ratio"].note


def test_over_a_side_that_makes_no_products_nothing_is_promised():
    base, method = record(macs=0.0), record(method="tome", setting="r=8", macs=0.5e9, baseline_macs=0.0)
    rows, _ = _stood([base, method])
    cells = _row(rows, "tome", "r=8").cells
    assert cells["speedup"].value and cells["mac_ratio"].value is None and cells["realised_gain"].value is None
    assert "baseline are 0" in cells["mac_ratio"].note and cells["realised_gain"].note == cells["mac_ratio"].note


def test_the_front_holds_who_is_beaten_by_nobody_and_says_who_beats_the_others():
    fast = record(method="tome", setting="r=1", latency_ms=10.0, accuracy=95.0)
    slow = record(method="tome", setting="r=2", latency_ms=30.0, accuracy=80.0)
    rows, _ = _stood([record(accuracy=96.0), fast, slow])
    assert _row(rows, "tome", "r=1").pareto == "front"
    assert _row(rows, "tome", "r=2").pareto == "dominated"
    assert "r=1" in _row(rows, "tome", "r=2").pareto_note


def test_a_large_group_marks_the_same_dominated_rows_as_a_small_one():
    records = [
        record(method="tome", setting=f"r={k}", latency_ms=10.0 + 5 * k, accuracy=95.0 - 4 * (k % 3)) for k in range(40)
    ]
    rows, _ = _stood(records)
    whole = {row.case.setting: row.pareto for row in rows}
    few, _ = _stood(records[:12])
    assert all(whole[row.case.setting] == row.pareto for row in few if row.pareto == "dominated")
    assert whole["r=0"] == "front"
