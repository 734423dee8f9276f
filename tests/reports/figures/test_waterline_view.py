"""What is drawn of a waterline: grouping moves no total; the gap flips only where intervals are apart."""

import math

from bench.analysis.roofline import waterline
from reports.figures.bars import left_edges
from reports.figures.gap import GapPoint, rank_flips
from reports.figures.waterline_view import grouped, top_share
from tests.analysis.test_roofline import ORACLE, about, layer


def test_bars_touch_and_one_of_unknown_width_leaves_no_hole():
    assert left_edges([1.0, 2.0, 1.0]) == [0.0, 1.0, 3.0]
    assert left_edges([1.0, None, 1.0]) == [0.0, 1.0, 1.0]
    assert left_edges([]) == []


def test_grouping_and_the_top_share_move_no_total():
    line = waterline([layer(f"blocks.{i // 50}.{i}", 20 + i, 1, 1.0, block=f"blocks.{i // 50}") for i in range(250)])
    few = grouped(line)
    assert [b.name for b in few.bars] == [f"blocks.{i}" for i in range(5)]
    assert math.fsum(b.attainable_ms for b in few.bars) == about(line.totals.attainable_ms)
    assert math.fsum(b.water_ms for b in few.bars) == about(line.totals.water_ms)
    assert few.totals == line.totals and len(few.bars[0].members) == 50
    assert grouped(waterline(ORACLE)).bars == waterline(ORACLE).bars  # no blocks, nothing to group


def test_group_of_compute_and_memory_bound_layers_keeps_its_water():
    one = grouped(waterline(ORACLE), key=lambda bar: "all").bars[0]
    assert (one.compute_ms, one.memory_ms, one.attainable_ms, one.water_ms) == about((3.0, 4.0, 5.0, 2.0))
    assert (one.top - one.height) * one.memory_ms == about(2.0)


def test_top_share_of_time_keeps_the_slowest_in_order_and_one_other_bar():
    shown = top_share(waterline([*ORACLE, layer("tail", 1, 0.1, 0.1)]), 0.8)
    assert [b.name for b in shown.bars] == ["conv3x3", "dwconv", "other"]
    assert math.fsum(b.time_ms for b in shown.bars) == about(8.1)
    assert shown.bars[-1].members == ("pw", "tail")
    assert len(top_share(waterline(ORACLE), 1.0).bars) == 3


# ------------------------------------------------------------------------------------------------ efficiency gap


def test_gap_on_a_log_axis_splits_into_shape_and_kernels():
    point = GapPoint("m", measured_ms=8.0, ideal_ms=3.0, attainable_ms=5.0)
    assert point.gap == about(math.log(1 / 0.375))
    assert point.gap_parts == about((math.log(1 / 0.6), math.log(1 / 0.625)))
    assert math.fsum(point.gap_parts) == about(point.gap)
    assert GapPoint("m", 8.0).gap is None


def test_rank_flip_needs_measured_intervals_that_do_not_overlap():
    fast_on_paper = GapPoint("a", 5.0, 4.8, 5.2, ideal_ms=1.0)
    slow_on_paper = GapPoint("b", 4.0, 3.9, 4.1, ideal_ms=2.0)
    unsure = GapPoint("c", 4.5, 4.0, 5.0, ideal_ms=3.0)
    assert rank_flips([fast_on_paper, slow_on_paper, unsure]) == [("a", "b")]
    assert rank_flips([slow_on_paper, GapPoint("d", 1.0, 0.9, 1.1)]) == []
