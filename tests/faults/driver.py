"""A real driver in a process of its own, for tests that interrupt it, starve it or take its disk away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.sweeping import QUICK, WORKERS

ROOT = Path(__file__).resolve().parents[2]


def statuses(records: list[dict[str, Any]]) -> dict[str, str]:
    """Status by the name of the model's builder."""
    return {record["case"]["model"].partition(":")[2]: record["status"] for record in records}


def command(folder: Path, models: list[str], *overrides: str) -> list[str]:
    """A command line that sweeps these models with the moments-long protocol, and its suite folder."""
    suite = folder / "faultsuite"
    suite.mkdir(exist_ok=True)
    grid = {"name": "faultsuite", "grids": {"default": [{"models": models, "methods": ["none"]}]}}
    (suite / "suite.yaml").write_text(yaml.safe_dump(grid))
    parts = ("latency", "counting", "energy")
    quick = [f"protocol.{part}.{key}={value}" for part in parts for key, value in QUICK[part].items()]
    fixed = ["suite=faultsuite", "tracking=off", "report=off", f"executor.name={WORKERS}"]
    return [sys.executable, "-m", "bench", *fixed, *quick, *overrides]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What the driver needs to find the suite and the fault models."""
    own = {"BENCH_SUITES": str(folder / "faultsuite"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, **more}


def _listens_to_ctrl_c() -> None:
    """Undo what a test run in the background inherits: there the shell has Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def driver(folder: Path, models: list[str], *overrides: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The running driver; killed at the end if the test has not ended it."""
    process = subprocess.Popen(
        command(folder, models, *overrides),
        cwd=folder,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_listens_to_ctrl_c,  # noqa: PLW1509 - no thread is started here
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this never happened"
        time.sleep(0.05)


def answer(url: str, seconds: float = 60.0) -> bytes:
    """What a server that is starting answers as soon as it does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return bytes(reply.read())
        except OSError:
            assert time.monotonic() < deadline, f"{url} never answered"
            time.sleep(0.1)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The driver's descendants."""
    return psutil.Process(process.pid).children(recursive=True)
