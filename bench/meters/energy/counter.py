"""Cumulative energy counters: wrap-around, resets, and how often they are refreshed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench.meters.energy.backend import Backend, Clock, CounterReset, DeadCounter, Scope, Sleep
from bench.reading import Provenance

#: No single domain draws more: a larger step back is a reset, not a wrap-around.
PLAUSIBLE_W = 20_000.0
_PERIOD_TICKS = 12
_PERIOD_TIMEOUT_S = 5.0
_POLL_S = 0.0005


class Counter:
    """One cumulative counter made endless.

    Args:
        read: the raw count.
        unit_j: joules per count.
        span: counts after which it starts again at zero; None if it never does.
        clock: seconds, to tell a wrap-around from a reset.
    """

    def __init__(
        self, read: Callable[[], float], unit_j: float, span: float | None = None, clock: Clock = time.monotonic
    ):
        self.read, self.unit_j, self.span, self._clock = read, unit_j, span, clock
        self._total = 0.0
        self._last: float | None = None
        self._at = 0.0

    def total_j(self) -> float:
        """Joules since the first reading.

        Raises:
            CounterReset: the count fell, and no wrap-around explains it.
        """
        now, raw = self._clock(), float(self.read())
        if self._last is not None:
            self._total += self._step(raw - self._last, now - self._at)
        self._last, self._at = raw, now
        return self._total

    def _step(self, counts: float, seconds: float) -> float:
        if counts >= 0:
            return counts * self.unit_j
        if self.span is not None:
            wrapped = (counts + self.span) * self.unit_j
            if 0 <= wrapped <= PLAUSIBLE_W * max(seconds, 0.1):
                return wrapped
        self._last = None
        raise CounterReset("the energy counter was reset (driver reloaded, machine suspended, or counter cleared)")


class CounterBackend:
    """A backend over counters that do not overlap; their sum is the energy of the scope."""

    sampled = False
    has_idle = True
    provenance: Provenance = "measured"

    def __init__(self, name: str, scope: Scope, counters: dict[str, Counter], method_note: str = ""):
        self.name, self.scope, self.method_note = name, scope, method_note
        self.counters = counters
        self.check: Backend | None = None

    def start(self) -> None:
        """Take the first readings."""
        self.poll()

    def stop(self) -> None:
        """Do nothing: no thread runs beside the counters."""

    def mark(self) -> dict[str, float]:
        """Joules so far by domain."""
        return {domain: counter.total_j() for domain, counter in self.counters.items()}

    def joules(self, begin: dict[str, float], end: dict[str, float]) -> float:
        """The domains' sum between two marks."""
        return sum(end[domain] - begin[domain] for domain in end)

    def poll(self) -> None:
        """Read every counter once."""
        self.mark()

    def raw(self) -> float | None:
        """The first domain's raw count."""
        return float(next(iter(self.counters.values())).read())

    def conditions(self) -> dict[str, Any]:
        """The domains."""
        return {"domains": list(self.counters)}

    def shared_with(self) -> str | None:
        """A counter cannot tell."""
        return None


def find_period(raw: Callable[[], float | None], clock: Clock, sleep: Sleep) -> float:
    """Median seconds between two changes of a raw number, watched for a dozen changes or five seconds.

    Raises:
        DeadCounter: fewer than three changes were seen.
    """
    start, last = clock(), raw()
    changes: list[float] = []
    while len(changes) < _PERIOD_TICKS and clock() - start < _PERIOD_TIMEOUT_S:
        sleep(_POLL_S)
        now = raw()
        if now != last:
            changes.append(clock())
            last = now
    if len(changes) < 3:
        raise DeadCounter(
            f"the energy counter moved {len(changes)} times in {clock() - start:.1f} s: it is dead or its driver "
            "stands still"
        )
    return statistics.median(b - a for a, b in pairwise(changes))
