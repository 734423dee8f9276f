"""A mirror that answers slowly for ever, or a database that cannot be opened, costs seconds; records are kept."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.store.records import Store
from bench.tracking import connection
from bench.tracking.database import address_of, check_database, make_database
from bench.tracking.deadline import Late, deadline
from bench.tracking.mirror import Mirror
from tests.synthetic import record, store

ROOT = Path(__file__).resolve().parents[2]


def drip(write, pieces):
    """Write piece after piece, for as long as somebody reads."""
    with contextlib.suppress(OSError):
        while True:
            write(next(pieces))
            time.sleep(0.2)


def endless(piece):
    while True:
        yield piece


class Slow(BaseHTTPRequestHandler):
    """Answers in one of four ways that never end."""

    kind = ""

    def do_GET(self):
        if self.kind == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            drip(self.wfile.write, endless(b"X-More: more\r\n"))
            return
        self.send_response(429 if self.kind == "later" else 200)
        if self.kind == "later":
            self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", "0")
        elif self.kind == "drip":
            self.send_header("Content-Length", "100000")
        self.end_headers()
        if self.kind == "body":
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b" " * 65536)
        elif self.kind == "drip":
            drip(self.wfile.write, endless(b"{"))

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(params=["later", "body", "drip", "headers"])
def slow_server(request):
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Kind", (Slow,), {"kind": request.param}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_answers_slowly_for_ever_is_away_and_asked_less_and_less(slow_server, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_S", 0.7)
    monkeypatch.setattr(connection, "UPLOAD_S", 0.7)
    now = [0.0]
    mirror = Mirror(slow_server, "e", tmp_path / "artifacts", tmp_path, clock=lambda: now[0])
    connection.import_mlflow()
    start = time.monotonic()
    mirror.start_sweep("s", {}, 1)
    for _ in range(50):  # one question every 30 s at first, then every minute, every two
        now[0] += 10
        mirror.log_record(record())
    mirror.finish()
    asked = (time.monotonic() - start) / 0.7
    assert asked < 9, "every question has one deadline, and a server that fails is left alone longer and longer"
    (problem,) = mirror.problems
    assert "every record is kept" in problem and "no end after 0.7 s" in problem


def test_a_deadline_ends_what_retries_and_gives_an_outer_timer_back():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    outer = signal.setitimer(signal.ITIMER_REAL, 0.6)
    try:
        with pytest.raises(Late), deadline(0.1):
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(5)
        assert not rung
        time.sleep(0.8)
        assert rung == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)
    with deadline(0.05):
        pass
    time.sleep(0.1)


def test_a_deadline_in_a_thread_leaves_the_work_alone():
    done = []

    def work():
        with deadline(0.01):
            time.sleep(0.05)
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


# -- the embedded database --------------------------------------------------------------------------------------------


def folder_there(file):
    file.mkdir()


def no_database(file):
    file.write_bytes(b"no database" * 200)


def half_made(file):
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("create table spans (x)")


def pipe(file):
    os.mkfifo(file)


@pytest.mark.parametrize("left", [folder_there, no_database, half_made, pipe])
def test_a_database_that_cannot_be_opened_is_away_at_once_and_the_message_says_what_to_do(left, tmp_path):
    file = tmp_path / "mlflow" / "mlflow.db"
    file.parent.mkdir()
    left(file)
    store(tmp_path / "results", [record()])
    mirror = Mirror(f"sqlite:///{file}", "e", tmp_path / "artifacts", tmp_path / "results")
    connection.import_mlflow()
    start = time.monotonic()
    mirror.start_sweep("s", {}, 1)
    mirror.log_record(record())
    mirror.finish()
    assert time.monotonic() - start < 20
    (problem,) = mirror.problems
    assert "move it away" in problem and "every record is kept" in problem
    left_is_there = file.is_dir() or file.stat() is not None
    assert left_is_there


def test_a_database_that_another_process_holds_is_away_within_seconds(tmp_path):
    file = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("create table t (x)")
        database.execute("begin exclusive")
        start = time.monotonic()
        with pytest.raises(OSError, match="locked"):
            check_database(file)
        assert time.monotonic() - start < 15


def test_a_database_that_did_not_fit_leaves_nothing_and_is_made_when_there_is_room(tmp_path):
    """The kernel's own limit on a file's size stands for a disk that is full."""
    file = tmp_path / "mlflow.db"
    make = (
        "import resource, signal, sys; from pathlib import Path; from bench.tracking import connection\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); client = connection.import_mlflow()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "connection.open_client('sqlite:///' + sys.argv[1])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", make, str(file)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == []
    store(tmp_path / "results", [record()])
    mirror = Mirror(f"sqlite:///{file}", "e", tmp_path / "artifacts", tmp_path / "results")
    mirror.start_sweep("s", {}, 1)
    for pending in mirror.pending(Store(tmp_path / "results")):
        mirror.log_record(pending)
    assert not mirror.problems and not mirror.pending(Store(tmp_path / "results"))


def test_a_database_is_made_once_whoever_is_first(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"another driver's")
    make_database(file, lambda uri: pytest.fail("it is there already"))
    assert file.read_bytes() == b"another driver's"


@pytest.mark.parametrize("name", ["a?b", "a%b", "a#b"])
def test_a_folder_that_no_address_can_name_is_refused_before_anything_is_measured(name, tmp_path):
    with pytest.raises(UsageError, match=f'because of the "{name[1]}"'):
        address_of(tmp_path / name / "mlflow.db")


def test_a_reminder_while_the_deadline_is_taken_off_leaves_no_timer_behind(monkeypatch):
    """The first reminder ends the work; those that follow must not reach who comes next."""
    monkeypatch.setattr("bench.tracking.deadline.AGAIN_S", 0.001)
    before = signal.getsignal(signal.SIGALRM)
    for _ in range(50):
        with pytest.raises(Late), deadline(0.002):
            while True:
                time.sleep(0.01)
    assert signal.getsignal(signal.SIGALRM) is before
    time.sleep(0.02)  # nothing is raised here
