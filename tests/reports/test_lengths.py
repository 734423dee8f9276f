"""From which length a method pays is said of measured lengths only, and only where the interval is surely above 1."""

from types import SimpleNamespace

import pytest

from reports.figures import length_gain
from reports.figures.theme import Style
from reports.lengths import GAIN, LOSS, UNKNOWN, UNSURE, Course, Point, table
from reports.rows import Cell

FASTER, SLOWER, OPEN = (1.1, 1.3), (0.7, 0.9), (0.9, 1.1)


def point(length, span, cache=0.25, explained=0.1, other=0.2):
    cell = Cell(None, note="no time") if span is None else Cell(sum(span) / 2, *span, 3, "measured")
    return Point(float(length), SimpleNamespace(name="m"), cell, cache, explained, other)


def course(*spans):
    return Course("m", "m", "context", 4, tuple(point(128 * 4**i, span) for i, span in enumerate(spans)))


@pytest.mark.parametrize(
    "spans, first",
    [
        ((FASTER, FASTER), 128), ((SLOWER, OPEN, FASTER), 2048), ((OPEN, FASTER, FASTER), 512),
        ((FASTER, OPEN, FASTER), 2048), ((FASTER, FASTER, OPEN), None), ((FASTER, None, FASTER), 2048),
        ((SLOWER, SLOWER), None), ((None, None), None),
    ],
)  # fmt: skip
def test_a_method_pays_from_the_length_after_which_every_interval_is_above_one(spans, first):
    assert course(*spans).pays_from == first


def test_a_point_is_a_gain_a_loss_or_open():
    found = [point(1, span).verdict for span in (FASTER, SLOWER, OPEN, (1.0, 1.2), None)]
    assert found == [GAIN, LOSS, UNSURE, UNSURE, UNKNOWN]


def test_the_table_names_every_measured_length_and_what_was_not_measured():
    other = Course("n", "n", "context", 4, (point(512, OPEN, cache=None, explained=None), point(2048, None)))
    head, lines = table([course(SLOWER, FASTER), other])
    assert head == ["case", "batch", "context 128", "context 512", "context 2048", "pays from"]
    assert lines[0] == [
        "m", "4", "0.80x [0.70, 0.90], cache 0.25, roofline 10 % (other side 20 %)",
        "1.20x [1.10, 1.30], cache 0.25, roofline 10 % (other side 20 %)", "-", "context 512",
    ]  # fmt: skip
    assert lines[1] == [
        "n", "4", "-", "1.00x [0.90, 1.10]", "unavailable (no time)", "not at any length that was measured",
    ]  # fmt: skip


def test_a_case_that_loses_again_is_said_to_pay_where_it_does():
    cells = [line[-1] for line in table([course(FASTER, FASTER, SLOWER), course(SLOWER, FASTER, OPEN)])[1]]
    assert cells == ["at context 128, 512 alone", "at context 512 alone"]


def test_the_figure_has_a_view_per_batch_and_says_what_pays():
    style = {"m": Style("#123456", "circle")}
    figure = length_gain.figure([course(SLOWER, OPEN, FASTER)], styles=style)
    assert figure.title == "m pays from context 2048 at batch 4; 1 of 1 cases pay"
    (spec,) = figure.views.values()
    assert spec["data"][0]["x"] == [128.0, 512.0, 2048.0]
    nothing = length_gain.figure([course(None, None)], styles=style)
    assert "no speed-up was measured" in str(nothing)
