"""The student stands beside its teacher and the same network trained plainly, by cost and with what training took."""

import math
from types import SimpleNamespace

from reports.figures import taught
from reports.taught import table as of_students
from tests.reports.figures.rows import case, rows
from tests.reports.figures.specs import check


def learned(role, model, latency, accuracy, seconds, **fields):
    made = case("none", latency, accuracy, model=model, **fields)
    return {**made, "weights": {"kind": "trained", "role": role, "seconds": seconds}}


LISTED = rows(
    learned("teacher", "deit_base", 40.0, 92.0, 3.0),
    learned("student", "deit_tiny", 2.0, 90.0, 5.5),
    learned("control", "deit_small", 2.0, 80.0, 2.0),
    case("evit", 30.0, 91.0),
)


def test_marks_are_shaped_by_what_a_row_is_and_other_rows_stay_out():
    figure = check(taught.figure(LISTED))
    marks = {trace["name"].partition(":")[0]: trace for trace in figure.spec["data"]}
    assert set(marks) == {"teacher", "student", "control"}
    assert {name: trace["marker"]["symbol"] for name, trace in marks.items()} == taught.ROLES
    assert marks["student"]["y"] == [90.0]


def test_the_table_has_every_row_with_what_training_took():
    table = taught.figure(LISTED).table.set_index("role")
    assert len(table) == 4 and table.loc["student", "training (s)"] == 5.5
    assert table.loc["control", "accuracy"] == 80.0


def test_the_table_of_a_finding_has_teacher_student_and_control_with_what_pays():
    held = SimpleNamespace(
        groups=[SimpleNamespace(index=0)], in_group=lambda index: LISTED, baseline=lambda row: LISTED[0]
    )
    _, lines = of_students(held)
    assert [line[1] for line in lines] == ["teacher", "student", "control"]
    assert " 90 %" in lines[1][2]
    assert lines[1][-1] == f"{math.ceil(5.5 / 0.038):,}" and lines[0][-1] == "-"  # 5.5 s, and 38 ms saved each time


def test_what_a_method_learned_comes_after_what_the_task_did():
    made = case("scalekd", 2.0, 91.0)
    by_method = {**made, "weights": {"kind": "trained", "seconds": 4.0, "method": {"role": "student", "seconds": 9.0}}}
    row = rows(by_method)[0]
    assert (taught.role(row), taught.training_seconds(row)) == ("student", 9.0)


def test_the_title_says_what_teaching_gave():
    title = taught.figure(LISTED).title
    assert "deit_tiny has 90" in title and "its teacher 92" in title and "trained plainly 80" in title


def test_without_a_student_beside_another_there_is_no_such_figure():
    assert taught.wanted(LISTED)
    assert not taught.wanted(rows(learned("teacher", "deit_base", 40.0, 92.0, 3.0)))
    assert not taught.wanted(rows(case("none", 1.0, 90.0), case("evit", 1.0, 80.0)))
    assert taught.figure(rows(case("none", 1.0, 90.0))).reason
