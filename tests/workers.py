"""The local executor for tests of whole sweeps: one server for all of a process, and no measurement of the machine.

A server imports torch, a second or two of every sweep; what it forks for a job is as fresh in the next sweep as in
this one. Measuring what a machine could do takes half a minute and has tests of its own (sweep/test_calibration.py).
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from typing import Any, ClassVar

from bench.config.paths import import_roots
from bench.worker.client import Done, Workers
from tests.synthetic import PEAKS

#: What a process that calibrates gives, of a machine that never drifts.
CALIBRATION: dict[str, Any] = {
    **PEAKS,
    "launch_overhead_us": {"unit": "us", "value": 2.0, "low": 1.9, "high": 2.1, "n": 5, "threads": 1},
    "idle_power": {"unit": "W", "value": None, "reason": "nobody asked in a test"},
    "unsupported": {},
    "stable": True,
    "notes": [],
    "host": {"labels": []},
}


class Uncalibrated(Workers):
    """Workers that tell a machine's calibration without a process."""

    def run(self, kind: str, spec: dict[str, Any], **rest: Any) -> Any:
        """As the workers do, but for a calibration."""
        if kind == "calibrate":
            return Done({"drift": None} if spec.get("earlier") else CALIBRATION, 0.0)
        return super().run(kind, spec, **rest)


class Sharing(Uncalibrated):
    """Workers that take over the server of those before them, where its surroundings are theirs."""

    _spare: ClassVar[tuple[Any, subprocess.Popen[bytes], dict[str, Any]] | None] = None

    def close(self) -> None:
        """Leave a server that is well to the next."""
        Sharing.end()
        server, self._server = self._server, None
        if server is not None:
            Sharing._spare = (self._surroundings, server, self.ready)
        self._scratch.remove()

    def _start_server(self) -> None:
        self._surroundings = surroundings()
        found, Sharing._spare = Sharing._spare, None
        if found is not None and found[0] == self._surroundings and found[1].poll() is None:
            _, self._server, self.ready = found
            self._buffer = b""
            return
        Sharing._spare = found
        Sharing.end()
        super()._start_server()

    @staticmethod
    def end() -> None:
        """End the server that nobody uses."""
        found, Sharing._spare = Sharing._spare, None
        if found is not None:
            last = Workers({})
            last._server = found[1]
            last.close()


def surroundings() -> tuple[Any, ...]:
    """What a server takes over from its driver when it starts."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return (tuple(sorted(variables.items())), tuple(import_roots()), os.getpid())


def open_executor(timeouts_s: dict[str, float]) -> Uncalibrated:
    """The workers of this machine; a driver that a test starts keeps nothing for a sweep that does not come."""
    return Sharing(timeouts_s) if "pytest" in sys.modules else Uncalibrated(timeouts_s)


atexit.register(Sharing.end)
