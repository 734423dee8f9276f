import json

import pytest

from reports.figures import waterline
from reports.figures.waterline import ATTAINABLE, BLOCKS, FUSED, LAYERS, MEASURED, OP_BYTE, SLOWEST
from reports.figures.waterline_view import GROUP_ABOVE
from tests.reports.figures.rows import with_readings
from tests.reports.figures.specs import check, strings
from tests.synthetic import record

PEAKS = {
    "peaks": [{"dtype": "fp32", "threads": 1, "unit": "op/s", "value": 1e14}],
    "bandwidth": {"unit": "B/s", "value": 1e12},
}


def row(index, name, gop, gb, time_ms, **rest):
    size = None if gb is None else gb * 1e9 / 2
    return {
        "index": index, "name": name, "module_path": name, "op": "conv2d", "dtype": "fp32", "macs": gop * 1e9 / 2,
        "vector_ops": 0.0, "read_bytes": size, "write_bytes": size, "weight_bytes": 0.0, "time_ms": time_ms,
        "time_low_ms": None, "time_high_ms": None, "provenance_bytes": "counted", "tokens": None, **rest,
    }  # fmt: skip


ORACLE = [
    row(0, "conv3x3", 200, 1, 2.5),
    row(1, "blocks.0.dw", 20, 2, 4.0),
    row(2, "blocks.0.pw", 80, 1, 1.5),
]


def oracle(rows=ORACLE, end_to_end=8.4, machine=PEAKS):
    made = record()
    return {**made, "layers": rows, "machine": machine, "layers_info": {"end_to_end_ms": end_to_end}}


def test_title_states_the_efficiency_and_its_two_factors():
    figure = check(waterline.figure(oracle()))
    assert "38 % of the peak is used" in figure.title
    assert figure.title.endswith("the shape allows 60 %, the kernels reach 62 % of that")


def test_offers_three_views_three_groupings_and_the_fused_what_if():
    figure = waterline.figure(oracle())
    assert [c.options for c in figure.controls] == [
        (OP_BYTE, ATTAINABLE, MEASURED, FUSED),
        (LAYERS, BLOCKS, SLOWEST),
    ]
    assert figure.view(FUSED, BLOCKS) and figure.view(FUSED, LAYERS) is None
    assert len(figure.views) == 10


def test_bars_are_where_the_oracle_says():
    spec = waterline.figure(oracle()).view(OP_BYTE, LAYERS)
    by_name = {trace["name"]: trace for trace in spec["data"]}
    water = by_name["lost to DRAM"]
    assert (water["x"], water["width"]) == ([1.0, 3.0], [2.0, 1.0])
    assert water["base"] == [0.1, 0.8] and water["y"] == pytest.approx([0.9, 0.2])
    assert by_name["compute-bound"]["y"] == [2.0]
    assert spec["layout"]["barmode"] == "overlay" and spec["layout"]["bargap"] == 0
    assert spec["layout"]["xaxis"]["range"] == [0, 4.0]
    assert all(trace["offset"] == 0 for trace in spec["data"] if trace["type"] == "bar")


def test_the_water_line_is_at_one_in_every_view():
    for spec in waterline.figure(oracle()).views.values():
        line = next(trace for trace in spec["data"] if trace["type"] == "scatter")
        assert line["y"] == [1, 1] and line["x"] == [0, pytest.approx(spec["layout"]["xaxis"]["range"][1])]


def test_a_bar_leads_to_its_row_of_the_table_and_says_everything():
    figure = waterline.figure(oracle())
    trace = figure.drawn(OP_BYTE, LAYERS)["data"][1]
    assert [item[0] for item in trace["customdata"]] == [1, 2]
    text = trace["hovertext"][0]
    for part in (
        "blocks.0.dw",
        "conv2d",
        "20.0 GFLOP",
        "read 1000 MB, wrote 1000 MB (counted)",
        "op:byte 10.0",
        "ridge of 100",
        "ideal 0.200 ms",
        "DRAM 2.00 ms",
        "attainable 2.00 ms",
        "measured 4.00 ms",
        "efficiency 5.0 %",
        "40 % of attainable",
        "50 % of measured",
        "peak 100000 GFLOP/s",
        "bandwidth 1000 GB/s",
    ):
        assert part in text


def test_table_has_one_row_per_layer_and_no_efficiency_for_a_copy():
    rows = [*ORACLE, row(3, "copy", 0, 0.5, 1.0), row(4, "view", 0, 0, None)]
    figure = check(waterline.figure(oracle(rows)))
    assert list(figure.table["layer"]) == ["conv3x3", "blocks.0.dw", "blocks.0.pw", "copy", "view"]
    assert figure.table["efficiency"][3] is None
    assert figure.table["attainable (ms)"].sum() == pytest.approx(5.5)
    assert any("1 layers without operations or bytes" in note for note in figure.notes)


def test_without_a_peak_only_the_measured_view_is_drawn_in_outline():
    figure = check(waterline.figure(oracle(machine={"bandwidth": PEAKS["bandwidth"]})))
    assert figure.controls[0].options == (MEASURED,)
    assert "without a measured peak" in figure.title
    bars = [trace for trace in figure.spec["data"] if trace["type"] == "bar"]
    assert bars[0]["name"] == "unknown"
    assert any("calibrate" in note for note in figure.notes)


def test_without_a_bandwidth_there_is_ideal_and_efficiency_only():
    figure = check(waterline.figure(oracle(machine={"peaks": PEAKS["peaks"]})))
    assert figure.controls[0].options == (MEASURED,)
    assert "38 % of peak" in figure.title


def test_unknown_bytes_make_the_attainable_efficiency_an_upper_bound():
    figure = check(waterline.figure(oracle([*ORACLE, row(3, "odd", 10, None, 1.0)])))
    assert "the shape allows at most " in figure.title
    assert any("<=" in note for note in figure.notes)


def test_a_failed_case_has_a_reason_and_no_picture():
    figure = check(waterline.figure(record(status="crashed")))
    assert figure.spec is None and "crashed" in figure.reason


def test_no_peak_and_no_times_leave_the_numbers_and_a_reason():
    rows = [{**item, "time_ms": None} for item in ORACLE]
    figure = check(waterline.figure(oracle(rows, machine={})))
    assert figure.spec is None and "calibrate" in figure.reason
    assert len(figure.table) == 3


def test_many_layers_start_grouped_by_block_with_equal_totals():
    rows = [row(i, f"blocks.{i // 10}.l{i % 10}", 1 + i % 7, 0.01, 0.1) for i in range(GROUP_ABOVE + 10)]
    figure = check(waterline.figure(oracle(rows, end_to_end=None)))
    assert next(iter(figure.views)) == f"{OP_BYTE} · {BLOCKS}"
    areas = [
        sum(
            w * y
            for trace in figure.view(OP_BYTE, shown)["data"]
            if trace["type"] == "bar"
            for w, y in zip(trace["width"], trace["y"], strict=True)
        )
        for shown in (LAYERS, BLOCKS, SLOWEST)
    ]
    assert areas == pytest.approx([areas[0]] * 3, rel=1e-3)


def test_the_same_hover_text_is_kept_once():
    figure = waterline.figure(oracle())
    assert len(set(figure.hover)) == len(figure.hover)


def test_hostile_names_stay_text():
    evil = '<b>x</b><a href="javascript:alert(1)">y</a><script>z</script>%{x}'
    figure = check(waterline.figure(oracle([row(0, evil, 1, 1, 1.0, op=evil, dtype="fp32"), *ORACLE])))
    everything = list(strings([figure.drawn(*key.split(" · ")) for key in figure.views]))
    assert not any("<script" in text or "<a " in text for text in everything)
    assert any("&lt;script&gt;" in text for text in everything)


def test_pages_stay_small():
    rows = [row(i, f"blocks.{i // 8}.l{i % 8}", 1 + i % 7, 0.01, 0.1) for i in range(100)]
    figure = waterline.figure(oracle(rows))
    assert len(json.dumps(dict(figure.views))) + len(json.dumps(figure.hover)) < 200_000


def test_what_the_processor_counted_stands_beside_the_loss():
    counted = with_readings(record(), instructions_per_cycle=0.7, llc_miss_bytes=3e6, traffic_bytes=2e6)
    notes = waterline.figure(counted).notes
    assert any("0.70 instructions a cycle" in note and "3.00\u00a0MB past its caches" in note for note in notes)
    assert not any("instructions a cycle" in note for note in waterline.figure(record()).notes)
