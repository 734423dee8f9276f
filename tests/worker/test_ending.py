"""What a worker leaves behind is foreign text: whatever it says, it is an ending and no error of the driver."""

import copy
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import client
from bench.worker.client import Failed
from bench.worker.ending import how_it_ended, read_outcome, read_phase
from bench.worker.scratch import HELD, YOUNG_S, Scratch
from tests.worker.test_worker import TIMEOUTS, probe
from tests.workers import Sharing

CASE = Case(suite="t", model="m")
SPEC = {"kind": "invocation", "session": "s", "index": 0, "recipes": [Recipe(CASE).as_dict()]}
PART = {
    "block": 1,
    "latency_ms": [1.0, 2],
    "device_ms": [],
    "preempted": [False, True],
    "minor_faults": [0, 3],
    "throughput": [{"iterations": 3, "ms": 2.5}],
    "warmup": {"steady": True},
    "units": 1.0,
}
MEMBER = {**PART, "load_ms": 3.0, "first_inference_ms": 2.0, "compile_ms": None, "parts": {"p": PART}}
RESULT = {
    "schema": 2,
    "session": "s",
    "index": 0,
    "started_at": "2026-01-01T00:00:00+00:00",
    "seconds": 1.0,
    "cases": {CASE.key: MEMBER},
    "twin": MEMBER,
    "reference_gemm": {"ms": [1.0]},
    "labels": ["host busy"],
    "allocator": {},
}
FINE = {"status": "ok", "result": RESULT}
ODD = {"status": "invalid", "error": {"phase": "load", "case": None, "type": "ValueError", "message": "no"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """Every place in plain data, the whole included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(value, path, new):
    """The data with another value in one place."""
    if not path:
        return new
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return made


def written(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("outcome") / "outcome.json"
    path.write_text(json.dumps(value))
    return path


def test_a_right_outcome_is_read_as_it_is(tmp_path_factory):
    assert read_outcome(written(tmp_path_factory, FINE), SPEC, "measure") == FINE
    assert read_outcome(written(tmp_path_factory, ODD), SPEC, "measure") == ODD


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([FINE, ODD]).flatmap(lambda told: st.tuples(st.just(told), st.sampled_from(list(places(told))))),
    JSON,
)
def test_any_value_in_any_place_of_an_outcome_is_an_ending(tmp_path_factory, place, value):
    told, path = place
    found = read_outcome(written(tmp_path_factory, replaced(told, path, value)), SPEC, "measure")
    assert found["status"] in ("ok", "oom", "unsupported", "invalid", "crashed")
    assert ("result" in found) == (found["status"] == "ok") and json.dumps(found, allow_nan=False)
    if found["status"] == "ok":
        parts = [found["result"]["twin"], found["result"]["cases"][CASE.key]]
        assert all(sample > 0 for part in parts for sample in part["latency_ms"])


@pytest.mark.parametrize("path", [("latency_ms", 0), ("throughput", 0, "ms"), ("parts", "p", "latency_ms", 1)], ids=str)
@pytest.mark.parametrize("value", [0, -1.0, True, "1", None, 1e31, [1]], ids=str)
def test_a_time_that_is_none_is_an_outcome_that_is_none(tmp_path_factory, path, value):
    for member in (("result", "twin"), ("result", "cases", CASE.key)):
        found = read_outcome(written(tmp_path_factory, replaced(FINE, (*member, *path), value)), SPEC, "warmup")
        assert (found["status"], found["error"]["type"], found["error"]["phase"]) == (
            "crashed",
            "CorruptOutcome",
            "warmup",
        )
        assert str(path[-1] if isinstance(path[-1], str) else path[-2]) in found["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [{"session": "other"}, {"index": 1}, {"cases": {"other": MEMBER}}, {"cases": {CASE.key: MEMBER, "x": MEMBER}}],
)
def test_an_answer_to_another_question_is_none(tmp_path_factory, change):
    told = {"status": "ok", "result": {**RESULT, **change}}
    assert read_outcome(written(tmp_path_factory, told), SPEC, "measure")["error"]["type"] == "CorruptOutcome"


@pytest.mark.parametrize(("counted", "status"), [("ab", "ok"), ("a", "ok"), ("", "crashed"), ("ac", "crashed")])
def test_a_process_that_counts_answers_for_some_of_its_cases_at_least(tmp_path_factory, counted, status):
    cases = {name: Case(suite="t", model=name) for name in "abc"}
    spec = {"kind": "count", "recipes": [Recipe(cases[name]).as_dict() for name in "ab"]}
    failed = {"status": "invalid", "error": ODD["error"]}
    told = {"status": "ok", "result": {"cases": {cases[name].key: failed for name in counted}}}
    assert read_outcome(written(tmp_path_factory, told), spec, "measure")["status"] == status


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"status": NaN}', b'{"status": 1e999}', b"null"]
)
def test_an_outcome_or_phase_that_is_no_json_of_ours_is_an_ending(tmp_path, data):
    (tmp_path / "outcome.json").write_bytes(data)
    assert read_outcome(tmp_path / "outcome.json", SPEC, "load")["error"]["type"] == "CorruptOutcome"
    assert read_phase(tmp_path / "outcome.json") is None


def test_pipes_devices_and_links_in_their_place_are_endings_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to(tmp_path / "not there")
    start = time.monotonic()
    for name in ("pipe", "zero", "nowhere"):
        assert read_outcome(tmp_path / name, SPEC, "load")["error"]["type"] == "CorruptOutcome"
        assert read_phase(tmp_path / name) is None
    assert read_outcome(tmp_path / "not there", SPEC, "load") is None
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "phase", [{"phase": "load", "case": 3}, {"phase": 3, "case": None}, {"phase": "\x1b[2J", "case": None}, {}, [], 3]
)
def test_a_phase_that_is_not_ours_says_nothing(tmp_path, phase):
    (tmp_path / "phase").write_text(json.dumps(phase))
    assert read_phase(tmp_path / "phase") is None


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGRTMIN + 3, signal.SIGRTMAX, 33])
def test_every_signal_has_a_word(number):
    status, (kind, message) = how_it_ended(number, killed_by_kernel=False)
    assert status == "crashed" and kind.startswith("SIG") and f"signal {int(number)}" in message


def test_a_wait_status_that_is_none_is_an_ending():
    assert how_it_ended(0x137F, killed_by_kernel=False)[1][0] == "NoResult"


# -- a server that is silent ------------------------------------------------------------------------------------------


def test_a_stopped_server_is_lost_and_the_next_case_gets_another(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "SILENCE_S", 1.0)
    monkeypatch.setattr(client, "GRACE_S", 0.5)
    monkeypatch.setattr(client, "LEAVE_S", 0.2)
    with Sharing({**TIMEOUTS, "warmup": 1.0}) as workers:
        assert probe(workers, tmp_path, "healthy").ok

        def stop():
            until_forward = time.monotonic() + 20
            while time.monotonic() < until_forward and not list(Path(workers._scratch.folder).glob("*2/phase")):
                time.sleep(0.05)
            os.kill(workers._server.pid, signal.SIGSTOP)

        threading.Thread(target=stop, daemon=True).start()
        start = time.monotonic()
        outcome = probe(workers, tmp_path, "hang")
        assert isinstance(outcome, Failed) and outcome.error["type"] == "ServerLost"
        assert time.monotonic() - start < 40
        assert probe(workers, tmp_path, "healthy").ok


# -- the driver's folder ----------------------------------------------------------------------------------------------


def test_folders_of_drivers_that_are_no_more_are_removed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    living = Scratch()
    names = ("bench-dead", "bench-strange", "bench-young", "bench-ab_12xyz", "bench-cd_34xyz")
    dead, strange, young, unheld, filled = (tmp_path / name for name in names)
    for folder in (dead, strange, young, unheld, filled):
        folder.mkdir()
    (filled / "notes").touch()
    for folder in (dead, young):
        (folder / HELD).touch()
    (tmp_path / "bench-link").symlink_to(strange)
    old = time.time() - YOUNG_S - 60
    child = os.fork()
    if child == 0:  # the lock is a process's own: only another can tell that the living one's is held
        for folder in (dead, strange, unheld, filled, living.folder):
            os.utime(folder, (old, old))
        Scratch().remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert not dead.exists() and not unheld.exists()
    assert all(folder.exists() for folder in (strange, young, filled, living.folder))
    living.remove()
    assert not living.folder.exists()
