import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis import roofline, roofline_of_record
from bench.analysis.roofline import (
    BEATS_BOUND,
    OVERLAP,
    Layer,
    fused,
    waterline,
)
from tests import synthetic

P, W, G = 100e12, 1e12, 1e9
EXACT = {"rel": 1e-12, "abs": 1e-12}


def layer(name, gops, gigabytes, time_ms=None, *, peak=P, bandwidth=W, **rest):
    size = None if gigabytes is None else gigabytes * G
    return Layer(name, gops * G, size, peak, bandwidth, time_ms=time_ms, **rest)


CONV = layer("conv3x3", 200, 1, 2.5, handed_on_bytes=0.4 * G)
DW = layer("dwconv", 20, 2, 4.0, handed_on_bytes=0.5 * G)
PW = layer("pw", 80, 1, 1.5)
ORACLE = [CONV, DW, PW]
COPY = layer("copy", 0, 0.5)
CACHED = layer("cached", 10, 0)


def about(value):
    return pytest.approx(value, **EXACT)


def test_oracle_bars_have_their_height_and_water():
    bars = waterline(ORACLE).bars
    rows = [(b.compute_ms, b.memory_ms, b.height, b.water_ms, b.attainable_ms, b.time_ms) for b in bars]
    assert rows[0] == about((2.0, 1.0, 2.0, 0.0, 2.0, 2.5))
    assert rows[1] == about((0.2, 2.0, 0.1, 1.8, 2.0, 4.0))
    assert rows[2] == about((0.8, 1.0, 0.8, 0.2, 1.0, 1.5))
    assert [b.state for b in bars] == ["compute-bound", "memory-bound", "memory-bound"]
    assert {b.ridge for b in bars} == {100.0}
    assert [b.intensity for b in bars] == about([200.0, 10.0, 80.0])
    assert [b.top for b in bars] == about([2.0, 1.0, 1.0])


def test_oracle_totals_and_the_two_factors_of_efficiency():
    totals = waterline(ORACLE, end_to_end_ms=8.4).totals
    assert totals.ideal_ms == about(3.0)
    assert totals.attainable_ms == about(5.0)
    assert totals.e_att == about(0.60)
    assert totals.single_dot == about(0.75)
    assert totals.measured_ms == about(8.0)
    assert totals.efficiency == about(0.375)
    assert totals.e_kernel == about(0.625)
    assert totals.e_att * totals.e_kernel == about(totals.efficiency)
    assert totals.unexplained_ms == about(0.4)
    assert totals.end_to_end_efficiency == about(3.0 / 8.4)


def test_oracle_bars_know_their_shares_of_the_whole():
    bars = waterline(ORACLE).bars
    assert [b.share_attainable for b in bars] == about([0.4, 0.4, 0.2])
    assert [b.share_measured for b in bars] == about([2.5 / 8, 0.5, 1.5 / 8])
    assert [b.efficiency for b in bars] == about([0.8, 0.05, 0.8 / 1.5])


def test_oracle_fusing_blocks_removes_twice_the_inner_bytes():
    pair = waterline(fused(ORACLE, [[1, 2]])).totals
    assert (pair.attainable_ms, pair.e_att) == about((4.0, 0.75))
    everything = waterline(fused(ORACLE, [[0, 1, 2]])).totals
    assert (everything.attainable_ms, everything.e_att) == about((3.0, 1.0))
    assert fused(ORACLE, [[1, 2]])[1].bytes_source == roofline.FUSED_NOTE


def test_fusing_by_block_name_merges_neighbours_and_keeps_each_units_compute_time():
    low = layer("a", 20, 2, peak=20e12, block="b.0", handed_on_bytes=0.5 * G)
    line = waterline(fused([CONV, low, layer("c", 80, 1, block="b.0")]))
    assert [b.name for b in line.bars] == ["conv3x3", "b.0"]
    assert line.bars[1].compute_ms == about(1.0 + 0.8)
    assert line.bars[1].time_ms is None


@pytest.mark.parametrize("blocks", [[[0, 2]], [[0, 1], [1, 2]], [[1, 0]]])
def test_fusing_refuses_layers_that_are_not_neighbours(blocks):
    with pytest.raises(ValueError, match="runs of consecutive"):
        fused(ORACLE, blocks)


def test_oracle_a_copy_is_all_water_and_has_no_efficiency():
    line = waterline([*ORACLE, layer("copy", 0, 0.5, 1.0)])
    copy = line.bars[-1]
    assert (copy.height, copy.memory_ms, copy.water_ms, copy.attainable_ms) == about((0.0, 0.5, 0.5, 0.5))
    assert copy.efficiency is None
    assert line.totals.attainable_ms == about(5.5)
    assert line.totals.e_att == pytest.approx(0.545455, abs=5e-7)


def test_oracle_work_without_traffic_has_no_width_but_counts():
    line = waterline([*ORACLE, COPY, CACHED])
    cached = line.bars[-1]
    assert (cached.memory_ms, cached.attainable_ms, cached.water_ms) == about((0.0, 0.1, 0.0))
    assert cached.height is None and cached.state == "compute-bound"
    assert line.totals.attainable_ms == about(5.6)
    assert line.totals.ideal_ms == about(3.1)
    assert line.totals.e_att == pytest.approx(0.553571, abs=5e-7)


def test_oracle_several_dtypes_each_stand_against_their_own_peak():
    slow = layer("dwconv", 20, 2, 4.0, peak=20e12)
    line = waterline([CONV, slow, PW])
    assert (line.bars[1].compute_ms, line.bars[1].height) == about((1.0, 0.5))
    assert line.totals.attainable_ms == about(5.0)
    assert line.totals.e_att == about(0.76)


def test_view_has_no_bar_and_the_note_counts_it():
    line = waterline([*ORACLE, layer("reshape", 0, 0, 0.1)], end_to_end_ms=8.4)
    assert len(line.bars) == 3 and [v.name for v in line.hidden] == ["reshape"]
    assert any(note.startswith("1 layers without operations or bytes") for note in line.notes)
    assert line.totals.unexplained_ms == about(0.4)


def test_unknown_bytes_make_attainable_a_lower_and_efficiency_an_upper_bound():
    line = waterline([CONV, layer("odd", 20, None, 4.0), PW])
    assert line.bars[1].attainable_is_bound and line.bars[1].attainable_ms == about(0.2)
    assert line.bars[1].water_ms is None and line.bars[1].state == "unknown"
    assert line.totals.attainable_is_bound and line.totals.layers_without_bytes == 1
    assert line.totals.e_att == about(3.0 / 3.2)
    assert any("<=" in note for note in line.notes)


def test_unknown_peak_gives_no_ideal_no_water_and_no_efficiency():
    line = waterline([CONV, layer("int8 layer", 20, 2, 4.0, peak=None, dtype="int8"), PW])
    totals = line.totals
    assert totals.ideal_ms is totals.e_att is totals.efficiency is totals.attainable_ms is totals.water_ms is None
    assert totals.measured_ms == about(8.0)
    assert line.bars[1].water_ms is None and line.bars[1].height is None and line.bars[1].memory_ms == about(2.0)
    assert any("int8" in note for note in line.notes)


def test_unknown_bandwidth_leaves_ideal_and_efficiency_only():
    totals = waterline([layer(x.name, x.ops / G, x.bytes / G, x.time_ms, bandwidth=None) for x in ORACLE]).totals
    assert (totals.ideal_ms, totals.efficiency) == about((3.0, 0.375))
    assert totals.attainable_ms is totals.e_att is totals.e_kernel is totals.water_ms is None


def test_time_below_the_bound_is_kept_with_a_badge():
    line = waterline([layer("conv", 200, 1, 1.0)])
    assert line.bars[0].badges == (BEATS_BOUND,)
    assert line.bars[0].efficiency == about(2.0)
    assert line.totals.e_kernel == about(2.0)
    assert not waterline([layer("conv", 200, 1, 2.0)]).bars[0].badges


def test_layers_that_sum_to_more_than_the_whole_leave_no_grey_bar():
    line = waterline(ORACLE, end_to_end_ms=7.0)
    assert line.totals.unexplained_ms is None and OVERLAP in line.notes


def test_efficiency_carries_the_interval_of_the_time():
    bar = waterline([layer("conv", 200, 1, 2.5, time_low_ms=2.0, time_high_ms=4.0)]).bars[0]
    assert (bar.efficiency_low, bar.efficiency, bar.efficiency_high) == about((0.5, 0.8, 1.0))


NUMBERS = st.floats(1e-3, 1e3)
LAYERS = st.lists(
    st.builds(
        lambda f, b, t: layer("x", f, b, t), st.one_of(st.just(0.0), NUMBERS), st.one_of(st.just(0.0), NUMBERS), NUMBERS
    ),
    min_size=1,
    max_size=12,
)


@given(LAYERS)
@settings(deadline=None)
def test_bars_and_water_make_the_attainable_time_and_one_dot_is_never_less_optimistic(layers):
    line = waterline(layers)
    totals = line.totals
    assert totals.ideal_ms + totals.water_ms == pytest.approx(totals.attainable_ms)
    if totals.e_att is not None:
        assert totals.single_dot >= totals.e_att * (1 - 1e-12)
        assert totals.e_att * totals.e_kernel == pytest.approx(totals.efficiency)
        assert totals.e_att <= 1 + 1e-12


@given(LAYERS)
@settings(deadline=None)
def test_fusing_never_makes_the_bound_slower(layers):
    handed = [
        Layer(a.name, a.ops, a.bytes, P, W, handed_on_bytes=min(a.bytes, b.bytes) / 2)
        for a, b in zip(layers, [*layers[1:], layers[0]], strict=True)
    ]
    plain, merged = waterline(handed).totals, waterline(fused(handed, [range(len(handed))])).totals
    assert merged.attainable_ms <= plain.attainable_ms * (1 + 1e-9)
    assert merged.ideal_ms == pytest.approx(plain.ideal_ms)


# ------------------------------------------------------------------------------------------------ records


def test_record_is_drawn_against_the_peak_of_its_own_dtype_and_threads():
    record = synthetic.record()
    line, _ = roofline_of_record.from_record(record)
    ops = sum(2 * row["macs"] for row in record["layers"])
    assert line.totals.ops == about(ops)
    assert line.totals.ideal_ms == about(1e3 * ops / 1.76e11)
    assert line.bars[0].layer.vector_ops == 4e5 and line.bars[0].ops == 0
    assert line.bars[1].layer.block == "blocks.0"
    assert line.totals.memory_ms == about(
        1e3 * sum(r["read_bytes"] + r["write_bytes"] for r in record["layers"]) / 1.37e10
    )


@pytest.mark.parametrize("change", [{"dtype": "int8"}, {"threads": 2}, {"device": "cuda"}])
def test_record_never_borrows_another_dtypes_threads_or_devices_peak(change):
    record = synthetic.record(**change)
    for row in record["layers"]:
        row["dtype"] = change.get("dtype", row["dtype"])
    for peak in record["machine"]["peaks"]:
        peak.setdefault("device", "cpu")
    record["machine"] = {**record["machine"], "bandwidth": {**record["machine"]["bandwidth"], "device": "cpu"}}
    line, reason = roofline_of_record.from_record(record)
    assert line.totals.ideal_ms is None and line.totals.measured_ms is not None
    assert "no peak was measured" in reason and "job=calibrate" in reason


@pytest.mark.parametrize(("of_row", "peak", "drawn"), [("float32", 4e11, "tf32"), ("float16", 9e11, "fp16")])
def test_layers_of_a_tf32_case_are_drawn_against_the_tf32_peak(of_row, peak, drawn):
    """A trace names the type of the tensors, and TF32 computes on fp32 ones; what is half precision stays so."""
    record = synthetic.record(dtype="tf32", device="cuda")
    for row in record["layers"]:
        row["dtype"] = of_row
    rates = {"fp32": 6e10, "tf32": 4e11, "fp16": 9e11}
    record["machine"] = {
        "peaks": [{"dtype": name, "unit": "op/s", "value": rate, "device": "cuda:0"} for name, rate in rates.items()],
        "bandwidth": {"unit": "B/s", "value": 1.37e10, "device": "cuda:0"},
    }
    line, reason = roofline_of_record.from_record(record)
    ops = sum(2 * row["macs"] for row in record["layers"])
    assert line.totals.ideal_ms == about(1e3 * ops / peak) and "no peak" not in reason
    assert {bar.layer.dtype for bar in line.bars} == {drawn}


def test_operators_that_could_not_be_counted_are_told():
    record = synthetic.record()
    record["layers"][1]["uncounted"] = ["mine::op"]
    line, reason = roofline_of_record.from_record(record)
    assert (
        line.bars[1].layer.uncounted == ("mine::op",) and "1 layers hold operators that could not be counted" in reason
    )


def test_thread_count_can_be_chosen():
    assert roofline_of_record.from_record(synthetic.record(threads=2), threads=1)[0].totals.ideal_ms is not None


def test_record_without_layers_says_why():
    assert roofline_of_record.from_record(synthetic.record(status="crashed")) == (
        None,
        "no layers were recorded (the case is crashed)",
    )


def test_inner_bytes_of_a_record_are_what_both_neighbours_admit():
    layers, _ = roofline_of_record.layers_of(synthetic.record())
    norm, fc1 = synthetic.record()["layers"][:2]
    assert layers[0].handed_on_bytes == min(norm["write_bytes"], fc1["read_bytes"] - fc1["weight_bytes"])
    assert layers[-1].handed_on_bytes is None


def test_readings_are_modelled_or_say_why_not():
    ideal, attainable = roofline.readings(waterline(ORACLE))
    assert (ideal.value, attainable.value) == about((3.0, 5.0))
    assert {ideal.provenance, attainable.provenance} == {"modelled"}
    gone = roofline.readings(waterline([layer("x", 1, 1, peak=None, dtype="int8")]))
    assert [r.provenance for r in gone] == ["unavailable"] * 2 and "int8" in gone[0].method_note


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("blocks.3", "blocks.3"),
        ("blocks.3.mlp.fc1", "blocks.3"),
        ("layer1.0.conv1", "layer1.0"),
        ("features.1.0.attn.qkv", "features.1.0"),
        ("features.3.conv.0.0", "features.3"),
        ("layers.0.blocks.1.attn.qkv", "layers.0.blocks.1"),
        ("head", ""),
        ("encoder.layers.encoder_layer_0.mlp.0", "encoder.layers.encoder_layer_0"),
        ("0", ""),
        ("", ""),
    ],
)
def test_block_of_a_module_path(path, block):
    assert roofline.block_of(path) == block
