"""Whether entries of a cohort repeat: their spread over processes, by hand, as a table and as marks."""

from types import SimpleNamespace

import pytest

from reports.figures import repeats as drawn
from reports.repeats import cohorts, table


def row(model, spans, workload="operator", set_aside=()):
    lines = [{"spans": own, "set_aside": place in set_aside} for place, own in enumerate(spans)]
    case = SimpleNamespace(workload=workload, model=model.partition("(")[0], model_label=model)
    return SimpleNamespace(record={"timing": {"invocations": lines}}, case=case)


def site(*rows):
    return SimpleNamespace(rows=list(rows))


# 1.0, 1.1, 1.2: deviation 0.1 of a mean of 1.1; 1, 1.2, 1.4: 0.2 of 1.2
ROWS = row(
    "fbnet_rows(stage=1)", [{"a": 1.0, "b": 1.0, "c": 2.0}, {"a": 1.1, "b": 1.2, "c": 2.0}, {"a": 1.2, "b": 1.4}]
)


def test_an_entry_repeats_if_its_processes_vary_by_a_tenth_at_most():
    (found,) = cohorts(site(ROWS, row("request", [{"decode": 1.0}] * 2, "pipeline"), row("plain", [{}, {}])))
    assert [(entry.name, entry.repeats) for entry in found.entries] == [("a", True), ("b", False)]  # c lacks a process
    assert [entry.deviation for entry in found.entries] == pytest.approx([0.1 / 1.1, 0.2 / 1.2])
    assert found.entries[0].ms == pytest.approx((1.0 * 1.1 * 1.2) ** (1 / 3)) and found.processes == 3


def test_the_table_says_how_many_repeat_and_names_those_that_do_not():
    steady = row("fbnet_rows(stage=2)", [{"d": 1.0}, {"d": 1.0}, {"d": 9.0}], set_aside=(2,))
    head, lines = table(cohorts(site(ROWS, steady)))
    cells = [dict(zip(head, line, strict=True)) for line in lines]
    assert [line["vary by 10 % at most"] for line in cells] == ["1 of 2", "1 of 1", "2 of 3"]
    assert [line["processes"] for line in cells] == ["3", "2", "2 to 3"]
    assert cells[0]["largest"] == "16.7 %" and cells[0]["which do not, by how much"] == "b 16.7 %"
    assert cells[2]["median"] == "9.09 %" and cells[1]["which do not, by how much"] == "-"


def test_the_figure_has_a_mark_for_each_entry_and_the_limit():
    found = drawn.figure(cohorts(site(ROWS, row("mobile_rows", [{"e": 3.0}, {"e": 3.0}]))))
    assert found.title == "2 of 3 entries repeat within 10 % between processes"
    marks = found.drawn()["data"]
    assert [trace["name"] for trace in marks] == ["fbnet_rows", "mobile_rows", "10 %"]
    assert marks[1]["customdata"] == [[1, 2]] and marks[1]["y"] == [drawn.LEAST] and "e" in marks[1]["hovertext"][0]
    assert drawn.figure([]).reason and not cohorts(site(row("one", [{"a": 1.0}])))
