"""The gate names the first commit that is slower and by how much, and never passes where it could not judge."""

import json
from xml.etree import ElementTree

import pytest

from bench.analysis import gate, history
from bench.app.jobs import compare
from bench.errors import UsageError
from tests.analysis.test_history import folders, session
from tests.app.test_jobs import config_for

pytest.importorskip("ruptures", reason="changes of level need the extra history: pip install ruptures")


def fallen(days=10, bad=6, **fields):
    return [session(day, 1.5 if day < bad else 1.2, **fields) for day in range(1, days + 1)]


def judged(records):
    followed = history.follow(records)
    return gate.judge(followed), followed


def test_it_fails_since_the_first_commit_of_the_worse_level_by_the_percents_that_were_put_in():
    found, _ = judged(fallen())
    (one,) = found.failing
    assert found.exit_code == 1 and (found.judged, found.short) == (1, 0)
    assert (one.commit, one.last_good_commit) == (f"{6:08x}", f"{5:08x}") and not one.same_commit
    assert one.started_at[:10] == "2026-10-06" and one.last_good_at[:10] == "2026-10-05"
    assert one.before == pytest.approx(1.5, rel=0.01) and one.after == pytest.approx(1.2, rel=0.01)
    assert one.change_percent == pytest.approx(-20.0, abs=1.0)
    assert one.low_percent < -20.0 < one.high_percent < 0
    text = gate.as_text(found)
    assert "since commit 00000006 (2026-10-06); git log 00000005..00000006 has the cause" in text
    assert "Gate: failed, of 1 quantity with enough sessions 1 is worse now" in text


def test_the_percents_are_of_the_quantity_itself():
    assert gate.percent(0.8, 1.0) == pytest.approx(-20.0)  # a speed-up of 1.5 that is 1.2
    assert gate.percent(0.8, -1.0) == pytest.approx(25.0)  # a time of 8 that is 10


@pytest.mark.parametrize("gains", [[1.5] * 6, [1.2] * 3 + [1.5] * 3, [1.5] * 4 + [1.2] * 4 + [1.5] * 4])
def test_level_better_and_mended_courses_pass(gains):
    found, _ = judged([session(day, gain) for day, gain in enumerate(gains, 1)])
    assert found.exit_code == 0 and found.failing == () and "Gate: passed" in gate.as_text(found)


def test_a_fall_within_one_commit_is_not_the_code_and_the_environment_is_told():
    made = fallen(commit="abcdef0123456789")
    for day, record in enumerate(made, 1):
        record["environment"] = {**record["environment"], "kernel": "6.1" if day < 6 else "6.5"}
    found, _ = judged(made)
    (one,) = found.failing
    assert one.same_commit and one.surroundings == (("kernel", "6.1", "6.5"),)
    text = gate.as_text(found)
    assert "within commit abcdef012345: it is not the code" in text and "kernel 6.1 -> 6.5" in text


def test_where_nothing_could_be_judged_it_does_not_pass(monkeypatch):
    found, _ = judged([session(1, 1.5), session(2, 1.0)])
    assert (found.exit_code, found.judged, found.short) == (5, 0, 1) and "3 undisturbed sessions" in found.reason

    def missing(*_):
        raise ImportError("ruptures")

    monkeypatch.setattr(history, "breaks", missing)
    found, followed = judged(fallen())
    assert found.exit_code == 5 and "pip install" in found.reason
    root = ElementTree.fromstring(gate.as_junit(found, followed))
    assert (root.get("errors"), root.get("skipped"), root.get("failures")) == ("1", "1", "0")


def test_sessions_of_one_process_have_no_interval_and_three_of_them_judge_nothing():
    made = fallen(days=3, bad=3)
    for record in made:
        record["timing"]["invocations"] = record["timing"]["invocations"][:1]
    found, followed = judged(made)
    assert found.exit_code == 5 and not any(course.changes for course in followed.courses)
    root = ElementTree.fromstring(gate.as_junit(found, followed))
    assert root.find("testcase/skipped") is not None and root.get("failures") == "0"


def test_ci_gets_a_test_per_quantity_with_the_failure_and_programs_get_the_numbers():
    made = [*fallen(), *fallen(seed=1, machine_key="other00000000001", bad=99)]
    found, followed = judged(made)
    root = ElementTree.fromstring(gate.as_junit(found, followed))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "1", "0")
    (failure,) = root.findall("testcase/failure")
    assert "since commit 00000006" in failure.get("message") and "-20" in failure.get("message")
    value = json.loads(gate.as_json(found))
    assert (value["schema"], value["exit_code"], len(value["findings"])) == (1, 1, 1)
    assert value["findings"][0]["commit"] == f"{6:08x}" and value["findings"][0]["mended"] is False


def test_names_of_foreign_records_steer_no_terminal_and_no_xml():
    made = fallen()
    for record in made:
        record["case"] = {**record["case"], "model": "net\x1b[2J\x00"}
    found, followed = judged(made)
    assert "\x1b" not in gate.as_text(found)
    assert "\\x1b" in ElementTree.fromstring(gate.as_junit(found, followed))[0].get("name")


def test_a_level_that_was_accepted_is_left_out_from_a_day_or_a_commit_on():
    made = fallen()
    assert gate.judge(history.follow(history.from_on(made, "2026-10-06"))).exit_code == 0
    assert [r["started_at"][:10] for r in history.from_on(made, f"{9:08x}")] == ["2026-10-09", "2026-10-10"]
    with pytest.raises(UsageError, match="no record is of such a commit"):
        history.from_on(made, "feedbeef")


def test_job_compare_keeps_the_gate_and_its_exit_code_is_the_verdict(tmp_path, capsys):
    places = folders(tmp_path, [1.5] * 4 + [1.2] * 4)
    paths = {"results": ",".join(map(str, places)), "site": str(tmp_path / "site")}
    assert compare.run(config_for(tmp_path, job="compare", paths=paths)) == 1
    assert "Gate: failed" in capsys.readouterr().out
    assert json.loads((tmp_path / "site" / "gate.json").read_text())["exit_code"] == 1
    assert ElementTree.parse(tmp_path / "site" / "gate.junit.xml").getroot().get("failures") == "1"
    assert compare.run(config_for(tmp_path, job="compare", paths=paths, since="2026-10-05")) == 0
    few = {**paths, "results": ",".join(map(str, places[:2]))}
    assert compare.run(config_for(tmp_path, job="compare", paths=few)) == 5
