"""The waterline's rectangles against the hand-computed oracle (P = 100 Top/s, W = 1 TB/s)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.roofline import Layer, waterline
from reports.figures import bars

TERA = 1e12


def layer(name, gop, gb, time_ms=None, peak=100 * TERA, bandwidth=TERA, **rest):
    size = None if gb is None else gb * 1e9
    return Layer(name, gop * 1e9, size, peak, bandwidth, time_ms=time_ms, **rest)


ORACLE = [layer("conv3x3", 200, 1, 2.5), layer("dwconv", 20, 2, 4.0), layer("pw", 80, 1, 1.5)]


def flat(marks):
    return [(m.bar, m.kind, *(round(v, 9) for v in (m.x, m.width, m.low, m.high))) for m in marks]


def test_op_byte_view_puts_intensity_under_the_water_level():
    assert flat(bars.op_byte(waterline(ORACLE).bars)) == [
        (0, "above", 0, 1, 0, 2.0),
        (1, "under", 1, 2, 0, 0.1),
        (1, "water", 1, 2, 0.1, 1.0),
        (2, "under", 3, 1, 0, 0.8),
        (2, "water", 3, 1, 0.8, 1.0),
    ]


def test_work_and_water_in_the_op_byte_view_are_ideal_and_attainable_time():
    marks = bars.op_byte(waterline(ORACLE).bars)
    water = sum(m.area for m in marks if m.kind == "water")
    work = sum(m.area for m in marks if m.kind != "water")
    assert (work, water) == (pytest.approx(3.0), pytest.approx(2.0))
    assert work / (work + water) == pytest.approx(0.60)


def test_attainable_view_is_as_wide_as_the_attainable_time():
    assert flat(bars.attainable(waterline(ORACLE).bars)) == [
        (0, "above", 0, 2, 0, 1.0),
        (1, "under", 2, 2, 0, 0.1),
        (1, "water", 2, 2, 0.1, 1.0),
        (2, "under", 4, 1, 0, 0.8),
        (2, "water", 4, 1, 0.8, 1.0),
    ]


def test_measured_view_splits_a_layer_into_ideal_and_dram_and_leaves_the_kernels_loss_empty():
    line = waterline(ORACLE, end_to_end_ms=8.4)
    assert flat(bars.measured(line.bars, line.totals.unexplained_ms)) == [
        (0, "above", 0, 2.5, 0, 0.8),
        (1, "under", 2.5, 4, 0, 0.05),
        (1, "dram", 2.5, 4, 0.05, 0.5),
        (2, "under", 6.5, 1.5, 0, round(0.8 / 1.5, 9)),
        (2, "dram", 6.5, 1.5, round(0.8 / 1.5, 9), round(1 / 1.5, 9)),
        (None, "unexplained", 8.0, 0.4, 0, 1),
    ]


def test_a_copy_is_all_water_and_a_view_is_nothing():
    marks = bars.op_byte(waterline([layer("copy", 0, 0.5), layer("view", 0, 0)]).bars)
    assert flat(marks) == [(0, "water", 0, 0.5, 0, 1)]


def test_work_without_bytes_has_no_width_in_the_op_byte_view_and_counts_in_the_attainable_one():
    line = waterline([layer("conv", 200, 1), layer("cached", 10, 0)])
    assert [m.bar for m in bars.op_byte(line.bars)] == [0]
    assert flat(bars.attainable(line.bars))[-1] == (1, "above", 2, 0.1, 0, 1)


def test_unknown_bytes_are_marked_and_never_drawn_as_compute_bound():
    line = waterline([layer("conv", 200, 1), layer("odd", 10, None)])
    assert [m.bar for m in bars.op_byte(line.bars)] == [0]
    assert bars.attainable(line.bars)[-1].kind == "unknown"


def test_unknown_peak_draws_outlines_only():
    line = waterline([layer("int8", 10, 1, 1.0, peak=None)])
    assert {m.kind for m in bars.op_byte(line.bars)} == {"unknown"}
    assert {m.kind for m in bars.measured(line.bars, None)} == {"unknown"}


def test_each_layer_is_measured_against_its_own_peak():
    line = waterline([ORACLE[0], layer("dwconv", 20, 2, peak=20 * TERA), ORACLE[2]])
    dw = next(m for m in bars.op_byte(line.bars) if m.bar == 1)
    assert dw.high == pytest.approx(0.5)
    assert line.totals.e_att == pytest.approx(0.76)


def test_a_layer_faster_than_its_bound_is_drawn_above_the_line_not_clipped():
    marks = bars.measured(waterline([layer("dwconv", 20, 2, 1.0)]).bars, None)
    assert max(m.high for m in marks) == pytest.approx(2.0)


def test_estimated_bytes_are_marked_for_hatching():
    guessed, counted = (layer(s, 80, 1, bytes_source=s) for s in ("estimated", "counted"))
    marks = bars.op_byte(waterline([guessed, counted]).bars)
    assert [m.estimated for m in marks if m.kind == "under"] == [True, False]


amounts = st.floats(0.0, 1e3, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-6)


@given(st.lists(st.tuples(amounts, amounts, st.floats(1e-3, 1e3)), min_size=1, max_size=8))
def test_marks_of_every_view_add_up_to_the_totals(rows):
    line = waterline([layer(str(i), f, b, t) for i, (f, b, t) in enumerate(rows)])
    shown, totals = line.bars, line.totals

    def work(marks):
        return sum(m.area for m in marks if m.kind in ("above", "under"))

    attainable, measured = bars.attainable(shown), bars.measured(shown, None)
    assert work(attainable) == pytest.approx(totals.ideal_ms, abs=1e-9)
    assert work(measured) == pytest.approx(totals.ideal_ms, abs=1e-9)
    assert sum(m.area for m in attainable) == pytest.approx(totals.attainable_ms, abs=1e-9)
    if all(b > 0 for _, b, _ in rows):
        marks = bars.op_byte(shown)
        assert work(marks) == pytest.approx(totals.ideal_ms, abs=1e-9)
        assert sum(m.area for m in marks) == pytest.approx(totals.attainable_ms, abs=1e-9)
