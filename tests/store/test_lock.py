"""Two drivers never share a results folder, the second learns who the first is; a dead one blocks nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bench.errors import ResultsError
from bench.store.lock import NAME, Locked, ResultsLock

HOLD = (
    "import sys, time; from bench.store.lock import ResultsLock; ResultsLock(sys.argv[1]).acquire(); print('held', "
    "flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_second_driver_is_refused_and_told_who_the_first_is(tmp_path, holder):
    with pytest.raises(Locked, match=rf"process {holder.pid} .*since 20\d\d-.*results folder of its own") as refusal:
        ResultsLock(tmp_path).acquire()
    assert refusal.value.exit_code == 2
    assert os.uname().nodename not in str(refusal.value).replace(str(tmp_path), "")


def test_refused_driver_does_not_weaken_the_lock(tmp_path, holder):
    for _ in range(3):
        with pytest.raises(Locked):
            ResultsLock(tmp_path).acquire()


def test_kill_minus_nine_leaves_no_stale_lock(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with ResultsLock(tmp_path):
        pass


def test_stopped_driver_still_holds_its_lock(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(Locked):
        ResultsLock(tmp_path).acquire()


def test_worker_that_outlives_its_driver_does_not_hold_the_lock(tmp_path):
    code = (
        "import os, sys, time; from bench.store.lock import ResultsLock; ResultsLock(sys.argv[1]).acquire()\n"
        "if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        "print('held', flush=True); os.kill(os.getpid(), 9)"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert driver.wait() == -signal.SIGKILL
        with ResultsLock(tmp_path):
            pass
    finally:
        os.killpg(driver.pid, signal.SIGKILL)


def test_forked_child_cannot_release_its_parents_lock(tmp_path):
    with ResultsLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        refused = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert refused.returncode == 1 and f"process {os.getpid()}" in refused.stderr


def test_same_process_is_refused_too_also_by_another_name(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    with ResultsLock(tmp_path / "real"):
        with pytest.raises(Locked, match=f"process {os.getpid()}"):
            ResultsLock(tmp_path / "alias").acquire()
        refused = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path / "alias")], capture_output=True, text=True, check=False
        )
        assert refused.returncode == 1


def test_lock_is_free_after_release_and_after_an_error(tmp_path):
    lock = ResultsLock(tmp_path)
    for _ in range(2):
        with lock:
            pass
    with pytest.raises(KeyError), lock:
        raise KeyError
    lock.release()
    with ResultsLock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"machine": "elsewhere"}'])
def test_a_damaged_lock_file_neither_blocks_nor_confuses(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with ResultsLock(tmp_path):
        pass


def test_unwritable_folder_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="choose another results folder"):
        ResultsLock(tmp_path / "file" / "results").acquire()


def test_race_of_many_drivers_has_one_winner(tmp_path):
    code = (
        "import sys; from bench.store.lock import ResultsLock, Locked; lock = ResultsLock(sys.argv[1])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try: lock.acquire()\nexcept Locked: print('refused', flush=True)\nelse: print('won', flush=True)\n"
        "sys.stdin.read()"  # the winner holds it until all have tried
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    racers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 4
    for racer in racers:
        racer.stdin.write("go\n")
    told = [racer.stdout.readline().strip() for racer in racers]
    for racer in racers:
        racer.communicate()
    assert sorted(told) == ["refused"] * 3 + ["won"]
