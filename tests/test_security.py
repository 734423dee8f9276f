"""The lines of docs/security.md that no other test holds."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.app.jobs import reproduce
from bench.errors import UsageError
from bench.plan.case import Case
from bench.store.records import seal, write_json
from tests.faults import driver
from tests.sweeping import HEALTHY, configuration, sweep
from tests.synthetic import record

ROOT = Path(__file__).resolve().parents[1]


class Payload:
    """An object whose unpickling runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.fixture
def hostile(tmp_path):
    """A checkpoint that runs code when it is unpickled, as a bare pickle and as torch writes one."""
    import torch

    bare, zipped = tmp_path / "bare.pt", tmp_path / "zipped.pth"
    bare.write_bytes(pickle.dumps({"layer.weight": Payload(tmp_path / "mark")}))
    torch.save({"layer.weight": Payload(tmp_path / "mark")}, zipped)
    return [bare, zipped]


def test_a_checkpoint_that_would_run_code_is_refused_by_the_worker(hostile, tmp_path):
    from bench.worker.checkpoint import read_state

    for path in hostile:
        with pytest.raises(UsageError, match="safetensors"):
            read_state(path)
    assert not (tmp_path / "mark").exists()


def test_a_checkpoint_that_would_run_code_is_refused_by_the_suites(hostile, tmp_path):
    from suites.common.checkpoint import read_checkpoint

    for path in hostile:
        with pytest.raises(UsageError, match="refused"):
            read_checkpoint(path)
    assert not (tmp_path / "mark").exists()


def test_nothing_in_the_rooms_unpickles_what_came_from_elsewhere():
    """`torch.load` always weights-only; pickles only of objects that were made in the same run."""
    allowed = {
        "bench/meters/handed_over.py",
        "bench/meters/fvcore_count.py",
        "bench/meters/apart.py",
        "bench/testing/other_process.py",
    }
    for room in ("bench", "suites", "reports"):
        for file in (ROOT / room).rglob("*.py"):
            text, name = file.read_text(encoding="utf-8"), str(file.relative_to(ROOT))
            for call in re.findall(r"torch\.load\([^\n]*", text):
                assert "weights_only=True" in call, name
            if name not in allowed:
                assert not re.search(r"\b(cloud)?pickle\.loads?\(|joblib\.load\(|\byaml\.unsafe_load\(", text), name
            for call in re.findall(
                r"\byaml\.load\([^\n]*", text
            ):  # a loader that builds plain data, in the one reader of ours
                assert name == "bench/config/yaml_file.py" and ", Loader)" in call, name
    from bench.config import yaml_file

    assert issubclass(yaml_file.Loader, (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@pytest.mark.parametrize("field", ["model", "method"])
def test_a_foreign_record_names_no_code_that_runs_untrusted(field, tmp_path):
    """Not even the module is imported: its import alone would run it."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\ndef build(): pass\n")
    made = record()
    case = Case.from_dict({**made["case"], field: "evil:build"})
    keys = {"case": case.as_dict(), "case_key": case.key, "record_key": f"{case.key}.{made['machine_key']}"}
    write_json(tmp_path / "foreign.json", seal({**made, **keys}))
    config = configuration(tmp_path, [HEALTHY], job="reproduce", row=str(tmp_path / "foreign.json"))
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(config)
    assert not (tmp_path / "mark").exists()
    assert "evil" not in sys.modules


def test_settings_of_a_foreign_record_are_literals_and_nothing_is_evaluated(tmp_path):
    from bench.canonical import parse_settings

    with pytest.raises(ValueError, match="not of the form"):
        parse_settings(f"r=__import__('os').system('touch {tmp_path / 'mark'}')")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("key", ["../../escaped", "/tmp/escaped", "a/../../b", "..", "", "a\x00b", "a\nb", "x" * 300])
def test_a_key_that_is_a_path_is_refused_before_any_file_is_named_after_it(key, tmp_path):
    from bench.store.records import CorruptRecord, Store, check

    for part in ("case_key", "machine_key", "record_key"):
        with pytest.raises(CorruptRecord, match="is no key"):
            check(seal({**record(), part: key}), "foreign")
    with pytest.raises(CorruptRecord, match="is no key"):
        Store(tmp_path / "results").write({**record(), "case_key": key})
    assert not list(tmp_path.iterdir())


WATCH = """
import os, sys
def tell(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        family, address = int(arguments[0].family), arguments[1]
        if family in (2, 10) and not str(address[0]).startswith(("127.", "::1")):
            told(f"{event} {address}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if str(arguments[0]) not in ("127.0.0.1", "localhost", "::1", "None", ""):
            told(f"{event} {arguments[0]}")
def told(line):
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{sys.argv} {line}\\n")
sys.addaudithook(tell)
with open(os.environ["WATCHED"] + ".processes", "a") as file:
    file.write(f"{os.getpid()} {' '.join(sys.orig_argv)}\\n")
"""


@pytest.fixture
def watched(tmp_path):
    """An environment in which every Python process tells what it would send anywhere but to this machine.

    Nothing in it says that a test is running, because MLflow would then send nothing by itself.
    """
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    path = os.pathsep.join([str(tmp_path / "hook"), str(ROOT)])
    return {**kept, "WATCHED": str(tmp_path / "sent"), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def processes(environment):
    return Path(environment["WATCHED"] + ".processes").read_text()


def without_network():
    """What to put before a command so that it has no network but this machine's own, where that is allowed."""
    prefix = ["unshare", "--net", "--"]
    allowed = (
        shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    )
    return prefix if allowed else []


def test_the_watch_sees_what_would_be_sent(watched, tmp_path):
    code = (
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.create_connection(('192.0.2.1', 9), 0.01)"
    )
    subprocess.run([*without_network(), sys.executable, "-c", code], env=watched, cwd=tmp_path, check=True)
    assert "192.0.2.1" in (tmp_path / "sent").read_text()


def test_nothing_is_sent_anywhere_by_a_sweep_with_its_mirror_and_report(watched, tmp_path):
    """Driver, worker server, workers, mirror and report of a whole sweep, without any network: none even tries."""
    pytest.importorskip("mlflow")
    command = [word for word in driver.command(tmp_path, [HEALTHY]) if word not in ("tracking=off", "report=off")]
    environment = {**watched, "BENCH_SUITES": str(tmp_path / "faultsuite")}
    done = subprocess.run(
        [*without_network(), *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "bench.worker.server" in processes(watched) and "-m bench suite=" in processes(watched)
    assert list(tmp_path.rglob("mlflow.db")) and list(tmp_path.rglob("index.html")), "mirror and report were not there"
    assert not (tmp_path / "sent").exists(), (tmp_path / "sent").read_text()


@pytest.mark.slow
def test_nothing_is_sent_anywhere_by_the_interface_of_the_mirror(watched, tmp_path):
    """MLflow's server, as `job=ui` starts it, also when its page asks whether to report."""
    pytest.importorskip("mlflow")
    from bench.tracking.ui import ui_command
    from tests.tracking.test_tracking import free_port

    port = free_port()
    command, more, url = ui_command(f"sqlite:///{tmp_path}/mlflow.db", port=port)
    with subprocess.Popen(
        command,
        env={**watched, **more},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            asked = driver.answer(f"{url}/ajax-api/3.0/mlflow/ui-telemetry", seconds=120)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    assert json.loads(asked)["disable_ui_telemetry"] is True
    assert "mlflow" in processes(watched)
    assert not (tmp_path / "sent").exists(), (tmp_path / "sent").read_text()


def test_workers_and_what_they_import_are_told_not_to_report(tmp_path):
    marks = tmp_path / "marks"
    config = configuration(tmp_path, [f"tests.faults.models:tells_its_environment(marks={str(marks)!r})"])
    assert [record["status"] for record in sweep(config).records] == ["ok"]
    assert set(marks.read_text().split()) == {"DO_NOT_TRACK=true"}


def test_every_line_of_the_threat_model_names_tests_that_exist():
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`tests/" in line]
    assert len(rows) >= 15
    for row in rows:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row):
            found = (ROOT / file).read_text(encoding="utf-8")
            assert name == "" or f"def {name}(" in found, f"{file}::{name}"
