"""Sampled power made into joules: a thread reads the watts, the trapezoid between samples is the energy."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench.meters.energy.backend import Backend, Clock, EnergyError, Scope
from bench.reading import Provenance

#: A hole in the samples of this many periods loses a window.
_HOLE = 20


class PowerBackend:
    """A backend over a power sensor.

    Args:
        name: of the backend.
        scope: what the sensor covers.
        watts: reads the sensor.
        period_s: time between samples.
        clock: seconds.
        threaded: sample in a thread of its own; without, `sample` is called from outside.
        method_note: how the sensor comes to its number.
    """

    sampled = True
    has_idle = True
    provenance: Provenance = "measured"

    def __init__(
        self,
        name: str,
        scope: Scope,
        watts: Callable[[], float],
        *,
        period_s: float = 0.02,
        clock: Clock = time.monotonic,
        threaded: bool = True,
        method_note: str = "",
    ):
        self.name, self.scope, self.method_note = name, scope, method_note
        self.check: Backend | None = None
        self._watts, self._period, self._clock, self._threaded = watts, period_s, clock, threaded
        self._times: list[float] = []
        self._values: list[float] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin sampling."""
        self._stop.clear()
        self.sample()
        if self._threaded and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name=f"energy-{self.name}")
            self._thread.start()

    def stop(self) -> None:
        """End sampling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            try:
                self.sample()
            except Exception:  # a failed reading leaves a hole, which `joules` refuses
                continue

    def sample(self) -> None:
        """Read the sensor once."""
        value = float(self._watts())
        with self._lock:
            self._times.append(self._clock())
            self._values.append(value)

    def mark(self) -> float:
        """The time, with a sample taken at it."""
        self.sample()
        return self._times[-1]

    def samples(self, begin: float, end: float) -> list[tuple[float, float]]:
        """Times and watts from one mark to another."""
        with self._lock:
            first, last = bisect.bisect_left(self._times, begin), bisect.bisect_right(self._times, end)
            return list(zip(self._times[first:last], self._values[first:last], strict=True))

    def recent_watts(self) -> list[float]:
        """The second half of all samples: the load, not the idling before it."""
        with self._lock:
            return self._values[len(self._values) // 2 :]

    def joules(self, begin: float, end: float) -> float:
        """The trapezoid over the samples between two marks."""
        taken = self.samples(begin, end)
        pairs = list(pairwise(taken))
        longest = max((b[0] - a[0] for a, b in pairs), default=float("inf"))
        if longest > _HOLE * self._period and longest > (end - begin) / 50:
            raise EnergyError(f"the power sensor was silent for {longest:.3g} s within a window of {end - begin:.3g} s")
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)

    def poll(self) -> None:
        """The thread looks."""

    def raw(self) -> float | None:
        """The present watts."""
        return float(self._watts())

    def conditions(self) -> dict[str, Any]:
        """How often it is sampled."""
        return {"sample_period_s": self._period}

    def shared_with(self) -> str | None:
        """A sensor cannot tell."""
        return None
