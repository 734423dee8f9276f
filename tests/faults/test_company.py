"""What happens in company says nothing of one alone: losses in a row, and memory that is too small for all at once."""

import pytest

from bench.store.journal import Journal
from bench.store.records import Store
from bench.sweep.attempts import CircuitBroken
from bench.worker.client import Failed, Workers
from tests.sweeping import HEALTHY, configuration, sweep

METHODS = "tests.faults.methods"
NARROWS = [f"{METHODS}:narrow(width={width})" for width in (1, 2, 3)]


def statuses(records):
    return [record["status"] for record in records]


def speedups(records):
    rows = [row for record in records for row in record["readings"] if row["metric"] == "speedup"]
    return [row["value"] for row in rows]


def events(config, name):
    return Journal(Store(config.paths.results).journal).read().events(name)


def test_losses_that_alternate_with_good_probes_do_not_break_the_circuit(tmp_path):
    mixed = ["none", f"{METHODS}:fatal(code=1)", NARROWS[0], f"{METHODS}:fatal(code=2)", NARROWS[1]]
    config = configuration(tmp_path, [HEALTHY], mixed, executor={"retries": 0, "breaker": 2})
    found = {record["case"]["setting"]: record["status"] for record in sweep(config).records}
    assert found == {"": "ok", "code=1": "crashed", "width=1": "ok", "code=2": "crashed", "width=2": "ok"}


@pytest.mark.slow
def test_methods_that_break_in_company_in_turn_with_good_ones_do_not_break_the_circuit(tmp_path):
    mixed = ["none", f"{METHODS}:breaks_later", NARROWS[0], f"{METHODS}:breaks_later_too", NARROWS[1]]
    config = configuration(tmp_path, [HEALTHY], mixed, executor={"retries": 0, "breaker": 2})
    found = sweep(config).records
    assert sorted(statuses(found)) == ["crashed", "crashed", "ok", "ok", "ok"]


@pytest.fixture
def nothing_is_trained(monkeypatch):
    """Every preparation is lost; how many there were."""
    asked = []

    def lost(self, kind, spec, **_):
        asked.append(kind)
        error = {"phase": "load", "case": None, "type": "SIGKILL", "message": "the process was ended", "log_tail": ""}
        return Failed("crashed", error, 0.1)

    monkeypatch.setattr(Workers, "run", lost)
    return asked


def test_one_lost_preparation_counts_once_however_many_cases_it_fails(tmp_path, nothing_is_trained):
    methods = ["none", *(f"tome(r={r})" for r in range(1, 6))]
    config = configuration(tmp_path, ["digits_tiny"], methods, task={"name": "digits"})
    assert config.executor.breaker < 6
    assert statuses(sweep(config).records) == ["crashed"] * 6
    assert nothing_is_trained == ["prepare"]


def test_preparations_that_are_lost_one_after_another_break_the_circuit(tmp_path, nothing_is_trained):
    limits = {"retries": 0, "breaker": 2}
    models = ["digits_tiny", "digits_small", "digits_scan"]
    config = configuration(tmp_path, models, task={"name": "digits"}, executor=limits)
    with pytest.raises(CircuitBroken, match="2 cases in a row"):
        sweep(config)
    assert len(list(Store(config.paths.results).iterate())) == 2


@pytest.mark.parametrize(
    ("limit", "splits"), [(4, 1), pytest.param(3, 2, marks=pytest.mark.slow)], ids=["once", "twice"]
)
def test_members_that_only_run_out_of_memory_together_are_timed_in_sessions_of_fewer(tmp_path, limit, splits):
    config = configuration(tmp_path, [f"tests.faults.models:crowded(limit={limit})"], ["none", *NARROWS])
    found = sweep(config).records
    assert statuses(found) == ["ok"] * 4, [record["error"] for record in found]
    assert len(events(config, "split")) == splits
    assert None not in speedups(found) and len(speedups(found)) == 3
    sessions = {record["timing"]["session"] for record in found}
    assert len(sessions) == splits + 1
    baseline = next(record for record in found if record["case"]["method"] == "none")
    for record in found:
        codes = {flag["code"] for flag in record["flags"]}
        assert ("another_session" in codes) == (record["timing"]["session"] != baseline["timing"]["session"])
    assert sweep(config).measured == 0


def test_a_member_that_has_no_room_beside_its_baseline_says_so(tmp_path):
    config = configuration(tmp_path, ["tests.faults.models:crowded(limit=2)"], ["none", NARROWS[0]])
    baseline, narrow = sorted(sweep(config).records, key=lambda record: record["case"]["method"] != "none")
    assert (baseline["status"], narrow["status"]) == ("ok", "oom")
    assert "beside its baseline" in narrow["error"]["message"]


def test_a_member_that_has_no_room_even_alone_is_named_and_the_rest_is_timed_together(tmp_path):
    full = f"{METHODS}:device_full_later"
    config = configuration(tmp_path, [HEALTHY], ["none", full, NARROWS[0]])
    found = {record["case"]["method"]: record for record in sweep(config).records}
    assert found[full]["status"] == "oom" and "beside" not in found[full]["error"]["message"]
    assert found["none"]["status"] == "ok" and not events(config, "split")
