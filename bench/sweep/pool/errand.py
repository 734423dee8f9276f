"""The process of a piece of work on its machine, seen from what started it: begun, watched for new files, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.store.foreign import CorruptRecord, read_json
from bench.sweep.pool.node import ENDED, RESULTS
from bench.sweep.pool.work import Work

#: Variables of the engine that started us, which the measured processes must not see.
OF_ENGINES = ("RAY_", "SUBMITIT_")
LOG = "node.log"
#: What is sent: records last, so that what they name is there before them.
SENT = ("machines/*.json", "logs/**/*.log", "samples/*/*.json*", "records/*.json")


class Errand:
    """A piece of work in a process of its own.

    Args:
        work: what is measured.
        folder: where it works; made if it is not there.
    """

    def __init__(self, work: Work, folder: Path):
        self.folder = folder
        self._sent: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "work.json").write_text(work.text(), encoding="utf-8")
        command = [sys.executable, "-m", "bench.sweep.pool.node", str(folder / "work.json"), str(folder)]
        with (folder / LOG).open("w") as log:
            self._process = subprocess.Popen(
                command,
                cwd=work.folder if os.path.isdir(work.folder) else None,
                env=surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def new_files(self) -> dict[str, bytes]:
        """Files of its results folder that were not given before, by their path in it."""
        return new_files(self.folder / RESULTS, self._sent)

    def ending(self) -> dict[str, Any]:
        """How it ended; `lost` with the end of what it printed where it does not say."""
        return ending(self.folder, self._process.poll())

    def end(self) -> None:
        """Kill the process with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGTERM)
        if not self.wait(5.0):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def surroundings() -> dict[str, str]:
    """The environment of a measuring process: this one's without the engine's, and its import path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_ENGINES)}
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, [*sys.path, os.getcwd()])))}


def new_files(results: Path, sent: dict[str, int]) -> dict[str, bytes]:
    """Files of a results folder that are new or longer than when they were sent; `sent` learns of them."""
    found: dict[str, bytes] = {}
    # looked up before they are read: a record that appears meanwhile comes next time, with what it names
    paths = [
        path for pattern in reversed(SENT) for path in sorted(results.glob(pattern)) if not path.name.startswith(".")
    ]
    for path in reversed(paths):
        name = path.relative_to(results).as_posix()
        size = path.stat().st_size
        if sent.get(name) != size:  # logs grow; everything else is written once and whole
            sent[name] = size
            found[name] = path.read_bytes()
    return found


def ending(folder: Path, code: int | None) -> dict[str, Any]:
    """What the process wrote last; of one that could not, that it is lost."""
    try:
        value = read_json(folder / ENDED)
    except CorruptRecord:
        value = None
    if isinstance(value, dict) and isinstance(value.get("status"), str):
        return value
    with contextlib.suppress(OSError):
        tail = (folder / LOG).read_text(encoding="utf-8", errors="replace")[-2000:]
        return {"status": "lost", "message": f"its process ended with {code}: {json.dumps(tail)}"}
    return {"status": "lost", "message": f"its process ended with {code}"}
