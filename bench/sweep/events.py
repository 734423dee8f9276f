"""What a sweep tells while it runs: five events; the progress bar and the mirror are among those that listen."""

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


@dataclass(frozen=True)
class GroupFinished:
    """Everything of a group is on disk and none of its processes runs any more.

    `cases` were measured, of which `failed` did not end well, in `seconds`; `left` groups follow, estimated at
    `seconds_left` before anything was measured, and what is done at `seconds_done`.
    """

    label: str
    cases: int
    failed: int
    seconds: float
    done: int
    left: int
    seconds_done: float
    seconds_left: float


Event = Started | Working | Advanced | Recorded | GroupFinished
#: Called with every event, in the driver's thread; it must not raise.
Listener = Callable[[Event], None]
