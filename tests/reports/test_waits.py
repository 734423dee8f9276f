"""What is waited for stands over measured contexts only, with the roofline's share of it, plain cases included."""

from types import SimpleNamespace

import pytest

from reports.figures import waiting
from reports.figures.theme import Style
from reports.rows import Cell
from reports.waits import table, waits


class _Row(SimpleNamespace):
    def value(self, metric, part=""):
        return self.bounds.get((metric, part))


def row(name, context, first, later, bounds=(1.0, 0.5), batch=1, ranked=True):
    case = SimpleNamespace(
        full_shape={"context": context, "new_tokens": 4}, axes={"context": context, "new_tokens": 4}, batch=batch,
        device="cpu", dtype="fp32", backend="eager", task="none",
    )  # fmt: skip
    cells = {"time_to_first_token_ms": Cell(first, first - 1, first + 1, 3, "measured")}
    if later is not None:
        cells["time_per_output_token_ms"] = Cell(later, later, later, 3, "measured")
    known = {("attainable_ms", "prefill"): bounds[0], ("attainable_ms", "decode"): bounds[1]}
    return _Row(name=name, family=name, machine_key="m", case=case, cells=cells, bounds=known, ranked=ranked)


ROWS = [
    row("plain", 32, 4.0, 2.0), row("plain", 128, 10.0, 2.5), row("int8", 32, 5.0, None), row("int8", 128, 11.0, 5.0),
    row("once", 32, 5.0, 2.0), row("bad", 32, 5.0, 2.0, ranked=False), row("bad", 128, 5.0, 2.0, ranked=False),
]  # fmt: skip


def test_cases_that_were_timed_at_two_contexts_are_courses_of_each_wait():
    found = waits(ROWS)
    assert [(one.kind, one.name) for one in found] == [
        ("first token", "plain"), ("first token", "int8"), ("later token", "plain"),
    ]  # fmt: skip
    assert [point.context for point in found[0].points] == [32.0, 128.0]
    assert found[0].points[1].explained == pytest.approx(0.1)
    assert found[2].points[0].explained == pytest.approx(0.25)


def test_batches_and_repeated_plain_rows_are_kept_apart_and_together():
    apart = waits([row("plain", 32, 4.0, 2.0), row("plain", 128, 4.0, 2.0, batch=16)])
    assert [len(one.points) for one in apart] == []  # one context each
    again = waits([*ROWS[:2], row("plain", 32, 4.2, 2.1)])
    assert [len(one.points) for one in again] == [2, 2]


def test_the_table_names_every_context_and_what_was_not_measured():
    head, lines = table(waits([*ROWS[:2], row("plain", 512, 40.0, None, bounds=(None, None))]))
    assert head == ["waited for", "case", "batch", "context 32 (ms)", "context 128 (ms)", "context 512 (ms)"]
    assert lines[0] == ["first token", "plain", "1", "4, roofline 25 %", "10, roofline 10 %", "40"]
    assert lines[1] == ["later token", "plain", "1", "2, roofline 25 %", "2.5, roofline 20 %", "-"]


def test_the_figure_has_a_view_per_wait_and_batch_with_a_dashed_roofline():
    style = dict.fromkeys(("plain", "int8"), Style("#123456", "circle"))
    figure = waiting.figure(waits(ROWS), styles=style)
    assert list(figure.views) == ["first token, batch 1", "later token, batch 1"]
    assert figure.title == "The roofline explains 20 to 25 % of a later token, most for plain at context 32, batch 1"
    drawn = figure.views["later token, batch 1"]["data"]
    assert [trace["line"].get("dash") for trace in drawn] == [None, "dash"]
    assert drawn[0]["y"] == [2.0, 2.5] and drawn[1]["y"] == [0.5, 0.5]
    assert "two contexts" in waiting.figure([], styles=style).reason
