"""The break-even hop: by hand, and drawn with a rising line a stream and a level one for its window."""

from types import SimpleNamespace

import pytest

from reports.figures import hops
from reports.figures.theme import family_styles
from reports.hops import HOPS, courses, table


def row(name, step, clip, *, base=False, workload="stream", ranked=True):
    values = {("time_per_step_ms", "step"): step, ("latency_ms", "clip"): clip, ("break_even_hop_macs", "step"): 8.0}
    return SimpleNamespace(
        ranked=ranked, name=name, family=name, value=lambda metric, part="": values.get((metric, part)),
        case=SimpleNamespace(is_baseline=base, batch=1, workload=workload, model_label="small"),
    )  # fmt: skip


def site(*rows):
    return SimpleNamespace(rows=rows)


def test_a_stream_takes_every_step_and_a_window_is_run_once():
    (course,) = courses(site(row("co3d", 2.0, 10.0)))
    assert course.break_even == 5.0 and course.cost(5) == course.clip_ms and course.cost(1) == 2.0


def test_only_streams_that_were_timed_and_are_compared_have_a_course():
    left_out = [
        row("none", 9.0, 9.0, base=True), row("other", 1.0, 2.0, workload="forward"), row("untimed", None, 2.0),
        row("broken", 1.0, 2.0, ranked=False),
    ]  # fmt: skip
    assert courses(site(*left_out)) == []


def test_the_table_and_the_figure_name_the_break_even_hop():
    found = courses(site(row("co3d", 2.0, 10.0), row("late", 4.0, 2.0)))
    _, lines = table(found)
    assert lines[0] == ["co3d", "small, batch 1", "2 ms", "10 ms", "5 steps", "8 steps"]
    drawn = hops.figure(found, styles=family_styles(["co3d", "late"]))
    assert drawn.title == "co3d is cheaper than its window up to a hop of 5 steps"
    (spec,) = drawn.views.values()
    rising, level, *_ = spec["data"]
    assert rising["y"] == pytest.approx([2.0 * hop for hop in HOPS]) and set(level["y"]) == {10.0}
    assert hops.figure(found[1:], styles=family_styles(["late"])).title.startswith("No stream is cheaper")
    assert hops.figure([], styles={}).reason


def test_a_chunk_of_inputs_is_so_many_steps():
    chunk = row("chunks", 8.0, 10.0)
    plain = chunk.value
    chunk.value = lambda metric, part="": 4.0 if metric == "outputs_per_answer" else plain(metric, part)
    (course,) = courses(site(chunk))
    assert (course.step_ms, course.break_even, course.macs_hop) == (2.0, 5.0, 32.0)
