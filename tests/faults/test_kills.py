"""SIGKILL between any two operations of the driver that write: no row is lost, doubled or disowned by going on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.app.sources import measured_here
from bench.store.journal import Journal
from bench.store.lock import ResultsLock
from bench.store.records import Store
from bench.worker import scratch
from tests.faults import kills
from tests.faults.driver import command, environment
from tests.sweeping import HEALTHY, configuration, sweep

METHOD = "tests.faults.methods:narrow"
FAILS = "tests.faults.models:wrong_value"


def config(folder):
    return configuration(
        folder, [HEALTHY, FAILS], ["none", METHOD], executor={"retries": 0, "name": "tests.faults.kills"}
    )


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    """One real sweep: what its workers answered, and its records."""
    kills.TAPE.clear()
    folder = tmp_path_factory.mktemp("tape")
    result = sweep(config(folder))
    assert {record["status"] for record in result.records} > {"ok"}
    yield result
    kills.TAPE.clear()


def in_a_child(folder, **armed):
    """How a driver in a process of its own ended: a signal's number, negative, or its exit code; and its operations."""
    told, teller = os.pipe()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.close(told)
            real = os.write
            kills.arm(armed.get("nth", 0), torn=armed.get("torn", False), told=lambda number: real(teller, b"."))
            sweep(config(folder))
            code = 0
        finally:
            os._exit(code)
    os.close(teller)
    with os.fdopen(told, "rb") as pipe:
        operations = len(pipe.read())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), operations


def state(folder):
    """Label and status of every record, and the problems that reading has."""
    problems = []
    found = list(Store(folder / "results").iterate(problems))
    return sorted((r["case"]["model"], r["case"]["method"], r["status"]) for r in found), problems, found


def check_whole(folder, tape):
    """What holds after a kill and the same command once more."""
    rows, problems, records = state(folder)
    assert not problems
    assert rows == sorted((r["case"]["model"], r["case"]["method"], r["status"]) for r in tape.records)
    results = folder / "results"
    assert len(list((results / "records").iterdir())) == len(records)  # each once, and no litter
    assert all(measured_here(record, results) for record in records)
    assert not [path for path in results.rglob("*") if path.name.endswith((".tmp", ".part"))]
    runs = [run for record in records for run in (record.get("timing") or {}).get("invocations", ())]
    assert all((results / run["samples_file"]).is_file() for run in runs)
    assert {path.relative_to(results).as_posix() for path in results.glob("samples/*/*.gz")} == {
        r["samples_file"] for r in runs
    }
    journal = Journal(results / "journal.jsonl").read()
    recorded = [entry["content_hash"] for entry in journal.events("recorded")]
    assert len(recorded) == len(set(recorded))
    with ResultsLock(results):
        pass


def killed_and_resumed(folder, tape, nth, *, torn=False):
    """Whether a driver was killed there; what holds after it was started again is checked."""
    ended, _ = in_a_child(folder, nth=nth, torn=torn)
    assert ended in (-signal.SIGKILL, 0)
    assert in_a_child(folder)[0] == 0
    check_whole(folder, tape)
    return ended != 0


def test_an_undisturbed_driver_writes_often_enough_for_this_to_mean_something(tape, tmp_path):
    ended, operations = in_a_child(tmp_path)
    assert ended == 0 and operations > 40
    check_whole(tmp_path, tape)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.85])
def test_a_kill_at_some_operations(tape, tmp_path, share):
    _, operations = in_a_child(tmp_path / "counted")
    assert killed_and_resumed(tmp_path / "killed", tape, max(1, int(share * operations)))


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["before", "torn"])
@pytest.mark.timeout(1800)
def test_a_kill_at_every_operation(tape, tmp_path, torn):
    _, operations = in_a_child(tmp_path / "counted")
    for nth in range(1, operations + 1):
        assert killed_and_resumed(tmp_path / f"at-{nth}", tape, nth, torn=torn), nth


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_of_the_resumed_driver_as_well(tape, tmp_path):
    """Twice in a row, a third through and then at each third operation of what is left."""
    _, operations = in_a_child(tmp_path / "counted")
    for nth in range(1, operations, 3):
        folder = tmp_path / f"at-{nth}"
        in_a_child(folder, nth=operations // 3)
        killed_and_resumed(folder, tape, nth)


# ---------------------------------------------------------------- a real driver with real workers
def marked(mark):
    """Processes that are the driver's: they have its mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BENCH_TEST_MARK") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_an_empty_folder_that_nobody_took_hold_of_is_removed_and_one_that_is_not_empty_is_not(tmp_path):
    for name in ("bench-empty_12", "bench-theirs", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "bench-theirs" / "file").write_text("x")
    (tmp_path / "bench-young").mkdir()
    for name in ("bench-empty_12", "bench-theirs", "other"):
        os.utime(tmp_path / name, (0, 0))
    scratch._remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench-theirs", "bench-young", "other"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nth", [3, 12, 30, 55])
def test_no_process_and_no_folder_of_a_killed_driver_stays(tmp_path, nth):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    waiting = "tests.faults.models:forks_children"
    argv = [sys.executable, str(Path(kills.__file__)), str(nth), *command(tmp_path, [HEALTHY, waiting])[3:]]
    variables = environment(tmp_path, TMPDIR=str(temporary), BENCH_TEST_MARK=str(tmp_path))
    done = subprocess.run(argv, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 30
    while marked(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not marked(str(tmp_path))
    for folder in temporary.glob("bench-*"):
        os.utime(folder, (0, 0))  # a young one may be of a driver that has not yet taken hold of it
    again = subprocess.run(
        command(tmp_path, [HEALTHY, waiting]),
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    rows, problems, _ = state(tmp_path)
    assert not problems and len(rows) == 2, again.stderr
    assert not list(tmp_path.rglob(".*.tmp"))
    assert not list(temporary.glob("bench-*"))  # what a driver could not hand over to anybody the next one removes
