import pytest

from reports.figures import pareto
from tests.reports.figures.rows import case, rows, with_readings
from tests.reports.figures.specs import check
from tests.synthetic import record, suite_records

ORACLE = {
    "A": ((0.9, 1, 1.1), (69.5, 70, 70.5)),
    "B": ((1.9, 2, 2.1), (74.5, 75, 75.5)),
    "C": ((2, 2.2, 2.4), (74.4, 74.9, 75.4)),
    "D": ((3.8, 4, 4.2), (72, 72.5, 73)),
    "E": ((3.9, 4.1, 4.3), (77.5, 78, 78.5)),
}


def oracle():
    return rows(*(case(name, latency, accuracy) for name, (latency, accuracy) in ORACLE.items()))


def front():
    return pareto.front(oracle(), "latency_ms", "accuracy")


def test_standings_are_those_of_the_oracle():
    standing = {s.row.case.method: s.placed.standing for s in front().standings}
    assert standing == {"A": "front", "B": "front", "E": "front", "C": "plausible", "D": "certified-dominated"}


def test_front_members_are_numbered_from_the_fastest():
    assert [(s.number, s.row.case.method) for s in front().members("front")] == [(1, "A"), (2, "B"), (3, "E")]


def test_staircase_goes_right_then_up():
    assert front().corners == ([1, 2, 2, 4.1, 4.1], [70, 70, 75, 75, 78])


def test_opacity_follows_the_probability():
    trace = next(t for t in pareto.figure(oracle()).spec["data"] if t["name"] == "C")
    assert trace["marker"]["opacity"][0] == pytest.approx(0.25 + 0.75 * 0.415, abs=0.03)
    assert (pareto.opacity(0), pareto.opacity(1), pareto.opacity(None)) == (0.25, 1.0, 0.25)


def test_only_the_certainly_dominated_are_hollow():
    spec = pareto.figure(oracle()).spec
    hollow = [
        t["name"] for t in spec["data"] if t.get("mode") == "markers" and t["marker"]["symbol"][0].endswith("-open")
    ]
    assert hollow == ["D"]


def test_title_counts_what_is_sure_and_what_may_be():
    figure = check(pareto.figure(oracle()))
    assert figure.title == "3 of 5 cases are on the front of accuracy and latency, 1 more may be, 1 is dominated"
    assert "1 deit_tiny · A; 2 deit_tiny · B; 3 deit_tiny · E" in figure.notes[0]


def test_table_says_by_whom_a_case_is_beaten():
    table = pareto.figure(oracle()).table.set_index("method")
    assert table.loc["D", "for certain by"] == "deit_tiny · B; deit_tiny · C"
    assert table.loc["A", "number on the front"] == 1 and table.loc["C", "number on the front"] is None
    assert table.loc["B", "P(front): accuracy, latency_ms"] == pytest.approx(0.985, abs=0.02)


def test_every_pair_of_metrics_that_differ_is_offered():
    figure = check(pareto.figure(rows(*suite_records())))
    assert figure.controls[0].options == (
        "Accuracy against latency",
        "Accuracy against MACs",
        "Latency (p50) against MACs",
    )
    assert len(figure.views) == 3


def test_failed_cases_stay_in_the_table_without_a_standing():
    figure = pareto.figure(rows(*suite_records()))
    failed = figure.table[figure.table["standing"] == "crashed"]
    assert len(failed) == 1 and list(failed["accuracy (%)"]) == [None]


def test_two_kinds_of_evidence_never_share_an_axis():
    published = with_readings(case("P", (1, 2, 3)), accuracy=(70, 71, 72))
    published["readings"][-1]["provenance"] = "published"
    found = pareto.front(rows(*(case(n, *v) for n, v in ORACLE.items()), published), "latency_ms", "accuracy")
    assert found.left_out == ("deit_tiny · P",)


def test_exact_ties_stay_on_the_front_together():
    made = rows(
        case("a", (1, 2, 3), (70, 71, 72)), case("b", (1, 2, 3), (70, 71, 72)), case("c", (2, 4, 5), (60, 61, 62))
    )
    assert [s.row.case.method for s in pareto.front(made, "latency_ms", "accuracy").members("front")] == ["a", "b"]


def test_one_row_or_only_failures_have_a_reason():
    for made in (rows(record(accuracy=90.0)), rows(record(status="crashed")), []):
        figure = check(pareto.figure(made))
        assert figure.spec is None and "fewer than two" in figure.reason


def test_a_mark_leads_to_its_row():
    figure = pareto.figure(oracle())
    for trace in figure.spec["data"]:
        for item in trace.get("customdata", []):
            assert figure.table["method"][item[0]] == trace["name"]


def test_many_rows_draw_one_pair_only():
    many = rows(
        *(
            case(f"m{i}", (1 + i, 2 + i, 3 + i), (60 + i / 9, 61 + i / 9, 62 + i / 9))
            for i in range(pareto.MANY_ROWS + 1)
        )
    )
    figure = pareto.figure(many)
    assert len(figure.views) == 1 and any("only one pair" in note for note in figure.notes)
