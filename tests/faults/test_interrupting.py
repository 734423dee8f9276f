"""Ctrl-C on a real driver: what was measured is kept, nothing is left running, the same command goes on."""

import os
import signal

import psutil
import pytest

from bench.store.journal import Journal
from bench.store.lock import ResultsLock
from bench.store.records import Store
from tests.faults.driver import driver, family, statuses, until
from tests.sweeping import HEALTHY


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["once", "twice"])
def test_ctrl_c_ends_with_130_keeps_what_was_measured_and_leaves_nothing_running(tmp_path, times):
    mark = tmp_path / "mark"
    waiting = f"tests.faults.models:waits(mark={str(mark)!r})"
    with driver(tmp_path, [HEALTHY, waiting]) as process:
        until(mark.exists)
        children = family(process)
        assert int(mark.read_text()) in {child.pid for child in children}
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
        _, told = process.communicate(timeout=30)
        assert process.returncode == 130, told
        _, alive = psutil.wait_procs(children, timeout=10)
        assert children and not alive
    assert "Traceback" not in told, told
    kept = statuses(list(Store(tmp_path / "results").iterate()))
    assert kept["healthy"] == "ok"
    if times == 1:
        assert kept["waits"] == "interrupted"
        assert "run the same command again" in told
        assert Journal(tmp_path / "results" / "journal.jsonl").read().events("interrupted")
    with ResultsLock(tmp_path / "results"):
        pass


@pytest.mark.slow
def test_ctrl_c_before_anything_is_measured_ends_with_130_too(tmp_path):
    with driver(tmp_path, [HEALTHY]) as process:
        until(lambda: bool(family(process)))  # the first worker: what a forecast needs
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "Traceback" not in told, told


def test_second_driver_is_refused_with_2_while_the_first_goes_on_and_when_that_is_killed_no_process_is_left(tmp_path):
    mark = tmp_path / "mark"
    waiting = f"tests.faults.models:waits(mark={str(mark)!r})"
    with driver(tmp_path, [waiting]) as first:
        until(mark.exists)
        with driver(tmp_path, [waiting]) as second:
            _, told = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"process {first.pid} has been measuring" in told
        assert first.poll() is None
        children = family(first)
        assert int(mark.read_text()) in {child.pid for child in children}
        first.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
