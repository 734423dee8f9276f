"""A worker's life: read the spec, run the job, write a typed outcome."""

from __future__ import annotations

import faulthandler
import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.records import write_json
from bench.worker import isolation

#: Kind of job -> module whose `run(spec, phase)` does it and returns plain JSON types.
JOBS = {
    "probe": "bench.worker.probe",
    "invocation": "bench.worker.invocation",
    "prepare": "bench.worker.prepare",
    "calibrate": "bench.worker.calibrate",
    "estimate": "bench.worker.estimate",
}

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


class InvalidOutput(Exception):
    """The model's output is not finite or changes between identical calls in a way that makes its row meaningless."""


class StateChanged(InvalidOutput):
    """A forward changes state of torch that everything beside it in the process is timed under."""


class Phase:
    """Tells the driver what the worker is doing, in a file of its own: the driver's timeouts are per phase."""

    def __init__(self, path: Path):
        self._path = path
        self.name = "start"
        self.case: str | None = None
        self._last = 0.0

    def enter(self, name: str, case: str | None = None) -> None:
        """Begin a phase, of one case if it concerns only that."""
        self.name, self.case = name, case
        self._path.write_text(json.dumps({"phase": name, "case": case, "at": time.time()}))
        self._last = time.monotonic()

    def beat(self) -> None:
        """Say that the phase is alive; at most once a second, so that it costs nothing in a timing loop."""
        if time.monotonic() - self._last > 1.0:
            self.enter(self.name, self.case)


def classify(error: BaseException) -> str:
    """The status that an exception gives a row."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "oom"
    if isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY):
        return "oom"
    if isinstance(error, NotImplementedError):
        return "unsupported"
    if isinstance(error, InvalidOutput | UsageError | ValueError):
        return "invalid"
    return "crashed"


def run(spec_path: Path) -> int:
    """Do the job of a spec file and write its outcome; 0 also when the job failed, because that is told in the file."""
    faulthandler.enable()
    spec: dict[str, Any] = json.loads(spec_path.read_text())
    phase = Phase(Path(spec["phase_file"]))
    phase.enter("start")
    outcome: dict[str, Any]
    try:
        isolation.limit_memory(spec.get("memory_limit_bytes"))
        job = importlib.import_module(JOBS[spec["kind"]])
        outcome = {"status": "ok", "result": job.run(spec, phase)}
        json.dumps(outcome, allow_nan=False)  # a result that is no plain JSON is an error of the job like any other
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        where = {"phase": phase.name, "case": phase.case}
        what = {"type": type(error).__name__, "message": str(error)[:4000] or type(error).__name__}
        outcome = {"status": classify(error), "error": {**where, **what}}
    finally:
        sys.stdout.flush()
    write_json(Path(spec["outcome_file"]), outcome)
    return 0
