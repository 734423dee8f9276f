"""Streams that are closed, full, left or of a small alphabet end no job; foreign text steers no terminal."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.app.jobs.sweep import failure_text
from bench.foreign_text import shortened
from bench.store.stored import Stored
from bench.sweep.writing import Sweep
from tests.synthetic import record, store

ROOT = Path(__file__).resolve().parents[2]


def shell(folder, line, **environment):
    """What becomes of a command line in a shell that has `bench` as a word."""
    bench = f'bench() {{ {shlex.quote(sys.executable)} -m bench "$@"; }}\n'
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        ["bash", "-c", bench + line], cwd=folder, env=env, capture_output=True, check=False, timeout=120
    )


@pytest.fixture
def odd(tmp_path):
    """A folder with a file whose name is not ASCII; verifying it is quick, prints the name and ends with 1."""
    (tmp_path / "b·ndle.zip").write_bytes(b"no archive")
    (tmp_path / "records").mkdir()
    return tmp_path


VERIFY = """bench job=verify "row='b·ndle.zip'" """


@pytest.mark.parametrize(
    ("line", "environment", "code", "told"),
    [
        (f"{VERIFY} 2>&-", {}, 1, "b·ndle.zip: 1 problem"),
        (f"{VERIFY} >&- 2>&-", {}, 1, ""),
        (VERIFY, {"PYTHONIOENCODING": "ascii"}, 1, r"b\xb7ndle.zip: 1 problem"),
        (f"({VERIFY}; echo $? >&2) | head -c 0", {}, 0, "\n1\n"),
        (f"{VERIFY} >/dev/full", {}, 1, "standard output cannot be written"),
        ("bench job=report paths.results=. >/dev/full", {}, 2, "standard output cannot be written"),
    ],
    ids=[
        "no standard error",
        "no stream at all",
        "ascii",
        "a reader that leaves",
        "a full device",
        "only the output fails",
    ],
)
def test_no_stream_ends_a_job_or_changes_its_verdict(odd, line, environment, code, told):
    done = shell(odd, line, **environment)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == code, said
    assert told in said and "Traceback" not in said and "error in bench itself" not in said


def test_a_message_of_the_command_line_steers_no_terminal(tmp_path):
    done = shell(tmp_path, r"""bench $'suite=\e]0;title\a\u202e'""")
    assert done.returncode == 2
    assert (
        not {b"\x1b", b"\x07", "\u202e".encode()} & {bytes([c]) for c in done.stderr}
        and b"\xe2\x80\xae" not in done.stderr
    )


def test_the_line_of_what_failed_steers_no_terminal_and_is_one_line(tmp_path):
    error = {"phase": "load", "type": "E", "message": "\x1b[2J\x07 gone \u202e", "log_tail": ""}
    failed = record(model="m\x1b[1m" + "x" * 5000, status="crashed", error=error)
    swept = Sweep(Stored(store(tmp_path, [failed], with_samples=False)), measured=1)
    swept.records.append(failed)
    line = failure_text(swept)
    assert line.isprintable() and len(line) < 600
    assert r"\x1b[2J\x07 gone \u202e" in line


def test_what_the_user_interrupted_is_told_once_and_not_as_a_failure(tmp_path):
    error = {"phase": "count", "type": "KeyboardInterrupt", "message": "interrupted by the user", "log_tail": ""}
    stopped = record(model="stopped", status="interrupted", error=error)
    broken = record(model="broken", status="crashed", error={**error, "type": "E", "message": "gone"})
    swept = Sweep(Stored(store(tmp_path, [stopped, broken], with_samples=False)), measured=0)
    swept.records.append(stopped)
    assert failure_text(swept) == ""
    swept.records.append(broken)
    assert failure_text(swept).startswith("1 of 2: broken") and "interrupted" not in failure_text(swept)


def test_a_long_name_keeps_its_beginning_and_its_end_and_a_short_one_is_left_alone():
    assert shortened("short") == "short"
    cut = shortened("a" * 1000 + "end", 100)
    assert len(cut) == 100 and cut.startswith("aaa") and cut.endswith("end") and " ... " in cut
