"""The driver of a pool: keeps every machine busy with one group at a time, keeps what comes back, and tries again
elsewhere what a lost machine left."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.config.schema import Config
from bench.errors import UsageError
from bench.plan.case import Case
from bench.plan.plan import Group
from bench.store.journal import Journal
from bench.sweep.attempts import CircuitBroken
from bench.sweep.events import Advanced, Event, GroupFinished, Working
from bench.sweep.pool import Arrived, Ended, Pool
from bench.sweep.pool.arrivals import Arrivals
from bench.sweep.pool.work import work_for

#: Seconds without any machine after which the sweep gives up.
NOBODY_S = 120.0


@dataclass
class _Piece:
    """Cases that are measured together on one machine, and what became of them so far."""

    label: str
    cases: tuple[Case, ...]
    seconds: float
    began: float = 0.0
    lost: int = 0
    failed: int = 0
    done: set[str] = field(default_factory=set)

    @property
    def left(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.key not in self.done)


class PoolDriver:
    """Measures groups on the machines of a pool.

    Args:
        config: says how often a group goes to another machine, and how many losses in a row end the sweep.
        pool: the machines.
        arrivals: keeps what they send.
        journal: told where and when every piece was measured, and of every loss.
        announce: told of every step.
        problems: gets a line for each piece that could not be measured.
    """

    def __init__(
        self,
        config: Config,
        pool: Pool,
        arrivals: Arrivals,
        journal: Journal,
        announce: Callable[[Event], None],
        problems: list[str],
        nobody_s: float = NOBODY_S,
    ):
        self._config, self._pool, self._arrivals, self._journal = config, pool, arrivals, journal
        self._announce, self._problems, self._nobody_s = announce, problems, nobody_s
        self._waiting: deque[_Piece] = deque()
        self._out: dict[str, _Piece] = {}
        self._in_a_row = 0
        self._slots = 0
        self._seconds_left = self._seconds_done = 0.0
        self._groups_done = 0

    def measure(self, groups: Sequence[Group], missing: dict[str, list[Case]], estimates: dict[str, float]) -> None:
        """Have the missing cases of every group measured, the longest groups first.

        Raises:
            UsageError: no machine is there, or the machines differ from the driver in code or libraries.
            CircuitBroken: too many machines were lost in a row.
            ResultsError: the results folder cannot be written.
        """
        pieces = [
            _Piece(group.label, tuple(missing[group.key]), estimates.get(group.key, 0.0))
            for group in sorted(groups, key=lambda group: -estimates.get(group.key, 0.0))
        ]
        self._waiting.extend(pieces)
        self._seconds_left = sum(piece.seconds for piece in pieces)
        since, told = time.monotonic(), False
        while self._waiting or self._out:
            slots = self._slots = self._pool.slots()
            since = time.monotonic() if slots else since
            if not slots and time.monotonic() - since > self._nobody_s:
                raise UsageError(
                    f"no machine of the pool has offered a slot for {self._nobody_s:g} s: {self._pool.offered()}. "
                    "docs/many_machines.md says how machines are added. What was measured is kept"
                )
            if not slots and not told:
                self._announce(Working(f"waiting for a machine: {self._pool.offered()}"))
            told = not slots
            self._send(slots)
            news = self._pool.news()
            if isinstance(news, Arrived):
                self._keep(news)
            elif isinstance(news, Ended):
                self._end(news)

    def recorded(self, key: str, failed: bool) -> None:
        """Note that a case has its record; called as each is kept."""
        for piece in self._out.values():
            if any(case.key == key for case in piece.cases):
                piece.done.add(key)
                piece.failed += failed

    def _send(self, slots: int) -> None:
        most = math.inf if self._pool.ahead is None else slots + self._pool.ahead
        while slots and self._waiting and len(self._out) < most:
            piece = self._waiting.popleft()
            work = work_for(self._config, piece.label, piece.left, piece.seconds, self._arrivals.state(piece.left))
            self._out[work.key] = piece
            piece.began = piece.began or time.monotonic()
            self._pool.submit(work)
            self._announce(Working(f"{len(self._out)} groups on up to {slots} machines, {len(self._waiting)} waiting"))

    def _keep(self, news: Arrived) -> None:
        piece = self._out.get(news.work)
        if piece is not None:
            self._arrivals.keep(news.files, frozenset(case.key for case in piece.cases))

    def _end(self, news: Ended) -> None:
        piece = self._out.pop(news.work, None)
        if piece is None:
            return
        measured = {"node": news.node, "place": news.place, "began": news.began, "ended": news.ended}
        self._journal.append("measured_on", label=piece.label, status=news.status, **measured)
        if news.status == "refused":
            raise UsageError(f"{news.node or 'a machine of the pool'}: {news.message}. What was measured is kept")
        why = news.message or f"{len(piece.left)} of its cases came without a record"
        if piece.left and news.status in ("lost", "done"):
            self._journal.append("machine_lost", label=piece.label, left=len(piece.left), why=why)
            piece.lost += 1
            if piece.lost <= self._config.executor.machine_retries:
                self._waiting.appendleft(piece)
                self._announce(Working(f"a machine was lost ({why}); {piece.label} goes to another one"))
                return
        self._in_a_row = self._in_a_row + 1 if piece.left else 0
        if piece.left:
            self._problems.append(
                f"{piece.label}: {len(piece.left)} of {len(piece.cases)} cases were not measured: {why}; run the same "
                "command again to measure them"
            )
        self._finish(piece, news)
        if self._in_a_row >= self._config.executor.breaker:
            raise CircuitBroken(f"{self._in_a_row} groups in a row were not measured; the last: {why}")

    def _finish(self, piece: _Piece, news: Ended) -> None:
        """Tell that a group is done: its own seconds, and what is left shared out among the machines that are there."""
        self._groups_done += 1
        self._seconds_left -= piece.seconds
        self._seconds_done += piece.seconds
        self._announce(Advanced(piece.seconds))
        left = len(self._waiting) + len(self._out)
        measured = None if news.began is None or news.ended is None else news.ended - news.began
        seconds = time.monotonic() - piece.began if measured is None else measured
        done = GroupFinished(
            piece.label, len(piece.done), piece.failed, seconds, self._groups_done, left, self._seconds_done,
            max(0.0, self._seconds_left) / max(1, min(self._slots, left)),
        )  # fmt: skip
        self._announce(done)
