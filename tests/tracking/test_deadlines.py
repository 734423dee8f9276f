"""A mirror that answers slowly for ever, or a database that cannot be opened, costs seconds; records are kept."""

import contextlib
import os
import resource
import signal
import socket
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
from bench.tracking.database import address_of, check_database, check_schema, check_served_database, make_database
from bench.tracking.deadline import Late, deadline
from bench.tracking.mirror import Mirror
from bench.tracking.ui import ui_command
from tests.forked import in_a_fork
from tests.synthetic import record, store


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


@pytest.fixture(params=["later", "body", "drip", "headers", "silent"])
def slow_server(request):
    if request.param == "silent":  # it accepts and never answers
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(100)
            yield f"http://127.0.0.1:{deaf.getsockname()[1]}"
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Kind", (Slow,), {"kind": request.param}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_answers_slowly_for_ever_is_away_and_asked_less_and_less(slow_server, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_S", 0.35)
    monkeypatch.setattr(connection, "UPLOAD_S", 0.35)
    reach, asked, made, now = connection.check_reachable, [], record(), [0.0]
    monkeypatch.setattr(connection, "check_reachable", lambda uri: (asked.append(uri), reach(uri)))
    mirror = Mirror(slow_server, "e", tmp_path / "artifacts", tmp_path, clock=lambda: now[0])
    connection.import_mlflow()
    start = time.monotonic()
    mirror.start_sweep("s", {}, 1)
    for _ in range(50):  # one question every 30 s at first, then every minute, every two
        now[0] += 10
        mirror.log_record(made)
    mirror.finish()
    assert time.monotonic() - start < 0.35 * len(asked) + 1.8, "every question has one deadline"
    assert 1 < len(asked) < 9, "a server that fails is left alone longer and longer"
    (problem,) = mirror.problems
    assert "every record is kept" in problem and "no end after 0.35 s" in problem


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

    def make():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        connection.open_client(f"sqlite:///{file}")

    connection.import_mlflow()
    assert in_a_fork(make) == 1
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


# -- databases of another MLflow ---------------------------------------------------------------------------------------

#: The newest schema of MLflow 2.16 (`increase max dataset schema size`); 3.17 has further tables.
OF_MLFLOW_2_16 = "4465047574b1"


def older_database(file):
    """A database as an MLflow of 2024 left it: its tables by MLflow's own steps up to there, with a run in it."""
    import mlflow
    import sqlalchemy
    from alembic import command
    from alembic.config import Config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    steps = Config()
    steps.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    steps.set_main_option("sqlalchemy.url", f"sqlite:///{file}")
    with engine.begin() as opened:
        steps.attributes["connection"] = opened
        command.upgrade(steps, OF_MLFLOW_2_16)
    with engine.begin() as opened:
        opened.exec_driver_sql("insert into experiments values (7, 'theirs', 'mlruns/7', 'active', 1, 1)")
    engine.dispose()
    return file.read_bytes()


@pytest.fixture
def older(tmp_path):
    connection.import_mlflow()
    file = tmp_path / "their own.db"
    return file, older_database(file)


def mirrored(tmp_path, file):
    """What the mirror says after a sweep of one record, and how many records it still lacks."""
    made = record()
    kept = Store(tmp_path / "results")
    if not kept.record_path(made["case_key"], made["machine_key"]).exists():
        kept.write(made)
    mirror = Mirror(f"sqlite:///{file}", "waterline", tmp_path / "art", tmp_path / "results")
    mirror.start_sweep("vit_tokens", {}, 1)
    for one in mirror.pending(kept):
        mirror.log_record(one)
    mirror.finish()
    return mirror.problems, len(mirror.pending(kept))


def test_a_database_of_an_older_mlflow_is_left_as_it_is_and_filled_when_its_owner_brought_it_up_to_date(
    older, tmp_path
):
    file, before = older
    (told,), lacking = mirrored(tmp_path, file)
    assert "was made by an older MLflow" in told and f"`mlflow db upgrade 'sqlite:///{file}'`" in told
    assert "every record is kept in" in told and lacking == 1
    assert file.read_bytes() == before  # MLflow by itself would have changed it by being asked
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{file}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env={**os.environ, **connection.NO_TELEMETRY})
    assert mirrored(tmp_path, file) == ([], 0)
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert {row[0] for row in database.execute("select name from experiments")} >= {"theirs", "waterline"}
        assert database.execute("select count(*) from runs").fetchone() == (2,)  # the sweep and its case


def test_a_database_of_a_newer_mlflow_says_which_of_the_two_is_old(older, tmp_path):
    file, _ = older
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("update alembic_version set version_num = 'abcdefabcdef'")
        database.commit()
    with pytest.raises(OSError, match=r"made by a newer MLflow than MLflow .*: bring MLflow up to date"):
        check_database(file)


def test_the_interface_is_not_started_on_a_database_that_it_would_change(older):
    file, before = older
    with pytest.raises(UsageError, match=r"job=ui: .* was made by an older MLflow"):
        ui_command(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_served_database_is_asked_by_its_own_driver_and_no_password_is_told(older):
    """Through SQLite's driver by the name that takes the way of PostgreSQL and MySQL."""
    file, _ = older
    with pytest.raises(OSError, match="older MLflow"):
        check_served_database(f"sqlite+pysqlite:///{file}")
    check_served_database("sqlite+pysqlite:///:memory:")  # a new one is MLflow's to fill
    with pytest.raises(OSError, match=r"postgresql://db.example/runs was made by a newer") as told:
        check_schema({"abcdefabcdef"}, "postgresql://me:secret@db.example/runs")
    assert "secret" not in str(told.value)
