"""A lab's store for real: MLflow's server on PostgreSQL with accounts, as docs/examples/central_store starts it.

Skipped, with the reason, where PostgreSQL's programs, its driver or what MLflow's accounts need is not installed.
"""

import base64
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from bench.app.generate_docs import ROOT
from bench.tracking import connection
from bench.tracking.mirror import Mirror
from tests.synthetic import store, suite_records

EXAMPLE = ROOT / "docs" / "examples" / "central_store"
PLACES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *map(Path, os.get_exec_path()))
PASSWORD = "a-secret"


def program(name):
    """The newest of its kind, or None."""
    return next((str(place / name) for place in PLACES if (place / name).is_file()), None)


def missing():
    """What this machine lacks for the store, or nothing."""
    programs = [name for name in ("initdb", "postgres") if program(name) is None]
    modules = [name for name in ("psycopg", "flask_wtf") if importlib.util.find_spec(name) is None]
    return ", ".join([*programs, *modules])


needs_postgres = pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")


def test_the_compose_file_starts_the_same_server_with_all_that_it_asks_for():
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
    script = (EXAMPLE / "serve.sh").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?\}", script))
    assert asked <= set(services["mlflow"]["environment"])
    assert "serve.sh" in (EXAMPLE / "Dockerfile").read_text()
    assert services["mlflow"]["environment"]["DATABASE"].startswith("postgresql+psycopg://waterline:")
    assert {"--app-name basic-auth", "--allowed-hosts"} <= set(
        re.findall(r"--app-name basic-auth|--allowed-hosts", script)
    )
    import mlflow

    assert f"mlflow=={mlflow.__version__} " in (EXAMPLE / "Dockerfile").read_text()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_whom():
    """PostgreSQL refuses to run as root: another user then, else this one."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Database:
    """A PostgreSQL of our own in a folder, with the two databases of the example."""

    def __init__(self, folder):
        self.folder, self.port, self.user = folder, free_port(), as_whom()
        if self.user:
            os.chown(folder, self.user["user"], self.user["group"])
        (folder / "password").write_text(PASSWORD)
        os.chmod(folder / "password", 0o644)
        made = [
            program("initdb"),
            "-D",
            folder / "data",
            "-U",
            "waterline",
            "--auth=scram-sha-256",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(
            [*made, f"--pwfile={folder / 'password'}"], check=True, capture_output=True, cwd=folder, **self.user
        )
        self.start()
        for line in (EXAMPLE / "databases.sql").read_text().splitlines():
            with self.opened() as opened:
                opened.execute(line)

    @property
    def address(self):
        return f"postgresql+psycopg://waterline:{PASSWORD}@127.0.0.1:{self.port}"

    def opened(self):
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="waterline", password=PASSWORD, dbname="postgres", autocommit=True
        )

    def start(self):
        command = [program("postgres"), "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder, "-F"]
        command += ["-c", "listen_addresses=127.0.0.1"]
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.user
        )
        wait_for(self.opened, self.process)

    def stop(self):
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(20)


def wait_for(opens, process, seconds=90):
    """Until something answers, as long as the process lives."""
    end = time.monotonic() + seconds
    while True:
        try:
            opens().close()
            return
        except Exception:
            if time.monotonic() > end or process.poll() is not None:
                raise
            time.sleep(0.2)


class Server:
    """MLflow as serve.sh starts it."""

    def __init__(self, database, folder):
        self.database, self.folder, self.port = database, folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self):
        log = (self.folder / "server.log").open("ab")
        environment = {
            **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DATABASE": self.database.address, "ARTIFACTS": str(self.folder / "artifacts"),
            "HOSTS": f"127.0.0.1:{self.port}", "ADDRESS": "127.0.0.1", "PORT": str(self.port), "WORKERS": "1",
            "MLFLOW_AUTH_ADMIN_PASSWORD": "administrators-own", "MLFLOW_FLASK_SERVER_SECRET_KEY": "0123456789abcdef",
            "TMPDIR": str(self.folder),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [EXAMPLE / "serve.sh"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(lambda: urllib.request.urlopen(f"{self.address}/health", timeout=2), self.process)
        except Exception:
            raise AssertionError((self.folder / "server.log").read_text()[-3000:]) from None

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture(scope="module")
def lab():
    """The database and the server, up."""
    folder = Path(tempfile.mkdtemp(prefix="waterline-lab-"))
    database = server = None
    try:
        database = Database(folder)
        server = Server(database, folder)
        server.start()
        yield server
    finally:
        for started in (server, database):
            if started is not None:
                started.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def account(monkeypatch, name, password):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", name)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        yield


def create_account(lab, name, password):
    """As docs/howto/central_store.md does with curl; the status of the answer."""
    told = base64.b64encode(b"admin:administrators-own").decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {told}"}
    body = json.dumps({"username": name, "password": password}).encode()
    asked = urllib.request.Request(f"{lab.address}/api/2.0/mlflow/users/create", body, headers)
    return urllib.request.urlopen(asked, timeout=10).status


def mirrored(uri, folder, records):
    """A mirror of a results folder after a sweep of these records."""
    made = store(folder / "results", records, with_samples=False)
    one = Mirror(uri, "lab", folder / "artifacts", folder / "results", clock=lambda: 0.0)
    one.start_sweep("vit_tokens", {"suite": {"name": "vit_tokens"}}, len(records))
    for item in records:
        one.log_record(item)
    return one, made


def cases_of(mirror):
    mirror.connection.connect()
    return mirror.connection.search("tags.`waterline.kind` = 'case'")


@pytest.mark.slow
@needs_postgres
def test_a_lab_keeps_its_records_behind_accounts_and_an_outage_of_either_part_loses_none(lab, tmp_path, monkeypatch):
    records = suite_records()
    stranger, made = mirrored(lab.address, tmp_path, records[:2])
    (told,) = stranger.problems
    assert "MLFLOW_TRACKING_USERNAME" in told and len(stranger.pending(made)) == 2
    assert create_account(lab, "bench", "of-all-drivers") == 200
    with account(monkeypatch, "bench", "of-all-drivers"):
        for item in stranger.pending(made):
            stranger.log_record(item)
        assert not stranger.problems and len(cases_of(stranger)) == 2
        assert len(list((lab.folder / "artifacts").rglob("record.json"))) == 2

        lab.stop()  # the server is away
        stranger.connection.retry_now()
        for item in records[2:5]:
            made.write(item)
            stranger.log_record(item)
        assert len(stranger.problems) == 1 and len(stranger.pending(made)) == 3
        lab.start()
        again = Mirror(lab.address, "lab", tmp_path / "artifacts", tmp_path / "results")
        for item in again.pending(made):
            again.log_record(item)
        assert not again.problems and len(cases_of(again)) == 5

        lab.database.stop()  # the server answers, and its database does not
        for item in records[5:]:
            made.write(item)
            again.log_record(item)
        assert len(again.problems) == 1 and len(again.pending(made)) == 4
        lab.database.start()
        for item in again.pending(made):
            again.log_record(item)
        again.finish(None)
        assert not again.problems and not again.pending(made)
        runs = cases_of(again)
        assert len({run.data.tags["content_hash"] for run in runs}) == len(runs) == 9
        assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}

        other = Mirror(lab.address, "lab", tmp_path / "artifacts", tmp_path / "results")  # of another results folder
        other._cases._ledger.path.unlink()
        for item in other.pending(made):
            other.log_record(item)
        assert len(cases_of(other)) == 9


@pytest.mark.slow
@needs_postgres
def test_the_server_answers_under_its_own_names_alone_and_nobody_without_an_account(lab):
    def status(path, **headers):
        try:
            return urllib.request.urlopen(
                urllib.request.Request(lab.address + path, headers=headers), timeout=10
            ).status
        except urllib.error.HTTPError as error:
            return error.code

    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search) == 401
    assert status(search, Host="evil.example") == 403
    assert status("/health") == 200


@pytest.mark.slow
@needs_postgres
def test_a_driver_can_write_to_the_database_itself(lab, tmp_path):
    with lab.database.opened() as opened:
        opened.execute("CREATE DATABASE alone")
    one, made = mirrored(f"{lab.database.address}/alone", tmp_path, suite_records()[:2])
    assert not one.problems and not one.pending(made) and len(cases_of(one)) == 2
    assert PASSWORD not in connection.display(one.uri)
