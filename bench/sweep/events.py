"""What a sweep tells while it runs: four events; the progress bar and the mirror are among those that listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.store.records import Record


@dataclass(frozen=True)
class Started:
    """The sweep begins: cases in all, cases that have a record already, estimated seconds for the rest."""

    cases: int
    present: int
    seconds: float


@dataclass(frozen=True)
class Working:
    """What is being done now, in words."""

    what: str


@dataclass(frozen=True)
class Advanced:
    """Work that was estimated at so many seconds is done."""

    seconds: float


@dataclass(frozen=True)
class Recorded:
    """A record is on disk."""

    record: Record


Event = Started | Working | Advanced | Recorded
#: Called with every event, in the driver's thread; it must not raise.
Listener = Callable[[Event], None]
