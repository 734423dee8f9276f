"""What an earlier sweep left is used where it still holds: after a kill, in a retry, of one version only."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from bench.config import catalogue
from bench.errors import ResultsError
from bench.host import code
from bench.plan import plan
from bench.store.journal import Journal
from bench.store.records import Store, read_json, seal, write_json
from bench.sweep import calibration
from bench.sweep.attempts import Interrupted
from bench.sweep.loop import Driver
from bench.sweep.writing import Writer
from bench.worker.client import Workers
from tests.sweeping import HEALTHY, QUICK, configuration, sweep

NARROW = "tests.faults.methods:narrow"


class Killed(Exception):
    """Stands for SIGKILL: nothing is tidied up."""


def killing(monkeypatch, kind, nth, error=Killed):
    """Let the sweep end at the start of the nth worker of a kind."""
    real, counted = Workers.run, []

    def worker(self, what, *arguments, **options):
        counted.append(what)
        if counted.count(kind) == nth and what == kind:
            raise error
        return real(self, what, *arguments, **options)

    monkeypatch.setattr(Workers, "run", worker)


def killed_in_its_second_process(folder, monkeypatch):
    """The configuration of a sweep that ended there, with its probe and one process on disk."""
    config = configuration(folder, [HEALTHY])
    with monkeypatch.context() as patch:
        killing(patch, "invocation", 2)
        with pytest.raises(Killed):
            sweep(config)
    return config


def store_of(config):
    return Store(config.paths.results)


def events(config, name):
    return Journal(store_of(config).journal).read().events(name)


def probed(config):
    return [entry["case"] for entry in events(config, "probed")]


def timed(config):
    return [(entry["session"], entry["index"]) for entry in events(config, "timed")]


def record_of(config, method):
    (found,) = [path for path, record in store_of(config).files([]) if record["case"]["method"] == method]
    return found


def damage(path):
    path.write_text(path.read_text().replace('"status":"ok"', '"status":"no"'))


def contaminate(config):
    """Make every record one that other work disturbed, as a busy host would."""
    for path in store_of(config).records.glob("*.json"):
        write_json(path, seal({**read_json(path), "status": "contaminated"}))


def value(record, metric):
    return next(row["value"] for row in record["readings"] if row["metric"] == metric)


# -- damaged records --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_record_of_the_baseline_costs_its_own_row_only(tmp_path):
    config = configuration(tmp_path, [HEALTHY])
    sweep(config)
    damage(record_of(config, "none"))
    more = configuration(tmp_path, [HEALTHY], ["none", NARROW])
    result = sweep(more)
    assert result.measured == 1 and "does not match its hash" in result.problems[0]
    (narrow,) = result.records
    assert narrow["status"] == "ok" and value(narrow, "speedup") is not None  # timed beside the baseline, as ever
    assert sweep(more).measured == 0


@pytest.mark.slow
def test_a_damaged_record_of_an_earlier_session_does_not_stop_a_later_one(tmp_path):
    config = configuration(tmp_path, [HEALTHY], ["none", NARROW])
    sweep(config)
    damage(record_of(config, NARROW))
    more = configuration(tmp_path, [HEALTHY], ["none", NARROW, f"{NARROW}(width=1)"])
    result = sweep(more)
    assert result.measured == 1 and len(result.problems) == 1
    assert {record["status"] for record in result.records} == {"ok"}


@pytest.mark.slow
def test_the_number_of_an_attempt_that_was_moved_away_stays_free(tmp_path):
    """The first attempt was superseded and got damaged; the user followed the advice to move it away."""
    config = configuration(tmp_path, ["tests.faults.models:wrong_value"])
    sweep(config)
    again = sweep(configuration(tmp_path, ["tests.faults.models:wrong_value"], retry_failed=True))
    first, second = store_of(config).attempts(again.records[0]["case_key"], again.records[0]["machine_key"])
    first.rename(tmp_path / "away.json")
    assert sweep(config).measured == 0
    third = sweep(configuration(tmp_path, ["tests.faults.models:wrong_value"], retry_failed=True)).records[0]
    assert third["supersedes"] == again.records[0]["content_hash"]
    names = sorted(path.name for path in store_of(config).records.glob("*.json"))
    assert names == [second.name, second.name.replace(".2.json", ".3.json")]


@pytest.mark.slow
def test_a_damaged_process_in_the_middle_costs_that_process_only(tmp_path, monkeypatch):
    three = {**QUICK, "latency": {**QUICK["latency"], "invocations": 3, "max_invocations": 3}}
    config = configuration(tmp_path, [HEALTHY], protocol=three)
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "finished", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            sweep(config)
    files = sorted(Path(config.paths.results).glob("samples/*/[0-9]*.json.gz"))
    before = [path.read_bytes() for path in files]
    files[1].write_bytes(before[1][:50])
    result = sweep(config)
    assert [record["status"] for record in result.records] == ["ok"]
    assert (files[0].read_bytes(), files[2].read_bytes()) == (before[0], before[2])
    assert [index for _, index in timed(config)] == [0, 1, 2, 1]
    assert [line["index"] for line in result.records[0]["timing"]["invocations"]] == [0, 2, 1]


# -- retries ----------------------------------------------------------------------------------------------------------


def retry(config_folder):
    return configuration(config_folder, [HEALTHY], ["none", NARROW], retry_failed=True)


@pytest.mark.slow
def test_ctrl_c_in_a_retry_leaves_the_row_that_has_its_numbers(tmp_path, monkeypatch):
    config = retry(tmp_path)
    sweep(config)
    contaminate(config)
    for kind in ("probe", "invocation"):
        with monkeypatch.context() as patch:
            killing(patch, kind, 1, KeyboardInterrupt)
            with pytest.raises(Interrupted):
                sweep(config)
    kept = list(store_of(config).iterate())
    assert [record["status"] for record in kept] == ["contaminated"] * 2
    assert all(value(record, "latency_ms") for record in kept)
    assert {record["status"] for record in sweep(config).records} == {"ok"}


@pytest.mark.slow
def test_ctrl_c_on_a_case_without_numbers_is_a_record(tmp_path, monkeypatch):
    config = configuration(tmp_path, [HEALTHY])
    with monkeypatch.context() as patch:
        killing(patch, "invocation", 2, KeyboardInterrupt)
        with pytest.raises(Interrupted):
            sweep(config)
    assert [record["status"] for record in store_of(config).iterate()] == ["interrupted"]
    assert [record["status"] for record in sweep(config).records] == ["ok"]
    assert len(probed(config)) == 1
    assert timed(config) == [(timed(config)[0][0], 0), (timed(config)[0][0], 1)]  # what Ctrl-C left was continued


@pytest.mark.slow
def test_a_killed_retry_goes_on_where_it_was(tmp_path, monkeypatch):
    config = retry(tmp_path)
    sweep(config)
    contaminate(config)
    before = len(probed(config)), len(timed(config))
    for kind, nth in (("probe", 2), ("invocation", 2)):
        with monkeypatch.context() as patch:
            killing(patch, kind, nth)
            with pytest.raises(Killed):
                sweep(config)
    result = sweep(config)
    assert {record["status"] for record in result.records} == {"ok"} and result.measured == 2
    assert all(record["supersedes"] for record in result.records)
    assert len(set(probed(config)[before[0] :])) == len(probed(config)[before[0] :]) == 2
    again = timed(config)[before[1] :]
    assert sorted(index for _, index in again) == [0, 1] and len({session for session, _ in again}) == 1
    assert {session for session, _ in again}.isdisjoint(session for session, _ in timed(config)[: before[1]])


@pytest.mark.slow
def test_a_retry_after_a_failure_in_company_probes_anew(tmp_path):
    later = "tests.faults.methods:breaks_later"
    config = configuration(tmp_path, [HEALTHY], ["none", later], retry_failed=True)
    failed = next(record for record in sweep(config).records if record["case"]["method"] == later)
    assert failed["status"] == "crashed"
    sweep(config)
    assert probed(config).count(failed["case_key"]) == 2  # the first probe is older than the failure


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_another_version_left_unfinished_is_measured_anew(tmp_path, monkeypatch):
    config = killed_in_its_second_process(tmp_path, monkeypatch)
    (first,) = timed(config)
    newer = {"version": "99.0.0", "commit": "f" * 40, "dirty": False}
    monkeypatch.setattr(code, "code_version", lambda: newer)
    (record,) = sweep(config).records
    assert record["code"] == newer and record["timing"]["session"] != first[0]
    assert len(probed(config)) == 2 and [index for _, index in timed(config)] == [0, 0, 1]


@pytest.mark.slow
def test_damaged_notes_of_a_session_or_a_probe_are_no_notes(tmp_path, monkeypatch):
    config = killed_in_its_second_process(tmp_path, monkeypatch)
    for path in (*store_of(config).samples.glob("*/session.json"), *store_of(config).probes.glob("*.json")):
        path.write_text(json.dumps(["not", "a", "table"]))
    assert [record["status"] for record in sweep(config).records] == ["ok"]


# -- calibration ------------------------------------------------------------------------------------------------------


def calibrated(config):
    return Driver(config, plan.make(config, catalogue.load()))


def raising(error):
    def measured(*_):
        raise error

    return measured


@pytest.mark.parametrize("part", ["measure", "drift"])
def test_ctrl_c_and_a_full_disk_while_calibrating_are_told_like_any_other(tmp_path, monkeypatch, part):
    config = configuration(tmp_path, [HEALTHY])
    driver = calibrated(config)
    if part == "drift":
        path = driver.store.calibration_path(driver.machine_key, "cpu", plan.threads(config))
        write_json(path, {"peaks": [], "bandwidth": None, "notes": [], "measured_at": time.time()})
    monkeypatch.setattr(calibration, part, raising(KeyboardInterrupt()))
    with pytest.raises(Interrupted):
        driver.run({})
    assert events(config, "interrupted")
    monkeypatch.setattr(calibration, part, raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch")))
    with pytest.raises(ResultsError, match=r"/scratch.*TMPDIR"):
        calibrated(config).run({})


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"peaks": 3}', '{"peaks": [1]}', '{"peaks": [{"value": NaN}]}',
                                  '{"peaks": [{"dtype": "fp32", "value": -1}]}', '{"peaks": []',
                                  '{"measured_at": "now"}'])  # fmt: skip
def test_a_calibration_of_another_shape_is_none(tmp_path, text):
    from bench.app import forecast

    config = configuration(tmp_path, [HEALTHY])
    driver = calibrated(config)
    path = driver.store.calibration_path(driver.machine_key, "cpu", plan.threads(config))
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert forecast.peak_rate(config) is None
    assert calibration.recent_calibration(path) is None


def test_a_count_that_takes_long_is_on_disk_before_the_next_is_begun(tmp_path, monkeypatch):
    config = configuration(tmp_path, [HEALTHY, "tests.faults.models:forward_error"])
    config = config.model_copy(update={"protocol": config.protocol.model_copy(update={"timed": False})})
    alone, asked = Workers.run, []

    def first_only(self, kind, spec, **rest):
        outcome = alone(self, kind, spec, **rest)
        asked.append(len(spec["recipes"]))
        key = next(iter(outcome.result["cases"]))
        outcome.result["cases"] = {key: outcome.result["cases"][key]}
        return outcome

    monkeypatch.setattr(Workers, "run", first_only)
    done = sweep(config)
    assert asked == [2, 1]
    assert [record["status"] for record in done.records] == ["ok", "crashed"] and len(store_of(config).every([])) == 2
