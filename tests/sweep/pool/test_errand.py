"""A piece of work in its real process: measured, sent, refused, killed; nothing of the engine reaches it."""

import json
import os
import signal
import time

import pytest

from bench.config import catalogue
from bench.errors import UsageError
from bench.plan import plan
from bench.store.foreign import parse
from bench.store.records import check
from bench.sweep.pool import node
from bench.sweep.pool.errand import Errand, surroundings
from bench.sweep.pool.work import Work, difference, versions, work_for
from tests.sweeping import configuration


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A piece of work of one healthy model; the machine's own folder is the test's."""
    monkeypatch.setenv(node.NODE, f"test-{os.getpid()}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    config = configuration(tmp_path, ["tests.faults.models:healthy"])
    (group,) = plan.make(config, catalogue.load()).groups
    return work_for(config.model_copy(update={"executor": inner(config)}), group.label, group.cases, 1.0, [None])


def inner(config):
    return config.executor.model_copy(update={"name": "ray", "inner": "tests.workers"})


def finished(errand, seconds=120):
    files, deadline = {}, time.monotonic() + seconds
    while not errand.wait(0.2) and time.monotonic() < deadline:
        files |= errand.new_files()
    return {**files, **errand.new_files()}


def test_a_piece_of_work_is_measured_in_a_process_of_its_own_and_its_files_are_sent(work, tmp_path):
    errand = Errand(Work.read(work.text()), tmp_path / "errand")
    files = finished(errand)
    told = errand.ending()
    assert (told["status"], told["message"], told["node"]) == ("done", "", node.node_name())
    assert told["began"] < told["ended"]
    (name,) = [name for name in files if name.startswith("records/")]
    record = check(parse(files[name]), name)
    assert record["status"] in ("ok", "contaminated") and record["case_key"] == work.cases[0]
    named = {run["samples_file"] for run in record["timing"]["invocations"]}
    assert named and named <= set(files) and any(name.startswith("machines/") for name in files)
    assert list(files).index(name) > max(list(files).index(each) for each in named)  # what it names is there before
    assert not errand.new_files()
    assert list(node.keep_folder().glob("*.json"))  # the next piece finds the machine calibrated


def test_a_process_that_is_killed_is_lost_and_leaves_nothing_running(work, tmp_path):
    errand = Errand(work, tmp_path / "errand")
    assert not errand.wait(1.0)
    os.kill(errand._process.pid, signal.SIGKILL)
    assert errand.wait(10)
    told = errand.ending()
    assert told["status"] == "lost" and "-9" in told["message"]
    errand.end()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"versions": {**versions(), "torch": "1.0"}}, "instead of 1.0; give all machines the driver's versions"),
        ({"cases": ("0" * 16,)}, "1 of 1 cases are not in this machine's plan"),
    ],
)
def test_a_machine_that_is_not_as_the_driver_refuses(work, tmp_path, change, words):
    told = node.measure(Work(**{**vars(work), **change}), tmp_path)
    assert told["status"] == "refused" and words in told["message"] and told["began"] is None


def test_a_machine_with_fewer_cores_than_the_drivers_threads_refuses(work, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.plan.plan.own_cores", lambda: 2)
    config = {**work.config, "device": {**work.config["device"], "threads": 3}}
    told = node.measure(Work(**{**vars(work), "config": config, "cases": ()}), tmp_path)
    assert told["status"] == "refused" and "3 threads are more than the 2 cores" in told["message"]


def test_a_machine_without_the_data_says_so(work, tmp_path):
    config = {**work.config, "checkpoint": str(tmp_path / "none.pt")}
    told = node.measure(Work(**{**vars(work), "config": config}), tmp_path)
    assert told["status"] == "refused" and "checkpoint: there is no file" in told["message"]


def test_the_sweep_on_a_machine_has_no_mirror_no_page_and_local_workers(work, tmp_path):
    config = work.configured(str(tmp_path / "r"))
    assert (config.executor.name, config.tracking.enabled, config.report.enabled) == ("tests.workers", False, False)
    assert config.paths.results == str(tmp_path / "r") and config.retries == "none" and not config.counts


def test_versions_differ_in_words_and_an_unknown_commit_is_no_difference():
    ours = {"waterline-bench": "1.0", "commit": "abc", "torch": "2.13.0"}
    assert difference(ours, dict(ours)) == ""
    assert difference(ours, {**ours, "commit": "def"}) == "commit def instead of abc"
    assert difference(ours, {"waterline-bench": "1.0", "torch": "2.13.0"}) == ""
    assert (
        difference(ours, {**ours, "torch": "2.12.0", "timm": "1.0"})
        == "torch 2.12.0 instead of 2.13.0, timm 1.0 instead of none"
    )
    assert difference(ours, {"waterline-bench": "1.0", "commit": "abc"}) == "torch missing instead of 2.13.0"


def test_variables_of_the_engine_do_not_reach_the_measured_process(monkeypatch):
    monkeypatch.setenv("RAY_JOB_ID", "1")
    monkeypatch.setenv("SUBMITIT_FOLDER", "x")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert not {"RAY_JOB_ID", "SUBMITIT_FOLDER"} & set(surroundings())
    assert surroundings()["OMP_NUM_THREADS"] == "3"


def test_the_same_cases_measured_again_are_another_piece(work):
    again = Work.read(json.dumps({**json.loads(work.text()), "seconds": 2.0}))
    assert again.key == work.key and again.cases == work.cases


def test_a_configuration_that_is_wrong_here_is_an_error_of_its_own(work, tmp_path):
    with pytest.raises(UsageError):
        Work(**{**vars(work), "config": {**work.config, "grid": "none"}}).configured(str(tmp_path))
