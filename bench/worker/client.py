"""The driver's side of the workers: start them, watch them, end them, say what became of each."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil

from bench.config.paths import import_roots
from bench.store.foreign import CorruptRecord, checked, parse
from bench.store.records import write_json
from bench.worker.artefacts import prune
from bench.worker.ending import how_it_ended, read_outcome, read_phase
from bench.worker.results import Message
from bench.worker.scratch import Scratch
from bench.worker.server import END

POLL_S = 0.05
LOG_LIMIT_BYTES = 4 << 20
LOG_TAIL_BYTES = 4000
GRACE_S = 3.0
#: Seconds for the server to tell that a worker is gone, which takes it to end what that left behind.
SILENCE_S = 10.0
#: Seconds for the server to leave by itself.
LEAVE_S = 3.0

#: Errors of a process that was lost without a word; like signals, they may not recur.
LOST = ("ServerLost", "NoResult", "CorruptOutcome")

#: Phases of a worker -> key of the timeout that bounds them; every other phase is bounded by that of measuring.
TIMEOUT_OF = {"start": "start", "quiet": "start", "load": "load", "compile": "compile", "warmup": "warmup"}


@dataclass(frozen=True)
class Done:
    """A worker that came to its end: its result, the seconds that it took, the most memory that it held."""

    result: dict[str, Any]
    seconds: float
    max_resident_bytes: int | None = None
    status: ClassVar[str] = "ok"
    ok: ClassVar[bool] = True


@dataclass(frozen=True)
class Failed:
    """A worker that came to no result: the status and the error that its row will carry.

    `error` has the keys phase, case, type, message, log_tail.
    """

    status: str
    error: dict[str, Any]
    seconds: float
    max_resident_bytes: int | None = None
    ok: ClassVar[bool] = False

    @property
    def message(self) -> str:
        """What went wrong, in words."""
        return str(self.error["message"])

    @property
    def worth_retrying(self) -> bool:
        """Whether the process was lost from outside Python: a signal, a timeout, no result. An exception recurs."""
        if self.status == "timeout":
            return True
        kind = self.error.get("type", "")
        return self.status == "crashed" and (kind.startswith("SIG") or kind in LOST)


#: How a worker ended.
Outcome = Done | Failed


class ServerLost(Exception):
    """The process that forks the workers is gone."""


class Workers:
    """Runs jobs in fresh processes, one at a time; a context manager that leaves no process behind."""

    def __init__(self, timeouts: dict[str, float], *, environment: dict[str, str] | None = None):
        self.timeouts = timeouts
        self.environment = environment or {}
        self.ready: dict[str, Any] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._scratch = Scratch()
        self._count = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and whatever it runs."""
        self._stop_server()
        self._scratch.remove()

    def run(
        self,
        kind: str,
        spec: dict[str, Any],
        *,
        log: Path,
        memory_limit_bytes: int | None = None,
    ) -> Outcome:
        """Run one job to its end, however it ends; never raises for what the job does.

        Args:
            kind: one of `bench.worker.child.JOBS`.
            spec: plain JSON types for the job.
            log: file that gets everything the worker prints.
            memory_limit_bytes: data size above which the worker's allocations fail.
        """
        self._count += 1
        folder = self._scratch.folder / f"{self._count:06d}"
        folder.mkdir(parents=True)
        kept = self._scratch.folder / "artefacts"
        prune(kept)
        files = {
            "phase_file": str(folder / "phase"),
            "outcome_file": str(folder / "outcome.json"),
            "artefacts": str(kept),
        }
        asked = {**spec, "kind": kind}
        write_json(folder / "spec.json", {**asked, **files, "memory_limit_bytes": memory_limit_bytes})
        quiet_wait = _quiet_wait_s(spec)
        start, kills_before = time.monotonic(), _oom_kills()
        try:
            pid = self._fork(folder / "spec.json", log)
            ended, timed_out = self._watch(pid, folder / "phase", log, quiet_wait)
        except ServerLost as error:
            self._stop_server()
            return Failed("crashed", _error("start", "ServerLost", str(error), log), time.monotonic() - start)
        seconds = time.monotonic() - start
        killed = _oom_kills() > kills_before
        return self._outcome(folder, asked, ended, timed_out, seconds, log, killed_by_kernel=killed)

    # -- the server ---------------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        inherited = {**os.environ, **self.environment}
        paths = [*import_roots(), *filter(None, inherited.get("PYTHONPATH", "").split(os.pathsep))]
        inherited["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(Path(__file__).parents[2]), *paths]))
        inherited.setdefault("DO_NOT_TRACK", "true")  # what libraries of a user's model ask before they report home
        inherited.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's would start threads at import; torch has its own
        inherited.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # else asking for CUDA starts it, and forks lose it
        command = [sys.executable, "-m", "bench.worker.server", str(self._scratch.folder)]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=inherited, start_new_session=True
        )
        self._buffer = b""
        self.ready = self._receive(self.timeouts["start"], "ready")["ready"]

    def _stop_server(self) -> None:
        """End the server, which first ends what its workers left; one that was stopped or hangs is killed."""
        server, self._server = self._server, None
        if server is None:
            return
        with contextlib.suppress(OSError, ValueError):  # the server is gone, or its input was closed before
            server.stdin.write(json.dumps(END).encode() + b"\n")  # type: ignore[union-attr]
            server.stdin.close()  # type: ignore[union-attr]
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(LEAVE_S)
        with contextlib.suppress(ProcessLookupError):
            server.kill()  # its workers go with it: see isolation.die_with_parent
        server.wait()
        with contextlib.suppress(OSError):
            server.stdout.close()  # type: ignore[union-attr]

    def _fork(self, spec: Path, log: Path) -> int:
        """The process of a new worker; a server that was gone before it was asked is no matter of the worker's."""
        if self._server is None or self._server.poll() is not None:
            self._stop_server()
            self._start_server()
        try:
            return self._ask(spec, log)
        except ServerLost:
            if not self._has_ended():
                raise
        self._stop_server()
        self._start_server()
        return self._ask(spec, log)

    def _has_ended(self) -> bool:
        """Whether the server is no more, given a moment for the kernel to say so."""
        assert self._server is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.wait(1.0)
        return self._server.poll() is not None

    def _ask(self, spec: Path, log: Path) -> int:
        assert self._server is not None and self._server.stdin is not None
        request = json.dumps({"spec": str(spec), "log": str(Path(log).resolve())}) + "\n"
        try:
            self._server.stdin.write(request.encode())
            self._server.stdin.flush()
        except OSError as error:
            raise ServerLost(f"the worker server does not take requests: {error}") from error
        return int(self._receive(self.timeouts["start"], "pid")["pid"])

    def _receive(self, timeout: float, expected: str) -> dict[str, Any]:
        """The server's next message, which must have the key `expected`."""
        deadline = time.monotonic() + timeout
        while True:
            message = self._poll(max(0.0, deadline - time.monotonic()))
            if message is not None:
                if expected not in message:
                    raise ServerLost(f"the worker server said {message} instead of {expected}")
                return message
            if time.monotonic() >= deadline:
                raise ServerLost(f"the worker server did not answer in {timeout:g} s")

    def _poll(self, timeout: float) -> dict[str, Any] | None:
        """A message if one arrives within the timeout."""
        assert self._server is not None and self._server.stdout is not None
        if b"\n" not in self._buffer:
            with selectors.DefaultSelector() as selector:
                selector.register(self._server.stdout, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
            data = os.read(self._server.stdout.fileno(), 65536)
            if not data:
                raise ServerLost("the worker server has ended")
            self._buffer += data
            if b"\n" not in self._buffer:
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message: dict[str, Any] = checked(Message, parse(line), "the worker server")
        except (ValueError, CorruptRecord) as error:
            raise ServerLost(f"the worker server wrote {line[:80]!r}") from error
        return message

    # -- one worker ---------------------------------------------------------------------------------------------

    def limit_s(self, phase: str, quiet_wait: float) -> float:
        """Seconds that a phase may take; what a worker was told to wait for a quiet host comes on top of its start."""
        return self.timeouts[TIMEOUT_OF.get(phase, "measure")] + (quiet_wait if phase == "quiet" else 0.0)

    def _watch(self, pid: int, phase_file: Path, log: Path, quiet_wait: float) -> tuple[dict[str, Any], str | None]:
        """The server's closing message about the worker, and the phase in which it ran out of time, if it did.

        Raises:
            ServerLost: the worker is no more and the server does not say so, or it cannot be ended.
        """
        phase, since, timed_out, gone = "start", time.monotonic(), None, _Since()
        stamp: tuple[Any, ...] | None = None
        try:
            while True:
                message = self._poll(POLL_S)
                _cut(log)
                if message is not None:
                    if "ended" not in message:
                        raise ServerLost(f"the worker server said {message} instead of how the worker ended")
                    return message, timed_out
                if gone.for_s(_is_gone(pid)) > SILENCE_S:
                    raise ServerLost(f"the worker server has not said in {SILENCE_S:g} s that its worker is gone")
                current = read_phase(phase_file)
                if current is not None and (current["phase"], current["case"]) != stamp:
                    stamp = (current["phase"], current["case"])
                    phase, since = current["phase"], time.monotonic()
                if timed_out is None and time.monotonic() - since > self.limit_s(phase, quiet_wait):
                    timed_out = phase
                    _kill(pid, signal.SIGTERM)
                    since = time.monotonic()
                elif timed_out is not None and time.monotonic() - since > GRACE_S + SILENCE_S:
                    raise ServerLost(f"the worker server has not ended a worker that was killed {SILENCE_S:g} s ago")
                elif timed_out is not None and time.monotonic() - since > GRACE_S:
                    _kill(pid, signal.SIGKILL)
        except BaseException:
            _kill(pid, signal.SIGKILL)
            self._stop_server()
            raise

    def _outcome(
        self,
        folder: Path,
        asked: dict[str, Any],
        ended: dict[str, Any],
        timed_out: str | None,
        seconds: float,
        log: Path,
        *,
        killed_by_kernel: bool,
    ) -> Outcome:
        last = read_phase(folder / "phase") or {}
        phase, case = last.get("phase", "start"), last.get("case")
        resident = ended.get("max_resident_bytes")
        if timed_out is not None:
            limit = self.limit_s(timed_out, _quiet_wait_s(asked))
            error = _error(timed_out, "Timeout", f"the phase {timed_out} took longer than {limit:g} s", log)
            return Failed("timeout", {**error, "case": case}, seconds, resident)
        ending = read_outcome(folder / "outcome.json", asked, phase)
        if ending is None:
            status, what = how_it_ended(ended["ended"], killed_by_kernel)
            return Failed(status, {**_error(phase, *what, log), "case": case}, seconds, resident)
        if ending["status"] == "ok":
            return Done(ending["result"], seconds, resident)
        error = {"case": None, **ending["error"], "log_tail": log_tail(log)}
        return Failed(ending["status"], error, seconds, resident)


class _Since:
    """How long something has been so without a break."""

    def __init__(self) -> None:
        self._start: float | None = None

    def for_s(self, holds: bool) -> float:
        """Seconds that it has held; 0 where it does not hold now."""
        now = time.monotonic()
        self._start = (self._start or now) if holds else None
        return 0.0 if self._start is None else now - self._start


def _is_gone(pid: int) -> bool:
    """Whether a worker has ended, also where nobody has asked how yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _quiet_wait_s(spec: dict[str, Any]) -> float:
    """Seconds that a job may wait for a quiet host; 0 where its spec has no protocol of timing."""
    return float(spec.get("protocol", {}).get("latency", {}).get("quiet_wait_s", 0.0))


def _error(phase: str, kind: str, message: str, log: Path) -> dict[str, Any]:
    return {"phase": phase, "case": None, "type": kind, "message": message, "log_tail": log_tail(log)}


def _kill(pid: int, number: int) -> None:
    for target in (lambda: os.killpg(pid, number), lambda: os.kill(pid, number)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            target()


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def _cut(log: Path) -> None:
    """Keep the end of a log that grows too long."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            tail = log_tail(log)
            os.truncate(log, 0)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"[log cut at {LOG_LIMIT_BYTES} bytes]\n{tail}\n")


def log_tail(log: Path) -> str:
    """The last few thousand bytes of a worker's output."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def memory_limit(share: float) -> int:
    """Bytes that one worker may allocate: a share of what is free now."""
    return int(psutil.virtual_memory().available * share)
