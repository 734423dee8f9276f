"""Joules from a wall meter's log: a CSV, growing while we measure, of times with watts or cumulative joules."""

from __future__ import annotations

import csv
import io
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.foreign_files import read_regular
from bench.meters.energy.backend import Backend, Clock, EnergyError, Scope, Sleep, Unavailable
from bench.reading import Provenance

#: Names a column may have; the first row holds the names.
TIMES = ("time", "timestamp", "unix_s", "time_s")
WATTS = ("power_w", "watts", "w", "power")
JOULES = ("energy_j", "joules", "j", "energy")
#: Bytes of a log: a row every hundredth of a second for a day.
MOST_BYTES = 256 * 2**20
_PATIENCE_S = 30.0
_HOLE_SHARE = 0.15


class ExternalBackend:
    """A backend over a log on disk; marks are wall-clock times, so the meter's clock has to be ours."""

    name = "external"
    scope: Scope = "wall"
    provenance: Provenance = "measured"
    sampled = True
    has_idle = True

    def __init__(self, path: Path, *, clock: Clock = time.time, sleep: Sleep = time.sleep):
        self.path, self._clock, self._sleep = path, clock, sleep
        self.method_note = f"external meter, log {path.name}"
        self.check: Backend | None = None

    def start(self) -> None:
        """The meter runs by itself."""

    def stop(self) -> None:
        """The meter runs on."""

    def mark(self) -> float:
        """The wall clock."""
        return self._clock()

    def joules(self, begin: float, end: float) -> float:
        """Energy by the log, waiting up to half a minute for its rows to reach the end of the window.

        Raises:
            EnergyError: the log does not cover the window, or has a hole of more than a seventh of it.
        """
        deadline = self._clock() + _PATIENCE_S
        times, cumulative = read_log(self.path)
        while (not len(times) or times[-1] < end) and self._clock() < deadline:
            self._sleep(0.5)
            times, cumulative = read_log(self.path)
        if not len(times) or times[0] > begin or times[-1] < end:
            raise EnergyError(f"{self.path.name} does not cover the window; is the meter logging, and its clock right?")
        inside = times[(times >= begin) & (times <= end)]
        longest = float(np.max(np.diff(np.concatenate([[begin], inside, [end]]))))
        if longest > _HOLE_SHARE * (end - begin):
            raise EnergyError(f"{self.path.name} has no row for {longest:.3g} s of a window of {end - begin:.3g} s")
        return float(np.interp(end, times, cumulative) - np.interp(begin, times, cumulative))

    def poll(self) -> None:
        """Do nothing: the log is cumulative and does not wrap around."""

    def raw(self) -> float | None:
        """The log is not watched while measuring."""
        return None

    def conditions(self) -> dict[str, Any]:
        """The log's name."""
        return {"log": self.path.name}

    def shared_with(self) -> str | None:
        """The wall holds everything that is plugged in; the scope says so."""
        return None


def read_log(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times in unix seconds, ascending, and cumulative joules; a torn last row is left out.

    Raises:
        EnergyError: the file or one of the two columns is missing, or a number is none.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise EnergyError(f"the meter's log cannot be read: {error}") from error
    if not rows:
        return np.array([]), np.array([])
    names = {name.strip().lower(): name for name in rows[0] if name}
    when = next((names[n] for n in TIMES if n in names), None)
    joules, watts = (next((names[n] for n in group if n in names), None) for group in (JOULES, WATTS))
    value = joules or watts
    if when is None or value is None:
        raise EnergyError(f"{path.name} needs a column {' or '.join(TIMES[:2])} and one {WATTS[0]} or {JOULES[0]}")
    complete = [row for row in rows[:-1] if row] + ([rows[-1]] if rows[-1].get(when) and rows[-1].get(value) else [])
    try:
        times = np.array([seconds_of(row[when]) for row in complete])
        values = np.array([float(row[value]) for row in complete])
    except (TypeError, ValueError) as error:
        raise EnergyError(f"{path.name} holds something that is no number: {error}") from error
    if np.any(np.diff(times) < 0):
        raise EnergyError(f"{path.name} goes back in time; its rows have to be in order")
    if joules:
        if np.any(np.diff(values) < 0):
            raise EnergyError(f"{path.name}: the cumulative energy falls; the meter was reset")
        return times, values
    steps = np.diff(times) * (values[1:] + values[:-1]) / 2
    return times, np.concatenate([[0.0], np.cumsum(steps)])


def seconds_of(text: str) -> float:
    """Seconds since the epoch of a time in a log: a number, or a date and time in ISO 8601."""
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def find(path: str | Path | None = None) -> ExternalBackend | Unavailable:
    """The meter whose log is at `path`."""
    if path is None:
        return Unavailable("no wall meter's log was named", "set protocol.energy.csv to the file that the meter writes")
    try:
        read_log(Path(path))
    except EnergyError as error:
        return Unavailable(str(error), "columns: time (unix seconds or ISO 8601) and power_w or energy_j")
    return ExternalBackend(Path(path))
