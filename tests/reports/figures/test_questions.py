"""Answers stand by type of question, each against a cost, with blind dropping as the line to beat."""

from bench.reading import reading
from reports.figures import questions
from tests.reports.figures.rows import case, rows
from tests.reports.figures.specs import check


def asked(name, tokens, position, count, **fields):
    made = case(name, 1.0, (position + count) / 2, **fields)
    made["readings"].append(reading("visual_tokens_mean", tokens, "counted", part="prefill").as_dict())
    by_type = {
        kind: {"value": value, "low": value - 5, "high": value + 5, "n": 200}
        for kind, value in {"position": position, "count": count}.items()
    }
    return {
        **made,
        "quality": {**(made.get("quality") or {}), "metric": "accuracy", "details": {"by_question": by_type}},
    }


LISTED = rows(
    asked("none", 64, 90, 60),
    asked("uniform", 32, 50, 55),
    asked("random", 32, 40, 58),
    asked("fastv", 40, 80, 56),
    case("untyped", 1.0, 70.0),
)


def test_blind_dropping_is_joined_by_its_best_row_at_each_cost():
    assert questions.blind_line(LISTED, "position", "visual_tokens_mean", "prefill") == [(32, 50), (64, 90)]
    assert questions.blind_line(LISTED, "count", "visual_tokens_mean", "prefill") == [(32, 58), (64, 60)]


def test_every_type_has_a_view_and_a_column_with_its_interval():
    figure = check(questions.figure(LISTED))
    assert [control.options for control in figure.controls] == [("position", "count"), ("Visual tokens",)]
    table = figure.table.set_index("method")
    assert table.loc["fastv", "position (%)"] == 80 and table.loc["fastv", "position high"] == 85
    assert table.loc["untyped", "position (%)"] is None
    marks = [trace for trace in figure.view("position", "Visual tokens")["data"] if trace["mode"] == "markers"]
    assert sum(len(trace["x"]) for trace in marks) == 4 and marks[0]["error_y"]["array"] == [5]


def test_the_title_names_the_type_that_loses_most():
    # position loses 90 - (50 + 40 + 80) / 3 = 33.3 points, count 60 - 56.33
    assert questions.figure(LISTED).title == "Fewer tokens cost position most: 33.3 points on average"


def test_rows_without_types_have_no_such_figure():
    assert questions.wanted(LISTED) and not questions.wanted(rows(case("none", 1.0, 90.0), case("fastv", 1.0, 80.0)))
    assert questions.figure(rows(case("none", 1.0, 90.0))).reason
