"""A worker's life: read the spec, run the job, write a typed outcome."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import sys
import time
import traceback
from json import dumps  # taken before the user's code could put another in its place
from pathlib import Path
from typing import Any

from bench.errors import UsageError, in_user_code
from bench.store.records import write_json
from bench.worker import isolation

#: Kind of job -> module whose `run(spec, phase)` does it and returns plain JSON types.
JOBS = {
    "probe": "bench.worker.probe",
    "count": "bench.worker.count",
    "invocation": "bench.worker.invocation",
    "prepare": "bench.worker.prepare",
    "calibrate": "bench.worker.calibrate",
    "estimate": "bench.worker.estimate",
    "rehearse": "bench.worker.rehearse",
}

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
#: What CUDA and its libraries say when the device's memory is full; torch's allocator raises a class of its own.
_DEVICE_OUT_OF_MEMORY = ("cuda out of memory", "cuda error: out of memory", "_status_alloc_failed", "hip out of memory")
#: Type of the error of a row whose device ran out of memory; the host's has the name of what Python or the kernel said.
DEVICE_OUT_OF_MEMORY = "DeviceOutOfMemory"


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
        self._path.write_text(dumps({"phase": name, "case": case, "at": time.time()}), encoding="utf-8")
        self._last = time.monotonic()

    def turn_to(self, case: str | None) -> None:
        """Note whose turn it is, so that an exception names it; in this process only, at no cost to a timing loop."""
        self.case = case

    def heartbeat(self) -> None:
        """Write that the phase is still running; at most once a second, so that it costs nothing in a timing loop."""
        if time.monotonic() - self._last > 1.0:
            self.enter(self.name, self.case)


def is_device_memory(error: BaseException) -> bool:
    """Whether it was the device's memory that ran out, not the host's."""
    text = words_of(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and any(sign in text for sign in _DEVICE_OUT_OF_MEMORY)
    )


def describe(error: BaseException) -> dict[str, str]:
    """Type and message of an error as its row tells them; the device's memory has a type of its own."""
    message = words_of(error)[:4000] or type(error).__name__
    message = "; ".join([message, *getattr(error, "__notes__", [])])
    where = None if isinstance(error, UsageError) else in_user_code(error)
    message += f"\n{where}" if where else ""
    if is_device_memory(error):
        return {"type": DEVICE_OUT_OF_MEMORY, "message": f"the device's memory ran out: {message}"}
    return {"type": type(error).__name__[:200], "message": message}


def words_of(error: BaseException) -> str:
    """What an error says; of one that fails to say anything, how it fails."""
    try:
        return str(error)
    except BaseException as broken:
        return f"(the message of this {type(error).__name__} cannot be made: {type(broken).__name__})"


def classify(error: BaseException) -> str:
    """The status that an exception gives a row."""
    text = words_of(error).lower()
    if isinstance(error, MemoryError) or is_device_memory(error):
        return "oom"
    if isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY):
        return "oom"
    if isinstance(error, NotImplementedError):
        return "unsupported"
    if isinstance(error, InvalidOutput | UsageError | ValueError):
        return "invalid"
    return "crashed"


def _print_trace(error: BaseException) -> None:
    """The traceback into the log; an error whose message cannot be made has none of its own."""
    try:
        traceback.print_exception(error)
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_tb(error.__traceback__)


def run(spec_path: Path) -> int:
    """Do the job of a spec file and write its outcome; 0 also when the job failed, because that is told in the file."""
    faulthandler.enable()
    spec: dict[str, Any] = json.loads(spec_path.read_text(encoding="utf-8"))
    phase = Phase(Path(spec["phase_file"]))
    phase.enter("start")
    outcome: dict[str, Any]
    try:
        isolation.limit_memory(spec.get("memory_limit_bytes"))
        job = importlib.import_module(JOBS[spec["kind"]])
        outcome = {"status": "ok", "result": job.run(spec, phase)}
        dumps(outcome, allow_nan=False)  # a result that is no plain JSON is an error of the job like any other
    except BaseException as error:  # also KeyboardInterrupt: the user's own reaches the driver, never a worker
        _print_trace(error)
        where = {"phase": phase.name, "case": phase.case}
        outcome = {"status": classify(error), "error": {**where, **describe(error)}}
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    write_json(Path(spec["outcome_file"]), outcome)
    return 0
