"""The same cases over sessions, commits and days: one course each, where its level changed, and since when it is worse.

A course joins the records of one case on one machine under one protocol, whatever code stood behind them. Speed-ups are
ratios of one session and travel; a baseline's time is taken in units of the reference GEMM of the same process, because
milliseconds of two days are not comparable; counts are exact. Everything is turned so that above 1 is better.

Levels are found by PELT with the weighted squared distance of logarithms, where a session weighs as its own error and
the scatter between sessions allow, and count as changed only where the two levels differ beyond the margin after
Holm's correction over all changes of all courses.

Source: R. Killick, P. Fearnhead, I. A. Eckley, JASA 107, 2012 (PELT), by ruptures (C. Truong et al. 2020). The penalty
is 3 log n, as N. R. Zhang and D. O. Siegmund, Biometrics 63, 2007, have it for a change of mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from bench.analysis.matching import identity, label
from bench.analysis.timings import per_gemm, speedups
from bench.config.protocol import protocol_key
from bench.errors import UsageError, did_you_mean
from bench.metrics import METRICS
from bench.statistics import (
    MARGIN,
    Interval,
    Verdict,
    difference_p,
    holm,
    log_mean_interval,
    ratio_of_summaries,
    verdict,
)
from bench.store.record_parts import reading_of
from bench.store.records import Record

#: Sessions below which a course has no level that could change.
FEWEST = 3
#: Successive differences below which the scatter between sessions cannot be told.
FEWEST_DIFFERENCES = 3
#: The median of a squared standard normal: a robust scale of squared differences.
_MEDIAN_CHI2 = 0.4549364
FOLLOWED = ("speedup", "latency_ms", "macs")
NEEDS_LIBRARY = "changes of level need ruptures: pip install 'waterline-bench[history]'"


@dataclass(frozen=True)
class Session:
    """One record of a course: when, of which commit, and the value with its interval (in the course's unit).

    `environment` is the record's, to tell what else changed beside the commit.
    """

    started_at: str
    commit: str
    value: Interval
    page_key: tuple[str, str]
    environment: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The day, and the commit where it is known."""
        return " ".join(filter(None, [self.started_at[:10], self.commit[:8]]))


#: The verdict of a change that is not yet set beside the others.
UNJUDGED = Verdict("AMBIGUOUS", "")


@dataclass(frozen=True)
class Change:
    """A change of level at `sessions[at]`: the new level over the old one, above 1 where it is better.

    `before` and `after` are the levels in the course's own unit.
    """

    at: int
    ratio: Interval
    before: float
    after: float
    p: float | None
    verdict: Verdict = UNJUDGED


@dataclass(frozen=True)
class Course:
    """One quantity of one case on one machine over its sessions, oldest first."""

    label: str
    suite: str
    metric: str
    unit: str
    machine_key: str
    sessions: tuple[Session, ...]
    changes: tuple[Change, ...] = ()

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is the better one."""
        return METRICS[self.metric].better == "lower"

    @property
    def can_change(self) -> bool:
        """Whether its sessions are enough to tell a change of level from their scatter.

        Where no session has an error of its own (one process each), the scatter between sessions is all there is.
        """
        has_errors = any(session.value.se is not None for session in self.sessions)
        return len(self.sessions) >= FEWEST and (has_errors or len(self.sessions) > FEWEST_DIFFERENCES)


@dataclass(frozen=True)
class Regression:
    """A course that is worse for certain since a session, and whether it still is."""

    course: Course
    change: Change
    mended: bool

    @property
    def since(self) -> Session:
        """The first session of the worse level."""
        return self.course.sessions[self.change.at]


@dataclass(frozen=True)
class History:
    """All courses with at least two sessions, and why changes may be missing."""

    courses: tuple[Course, ...]
    note: str = ""

    def regressions(self) -> list[Regression]:
        """What is worse for certain: what is not mended first, then the newest first."""
        found = [
            Regression(course, change, _mended(course, change))
            for course in self.courses
            for change in course.changes
            if change.verdict.kind == "SLOWER"
        ]
        return sorted(sorted(found, key=lambda one: one.since.started_at, reverse=True), key=lambda one: one.mended)


def follow(records: Iterable[Record], *, margin: float = MARGIN) -> History:
    """The courses of undisturbed records; of two of one session (a copy in another folder) one counts.

    Args:
        records: of any folders, machines and commits.
        margin: the smallest relative change that counts.
    """
    kept = [record for record in records if record["status"] == "ok"]
    weights_matter = _several_weights(kept)
    members: dict[tuple[str, str, str | None], list[Record]] = {}
    for record in kept:
        key = (identity(record, weights_matter), str(record["machine_key"]), protocol_key(record))
        members.setdefault(key, []).append(record)
    several = [_once(own) for own in members.values() if len(own) > 1]
    courses = [course for own in several for metric in FOLLOWED if (course := _course(own, metric)) is not None]
    try:
        found = [replace(course, changes=_changes(course, margin)) for course in courses]
    except ImportError:
        return History(tuple(courses), NEEDS_LIBRARY)
    return History(tuple(_judged(found, margin)))


def from_on(records: Sequence[Record], since: str) -> list[Record]:
    """The records of a day and later, or of a commit's first session and later: a level that was accepted is left out.

    Args:
        records: of any folders.
        since: a day or moment as records write it (`2026-11-30`), or at least four signs of a commit.

    Raises:
        UsageError: it is neither, or no record is of that commit.
    """
    if not re.match(r"\d{4}-\d{2}-\d{2}", since):
        own = [str(r["started_at"]) for r in records if _commit(r).startswith(since)] if len(since) > 3 else []
        if not own:
            known = list(dict.fromkeys(_commit(record)[:12] for record in records if _commit(record)))
            raise UsageError(
                f"since={since} is no day (2026-11-30) and no record is of such a commit; {did_you_mean(since, known)}"
            )
        since = min(own)
    return [record for record in records if str(record["started_at"])[: len(since)] >= since]


def _commit(record: Record) -> str:
    return str((record.get("code") or {}).get("commit") or "")


def _several_weights(records: Iterable[Record]) -> bool:
    """Whether one commit measured two cases that differ in nothing but their weights: then weights part courses."""
    seen: dict[tuple[str, str], set[str]] = {}
    for record in records:
        seen.setdefault((identity(record), _commit(record)), set()).add(str(record["case"].get("checkpoint")))
    return any(len(weights) > 1 for weights in seen.values())


def _once(records: Sequence[Record]) -> list[Record]:
    """The records by when they were started, each session once."""
    found = {record["content_hash"]: record for record in records}
    by_session = {
        ((record.get("timing") or {}).get("session") or record["content_hash"], record["started_at"]): record
        for record in found.values()
    }
    return sorted(by_session.values(), key=lambda record: str(record["started_at"]))


def _course(records: Sequence[Record], metric: str) -> Course | None:
    """The course of one quantity; None where fewer than two sessions have it, or a count never changed."""
    sessions = [(record, value) for record in records if (value := _value(record, metric)) is not None]
    if len(sessions) < 2:
        return None
    if metric == "macs" and len({value.value for _, value in sessions}) == 1:
        return None
    last = records[-1]
    return Course(
        label=label(last),
        suite=str(last["case"].get("suite") or ""),
        metric=metric,
        unit="reference GEMMs" if metric == "latency_ms" else METRICS[metric].unit,
        machine_key=str(last["machine_key"]),
        sessions=tuple(
            Session(
                str(record["started_at"]),
                _commit(record),
                value,
                (str(record["case_key"]), str(record["machine_key"])),
                record.get("environment") or {},
            )
            for record, value in sessions
        ),
    )


def _value(record: Record, metric: str) -> Interval | None:
    """The value of a session with the interval that its processes give; None where it has none."""
    if metric == "speedup":
        values = list(speedups(record).values())
        return log_mean_interval(values) if values else None
    if metric == "latency_ms":
        own = record["case_key"] == record["baseline_key"]
        values = per_gemm(record, metric) if own else []
        return log_mean_interval(values) if values else None
    found = reading_of(record, metric)
    if found is None or not found["value"]:
        return None
    return Interval(float(found["value"]), None, None, 1, method="counted", se=0.0, df=1.0)


def _changes(course: Course, margin: float) -> tuple[Change, ...]:
    """Where the level of a course changed, not yet judged among the others.

    Raises:
        ImportError: the library that finds them is not installed.
    """
    if not course.can_change:
        return ()
    sign = -1.0 if course.lower_is_better else 1.0
    values = np.array([sign * math.log(session.value.value) for session in course.sessions])
    variances = _variances(values, course.sessions)
    bounds = [0, *breaks(values, variances), len(values)]
    levels = [_level(values[a:b], variances[a:b]) for a, b in pairwise(bounds)]
    return tuple(
        Change(at, ratio, before.value**sign, after.value**sign, difference_p(ratio, margin))
        for at, before, after in zip(bounds[1:], levels, levels[1:], strict=False)
        for ratio in [ratio_of_summaries(after, before)]
    )


def _variances(values: np.ndarray, sessions: Sequence[Session]) -> np.ndarray:
    """The variance of each session's log: its own error, and what sessions scatter beyond their errors.

    The scatter is taken from squared differences of neighbours by their median, so that a few changes of level do not
    count into it. A session without an error of its own gets the largest of the others.
    """
    known = [session.value.se for session in sessions if session.value.se is not None]
    widest = max(known, default=0.0)
    own = np.array([(widest if s.value.se is None else s.value.se) ** 2 for s in sessions])
    differences = np.diff(values)
    scatter = 0.0
    if len(differences) >= FEWEST_DIFFERENCES:
        scatter = max(0.0, median(differences**2) / (2 * _MEDIAN_CHI2) - float(own.mean()))
    return own + scatter + 1e-12  # a count has no error at all, and any change of it is one


def breaks(values: np.ndarray, variances: np.ndarray) -> list[int]:
    """The places at which a new level begins: PELT with the squared distance in units of the variances.

    Args:
        values: one per session, in order.
        variances: of each value.

    Raises:
        ImportError: ruptures is not installed.
    """
    import ruptures
    from ruptures.base import BaseCost

    class Weighted(BaseCost):
        """Squared distance from the weighted mean, by sums that are made once."""

        model, min_size = "weighted", 1

        def fit(self, signal: np.ndarray) -> Weighted:
            self.signal = signal
            weights = 1.0 / variances
            self.sums = [
                np.concatenate([[0.0], np.cumsum(part)]) for part in (weights, weights * values, weights * values**2)
            ]
            return self

        def error(self, start: int, end: int) -> float:
            weight, first, second = (float(part[end] - part[start]) for part in self.sums)
            return max(0.0, second - first**2 / weight)

    search = ruptures.Pelt(custom_cost=Weighted(), min_size=1, jump=1).fit(values.reshape(-1, 1))
    return [int(end) for end in search.predict(pen=3 * math.log(len(values)))][:-1]


def _level(values: np.ndarray, variances: np.ndarray) -> Interval:
    """The weighted mean of a stretch of logs, as an interval with its standard error."""
    weights = 1.0 / variances
    centre, se = float((weights * values).sum() / weights.sum()), float(1.0 / math.sqrt(weights.sum()))
    return Interval(math.exp(centre), None, None, len(values), se=se, df=max(1.0, len(values) - 1.0))


def _judged(courses: Sequence[Course], margin: float) -> list[Course]:
    """The courses with the verdicts of their changes, corrected for how many there are; others are left out."""
    adjusted = iter(holm([change.p for course in courses for change in course.changes]))
    made = []
    for course in courses:
        changes = [
            replace(change, verdict=verdict(change.ratio, margin=margin, p_adjusted=next(adjusted)))
            for change in course.changes
        ]
        made.append(replace(course, changes=tuple(one for one in changes if one.verdict.kind in ("FASTER", "SLOWER"))))
    return made


def _mended(course: Course, change: Change) -> bool:
    """Whether later changes together made good for this one."""
    later = [other.ratio.value for other in course.changes if other.at > change.at]
    return math.prod(later) * change.ratio.value >= 1.0 / (1.0 + MARGIN)
