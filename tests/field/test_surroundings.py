"""Wherever it is started: homes, languages, paths, line ends, MLflow's settings and runs, event loops, notations."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from bench.store.records import Store
from tests.field.test_around import ROOT, bench_in

NETS = """
import torch
from torch import nn


class Net(nn.Linear):
    def __init__(self, width: int = 8, rate: float = 0.5):
        super().__init__(16, width, bias=False)

    def example_inputs(self, batch):
        return torch.rand(batch, 16)


class Fails(Net):
    def forward(self, x):
        return self.inner(x)

    def inner(self, x):
        return {"a": 1}["b"]
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with blanks and letters of several alphabets, with a network in it."""
    place = tmp_path / "mein Ördner 数 (1)"
    place.mkdir()
    (place / "nets.py").write_text(NETS)
    return place


def planned(folder, *overrides, **environment):
    return run(folder, "job=plan", *overrides, **environment)


def run(folder, *words, **environment):
    done = bench_in(folder, *words, **environment)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def python_in(folder, code, **environment):
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.slow
def test_a_whole_sweep_in_the_c_locale_without_a_home_that_can_be_written(folder):
    """Records, report and mirror, in a folder whose name the locale cannot spell."""
    done = bench_in(
        folder,
        "model=nets:Net",
        "protocol=counts",
        LANG="C",
        LC_ALL="C",
        PYTHONUTF8="0",
        HOME="/proc/1",
        XDG_CACHE_HOME="/proc/1",
    )
    assert done.returncode == 0, done.stderr
    (record,) = Store(folder / "results").iterate()
    assert {row["metric"]: row["value"] for row in record["readings"]}["macs"] == 128
    assert (folder / "site" / "index.html").is_file()
    assert b"MLflow at" not in done.stderr, done.stderr
    with closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as mirror:
        ((artifacts,),) = mirror.execute("select artifact_uri from runs where name not like 'sweep %'").fetchall()
    place = Path(unquote(urlsplit(artifacts).path))
    assert place.is_relative_to(folder) and (place / "record.json").is_file()


@pytest.mark.slow
def test_mlflows_own_settings_in_the_environment_move_nothing_of_ours(folder):
    done = bench_in(
        folder,
        "model=nets:Net",
        "protocol=counts",
        "report=off",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_RUN_ID="abc",
        MLFLOW_EXPERIMENT_NAME="theirs",
        MLFLOW_REGISTRY_URI="http://127.0.0.1:9",
    )
    assert done.returncode == 0 and b"away" not in done.stderr, done.stderr
    assert (folder / "mlflow" / "mlflow.db").is_file()


@pytest.mark.slow
def test_an_active_run_of_the_users_and_a_running_event_loop_are_left_alone(folder):
    code = """
import asyncio, mlflow, torch, bench
from nets import Net
mlflow.set_tracking_uri("sqlite:///own.db")
with mlflow.start_run() as run:
    frame = bench.measure(Net(), torch.rand(4, 16), ["macs", "memory"])
    assert mlflow.active_run().info.run_id == run.info.run_id
    mlflow.log_metric("mine", 2)
assert mlflow.get_tracking_uri() == "sqlite:///own.db"
assert mlflow.get_run(run.info.run_id).data.metrics == {"mine": 2.0}

async def cell():
    return bench.measure(Net(), torch.rand(4, 16), ["macs", "memory"])

again = asyncio.run(cell())
for one in (frame, again):
    values = dict(zip(one["metric"], one["value"]))
    assert values["macs"] == 128 and values["peak_memory_bytes"] > 0, values
"""
    done = python_in(folder, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ends", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_suite_written_on_another_system_is_read(folder, ends, mark):
    from bench.config.suites import read_suite

    suite = folder / "suite.yaml"
    text = ends.join(["name: other", "grids:", "  default:", '    - models: ["nets:Net"]', "      methods: [none]", ""])
    suite.write_bytes((mark + text).encode())
    assert read_suite(suite)["grids"]["default"][0]["models"] == ["nets:Net"]


@pytest.mark.slow
def test_lists_of_the_command_line_are_one_plan_after_another_and_one_that_fails_is_told(folder):
    temporary = folder.parent / "tmp"
    temporary.mkdir()
    code, out, told = run(folder, "-m", "job=plan", "model=nets:Net", "seed=1,2", TMPDIR=str(temporary))
    assert (code, out.count("to measure")) == (0, 4), told  # a row and a sum each
    left = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert left == {"nets.py"} and not list(temporary.glob("bench-*"))  # Hydra's copy of the configuration is gone
    code, out, told = run(folder, "-m", "job=plan", "model=nets:Net", "seed=-1,2")
    assert code == 2 and "seed=-1" in told and "nets:Net" in out


#: How a number is written, where, and what the plan then shows; None where it is refused, with what the refusal says.
NOTATIONS = [
    ("suite.batches=[1e1]", "batch 10", None),
    ("suite.batches=[1_0]", "batch 10", None),
    ("suite.batches=[+4]", "batch 4", None),
    ("suite.batches=[4.0]", "batch 4", None),
    ("suite.batches=4", None, "suite.batches=[4]"),
    ("suite.batches=[4.5]", None, "4.5"),
    ("suite.batches=[0x10]", None, "0x10"),
    ("suite.batches=[٤٢]", None, "٤٢"),
    ("suite.batches=[-1]", None, "1 or more"),
    ("model='nets:Net(width=0x10)'", "width=16", None),
    ("model='nets:Net(width=1_6)'", "width=16", None),
    ("model='nets:Net(rate=.5e0)'", "rate=0.5", None),
    ("model='nets:Net(width=1e1)'", None, "width=10"),
    ("model='nets:Net(width=٤)'", None, "not of the form"),
    ("model='nets:Net(rate=nan)'", None, "rate"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("override", "shown", "refused"), NOTATIONS)
def test_a_number_is_read_as_it_is_written_or_refused_with_what_is_meant(folder, override, shown, refused):
    own = [override] if override.startswith("model") else ["model=nets:Net", override]
    code, out, told = planned(folder, *own, COLUMNS="200")
    assert code == (0 if shown else 2), told
    assert (shown in out) if shown else (refused in told), (out, told)
    assert "Traceback" not in told


@pytest.mark.slow
def test_the_last_line_of_a_sweep_says_what_failed_of_what_kind_and_where_in_the_users_code(folder):
    done = bench_in(folder, "model=nets:Fails", "tracking=off", "report=off", "protocol=quick")
    assert done.returncode == 3
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith("failed")]
    assert "crashed: KeyError: 'b' (nets.py, line 19, in inner: return" in line


def test_the_line_of_what_failed_without_a_message_or_lines_says_the_kind_alone():
    from bench.app.fault_text import one_line

    assert one_line({"type": "MemoryError", "message": ""}) == "MemoryError: it says no more"
    assert one_line({"type": "SIGKILL", "message": "SIGKILL by somebody"}) == "SIGKILL by somebody"
    long = one_line(
        {"type": "E", "message": "x" * 5000 + f"\n  {Path('/a') / ('b' * 500)}.py, line 3, in f: " + "y" * 500}
    )
    assert len(long) < 450 and "line 3, in f" in long
