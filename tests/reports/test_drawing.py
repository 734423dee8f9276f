"""Figures on a page: long data are packed, a table that two share is told once, cells are the scripts' text."""

import json

import pytest

from reports.drawing import draw, shown, together
from reports.figures.figure import Figure, table_of
from reports.packing import FROM, packed, unpacked
from reports.safe import inert_json


def figure(id, hover=(), rows=({"layer": "fc", "ms": 1.5},)):
    return Figure(id, "t", "h", table_of(rows), {"": {"data": [], "layout": {}}}, hover=hover)


@pytest.mark.parametrize("letters", [10, FROM, 50 * FROM])
def test_what_is_packed_comes_back_and_is_inert(letters):
    value = {"text": "</script>&\u2028ä" * (letters // 10)}
    made = packed(inert_json(value))
    assert unpacked(made) == value and "<" not in made
    json.loads(made)
    assert (len(made) < letters / 5) or letters <= FROM


def test_a_table_and_texts_that_an_earlier_figure_has_are_told_there_alone():
    first, same, other = together(
        draw(each)
        for each in (figure("a", ("p", "q")), figure("b", ("q", "r")), figure("c", rows=[{"layer": "fc", "ms": 2.5}]))
    )
    told = unpacked(same.data)
    assert told["of"] == same.numbers_of == "a" and told["hover"] == [1, "r"] and "rows" not in told
    assert not same.lines and same.total == 1
    assert not first.numbers_of and not other.numbers_of and unpacked(other.data)["rows"] == [["fc", 2.5]]


def test_cells_have_four_digits_in_columns_with_fractions_and_a_dash_where_nothing_is_known():
    drawn = draw(figure("a", rows=[{"n": 3, "ms": 12.345678}, {"n": 4000, "ms": 2}, {"n": None, "ms": float("nan")}]))
    assert drawn.lines == [["3", "12.35"], ["4\u202f000", "2.000"], ["—", "—"]]
    assert [shown(value, True) for value in (True, "x", 0, -0.00012)] == ["true", "x", "0", "\u22120.0001200"]
