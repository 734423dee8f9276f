"""A model that changes what everything beside it is timed under is put right or named; the others do not pay."""

from pathlib import Path

from bench.store.records import read_json
from tests.faults.driver import statuses
from tests.sweeping import HEALTHY, configuration, sweep

RUDE, SAME = "tests.faults.methods:rude", "tests.faults.methods:same"


def samples_of(config):
    return [read_json(path) for path in sorted(Path(config.paths.results).glob("samples/*/[0-9]*.json.gz"))]


def test_what_building_changes_is_put_back_before_anyone_is_timed_and_the_row_says_so(tmp_path):
    marks = tmp_path / "marks"
    model = f"tests.faults.models:tells_its_state(marks={str(marks)!r})"
    config = configuration(tmp_path, [model], ["none", RUDE, SAME])
    result = sweep(config)
    assert [record["status"] for record in result.records] == ["ok"] * 3, [r["error"] for r in result.records]
    (state,) = set(marks.read_text().splitlines())  # of all members in all processes: one and the same, weights too
    assert state.startswith("1 torch.float32 ")
    assert {raw["threads"] for raw in samples_of(config)} == {1}
    flags = {r["case"]["method"]: [flag["code"] for flag in r["flags"]] for r in result.records}
    assert "changes_global_state" in flags[RUDE]
    assert "changes_global_state" not in flags["none"]
    (text,) = [flag["text"] for r in result.records for flag in r["flags"] if flag["code"] == "changes_global_state"]
    assert "threads from 1 to 3" in text and "torch.float64" in text and "deterministic" in text


def test_a_forward_that_takes_more_threads_is_an_invalid_row_with_the_remedy(tmp_path):
    config = configuration(tmp_path, ["tests.faults.models:changes_threads_in_forward", HEALTHY])
    result = sweep(config)
    assert statuses(result.records) == {"changes_threads_in_forward": "invalid", "healthy": "ok"}
    (error,) = [record["error"] for record in result.records if record["error"]]
    assert "threads from 1 to 3" in error["message"] and "device.threads" in error["message"]


def test_a_method_that_takes_threads_only_in_company_is_named_and_the_rest_is_timed(tmp_path):
    later = "tests.faults.methods:greedy_later"
    config = configuration(tmp_path, [HEALTHY], ["none", later])
    records = {record["case"]["method"]: record for record in sweep(config).records}
    assert (records["none"]["status"], records[later]["status"]) == ("ok", "invalid")
    assert {raw["threads"] for raw in samples_of(config)} == {1}
