"""Joules by a formula, for those who ask for it: stated full-load watts times the busy share of the device."""

from __future__ import annotations

import os
import time
from typing import Any

from bench.meters.energy.backend import Backend, Clock, Scope, Unavailable
from bench.reading import Provenance


class Estimate:
    """A backend that measures time and multiplies.

    On a CPU the time is that of all threads of the process, and the watts are divided by the cores; on a GPU it is the
    window's time, as if the device were fully busy: an upper bound.

    Args:
        watts: full-load power of the whole device, stated by the user.
        cores: cores that the watts are for; None on a GPU.
        clock: seconds to multiply with.
    """

    name = "estimate"
    provenance: Provenance = "estimated"
    sampled = False
    has_idle = False

    def __init__(self, watts: float, cores: int | None, clock: Clock | None = None):
        self.scope: Scope = "cpu_package" if cores else "gpu_board"
        self.watts, self.cores = watts, cores
        self.check: Backend | None = None
        self._clock = clock or (time.process_time if cores else time.monotonic)
        self.method_note = (
            f"estimate: {watts:g} W stated for {cores} cores x processor time / cores"
            if cores
            else f"estimate: {watts:g} W stated x time, as if fully busy"
        )

    def start(self) -> None:
        """Do nothing: there is no sensor to start."""

    def stop(self) -> None:
        """Do nothing: there is no sensor to stop."""

    def mark(self) -> float:
        """Seconds."""
        return self._clock()

    def joules(self, begin: float, end: float) -> float:
        """Stated watts times seconds, per core on a CPU."""
        return self.watts * (end - begin) / (self.cores or 1)

    def poll(self) -> None:
        """Do nothing: seconds do not wrap around."""

    def raw(self) -> float | None:
        """There is no sensor."""
        return None

    def conditions(self) -> dict[str, Any]:
        """The formula's constants."""
        return {"stated_watts": self.watts, "cores": self.cores}

    def shared_with(self) -> str | None:
        """Only our own time counts."""
        return None


def find(device: str, watts: float | None = None) -> Estimate | Unavailable:
    """An estimate with the watts given; none are made up."""
    if watts is None or watts <= 0:
        return Unavailable(
            "an estimate needs the device's full-load watts",
            "set protocol.energy.backend=estimate and protocol.energy.watts, from the maker's data sheet",
        )
    return Estimate(watts, None if device.startswith("cuda") else os.cpu_count() or 1)
