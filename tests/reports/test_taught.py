"""After how many answers a student's training is paid: by hand, and unknown where it is not faster for certain."""

from types import SimpleNamespace

from reports.taught import table
from tests.reports.figures.rows import case, rows, with_readings


def paid(latency, speedup):
    """The last column of a student that took 10 s to train, beside a teacher that answers in 4 ms."""
    plain = case("none", 4.0, 90.0)
    student = with_readings(case("tome", latency, 85.0), speedup=speedup)
    listed = rows({**plain, "weights": {"role": "teacher", "seconds": 3.0}},
                  {**student, "weights": {"role": "student", "seconds": 10.0}})  # fmt: skip
    site = SimpleNamespace(
        groups=[SimpleNamespace(index=0)], in_group=lambda index: listed, baseline=lambda row: listed[0]
    )
    lines = {line[1]: line[-1] for line in table(site)[1]}
    assert lines["teacher"] == "-"
    return lines["student"]


def test_seconds_of_training_over_what_an_answer_saves():
    assert paid(2.0, (1.9, 2.0, 2.1)) == "5,000"  # 10 s / 2 ms
    assert paid(8.0, (0.4, 0.5, 0.6)) == "never: it is no faster"


def test_a_speed_up_that_may_be_none_pays_at_no_known_answer():
    assert paid(3.9, (0.95, 1.03, 1.09)) == "unknown: not faster for certain"
