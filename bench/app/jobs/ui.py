"""`job=ui`: MLflow's own interface on the mirror, opened on the useful view."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

from bench.app.mirror import experiment_of, tracking_uri
from bench.app.terminal import tell
from bench.canonical import OWN_NETWORKS
from bench.config import catalogue
from bench.config.schema import Config
from bench.errors import BenchError
from bench.foreign_text import shortened

#: Seconds that the server may take until it answers; on a small machine it needs twenty.
START_S = 180.0
#: Between two looks whether it answers.
LOOK_S = 0.5
#: Seconds that the server's processes get to end by themselves.
END_S = 10.0


def run(config: Config) -> int:
    """Start the interface, print its address once it answers, and wait until it is ended; 0 for Ctrl-C or a kill.

    Raises:
        BenchError: the server ended before it answered, or did not answer in time.
    """
    from bench.tracking.ui import ui_command

    suite = _suite(config)
    command, environment, url = ui_command(tracking_uri(config), experiment=experiment_of(config, suite), suite=suite)
    if not command:
        print(f"mlflow   {url}")
        return 0
    print("mlflow   starting, which takes up to half a minute", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-ui-") as scratch:
        log = Path(scratch) / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own workers end with it, and Ctrl-C reaches us alone
            )
        try:
            _wait_for_answer(server, url, log)
            print(f"mlflow   {url}   (Ctrl-C ends it)", flush=True)
            code = server.wait()
            tell(f"MLflow's server ended by itself ({code}): {_last_lines(log)}")
            return code
        except KeyboardInterrupt:
            return 0
        finally:
            _end(server)


def _suite(config: Config) -> str:
    """The suite to show: the chosen one, or that of the user's own networks where one of them is named."""
    own = config.model is not None and catalogue.parse_spec(config.model)[0] not in catalogue.load().models
    return OWN_NETWORKS if own else config.suite.name


def _wait_for_answer(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once the server answers.

    Raises:
        BenchError: it ended first, or does not answer in time.
    """
    parts = urlsplit(url)
    health, end = f"{parts.scheme}://{parts.netloc}/health", time.monotonic() + START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise BenchError(f"MLflow's server ended before it answered ({server.returncode}): {_last_lines(log)}")
        with contextlib.suppress(URLError, OSError), urllib.request.urlopen(health, timeout=5):
            return
        time.sleep(LOOK_S)
    raise BenchError(f"MLflow's server did not answer within {START_S:.0f} s: {_last_lines(log)}")


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return shortened(" ".join(lines[-3:]) or "it said nothing", 400)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and every process that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(END_S)
            if not _lives(server.pid):
                return


def _lives(group: int) -> bool:
    """Whether any process of a group is left, after a moment in which they may end."""
    for _ in range(20):
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        time.sleep(0.1)
    return True
