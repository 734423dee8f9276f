"""A gate over a history: what is worse and not mended, since which commit, by how much, and whether that may pass.

The commit that is named is the first that was measured at the worse level. Commits between it and the last good one
were not measured, so the cause is among them; where both are one commit it is not the code, and what else differs in
the environment is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.etree import ElementTree

from bench.analysis.compare import AGREES, NOTHING_COMPARABLE, REGRESSION
from bench.analysis.history import FEWEST, Course, History, Regression
from bench.foreign_text import escape_controls
from bench.host.difference import difference
from bench.metrics import METRICS
from bench.version import __version__

SCHEMA = 1
#: Lines of what else changed between two sessions that are told.
MOST_DIFFERENCES = 8


@dataclass(frozen=True)
class Finding:
    """A quantity of a case on a machine that became worse for certain.

    Attributes:
        before: the level until then, and `after`, the level since, in `unit`.
        change_percent: of the quantity itself (a speed-up falls, a time grows), with the ends of its 95 % interval.
        commit: the first that was measured at the worse level, on `started_at`; empty where the record knows none.
        last_good_commit: the one measured before it, on `last_good_at`.
        same_commit: both are the same commit, so that it is not the code.
        mended: later changes made good for it.
        surroundings: what else differs between the two sessions: name, before, after.
    """

    case: str
    suite: str
    metric: str
    unit: str
    machine_key: str
    before: float
    after: float
    change_percent: float
    low_percent: float | None
    high_percent: float | None
    commit: str
    started_at: str
    last_good_commit: str
    last_good_at: str
    same_commit: bool
    mended: bool
    sessions: int
    surroundings: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Gate:
    """The findings, what is worse first; how many quantities have a level that can change; and the exit code.

    `reason` says why nothing could be judged where `exit_code` is 5, which is no pass.
    """

    findings: tuple[Finding, ...]
    judged: int
    short: int
    exit_code: int
    reason: str = ""

    @property
    def failing(self) -> tuple[Finding, ...]:
        """What is worse now."""
        return tuple(one for one in self.findings if not one.mended)


def judge(history: History) -> Gate:
    """The gate over a history: 1 where something is worse and not mended, 5 where nothing could be judged, else 0."""
    findings = tuple(_finding(one) for one in history.regressions())
    judged = sum(course.can_change for course in history.courses)
    short = len(history.courses) - judged
    if history.note:
        return Gate(findings, 0, short + judged, NOTHING_COMPARABLE, history.note)
    if not judged:
        why = (
            f"no case has {FEWEST} undisturbed sessions on one machine under one protocol, or one more where sessions "
            "have one process and no interval"
        )
        return Gate(findings, 0, short, NOTHING_COMPARABLE, why)
    worse = any(not one.mended for one in findings)
    return Gate(findings, judged, short, REGRESSION if worse else AGREES)


def _finding(one: Regression) -> Finding:
    course, change = one.course, one.change
    good, bad = course.sessions[change.at - 1], course.sessions[change.at]
    sign = -1.0 if course.lower_is_better else 1.0
    ends = sorted(percent(end, sign) for end in (change.ratio.low, change.ratio.high) if end)
    return Finding(
        case=course.label,
        suite=course.suite,
        metric=course.metric,
        unit=course.unit,
        machine_key=course.machine_key,
        before=change.before,
        after=change.after,
        change_percent=percent(change.ratio.value, sign),
        low_percent=ends[0] if len(ends) == 2 else None,
        high_percent=ends[1] if len(ends) == 2 else None,
        commit=bad.commit,
        started_at=bad.started_at,
        last_good_commit=good.commit,
        last_good_at=good.started_at,
        same_commit=bool(bad.commit) and bad.commit == good.commit,
        mended=one.mended,
        sessions=len(course.sessions),
        surroundings=tuple(difference(dict(good.environment), dict(bad.environment)))[:MOST_DIFFERENCES],
    )


def percent(ratio: float, sign: float) -> float:
    """By how much the quantity itself changed, in %, where its better way round (`sign` 1: more) changed by `ratio`."""
    return 100.0 * (float(ratio) ** sign - 1.0)


def as_text(gate: Gate) -> str:
    """The gate's verdict for a terminal: a paragraph for each commit since which something is worse."""
    if gate.reason:
        return f"Gate: nothing could be judged (exit code {gate.exit_code}): {gate.reason}\n"
    noun = "quantity" if gate.judged == 1 else "quantities"
    judged = f"of {gate.judged} {noun} with enough sessions"
    if not gate.failing:
        return f"Gate: passed, {judged} none is worse now\n"
    parts = [f"Gate: failed, {judged} {len(gate.failing)} {'is' if len(gate.failing) == 1 else 'are'} worse now"]
    by_commit: dict[tuple[str, str, str], list[Finding]] = {}
    for one in gate.failing:
        by_commit.setdefault((one.commit, one.last_good_commit, one.started_at[:10]), []).append(one)
    for (commit, good, day), found in by_commit.items():
        parts.append("\n".join([f"since {_since(commit, good, day)}", *(f"  {_line(one)}" for one in found)]))
        around = dict.fromkeys(line for one in found for line in one.surroundings)
        parts += [f"  differs there as well: {_around(line)}" for line in around]
    return "\n".join(parts) + "\n"


def _since(commit: str, good: str, day: str) -> str:
    commit, good = escape_controls(commit), escape_controls(good)
    if not commit:
        return f"{day} (the records know no commit)"
    if commit == good:
        return f"{day}, within commit {commit[:12]}: it is not the code"
    if not good:
        return f"commit {commit[:12]} ({day})"
    return f"commit {commit[:12]} ({day}); git log {good[:12]}..{commit[:12]} has the cause"


def _line(one: Finding) -> str:
    ends = "" if one.low_percent is None else f" [{one.low_percent:+.1f}, {one.high_percent:+.1f}]"
    return escape_controls(
        f"{one.case}: {METRICS[one.metric].title} {one.before:.4g} -> {one.after:.4g} {one.unit}, "
        f"{one.change_percent:+.1f} %{ends} on machine {one.machine_key}"
    )


def _around(line: tuple[str, str, str]) -> str:
    what, before, after = map(escape_controls, line)
    return f"{what} {before} -> {after}"


def as_json(gate: Gate) -> bytes:
    """The gate for programs: exit code, reason, how many were judged or too short, findings as `Finding` has them."""
    value: Mapping[str, Any] = {
        "schema": SCHEMA,
        "kind": "waterline gate",
        "version": __version__,
        "exit_code": gate.exit_code,
        "reason": gate.reason,
        "judged": gate.judged,
        "short": gate.short,
        "findings": [asdict(one) for one in gate.findings],
    }
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def as_junit(gate: Gate, history: History) -> bytes:
    """The gate as JUnit XML, which CI servers show: a test per quantity, failed where it is worse now.

    One with too few sessions is skipped; where nothing could be judged all are, and a test of its own has an error.

    Args:
        gate: what was judged.
        history: the same that was.
    """
    failing: dict[Course, list[Finding]] = {}
    for regression, finding in zip(history.regressions(), gate.findings, strict=True):
        if not regression.mended:
            failing.setdefault(regression.course, []).append(finding)
    suite = ElementTree.Element("testsuite", name="waterline history")
    for course in history.courses:
        _test(suite, course, gate.reason, failing.get(course, []))
    if gate.reason:
        test = ElementTree.SubElement(suite, "testcase", classname="waterline", name="something could be judged")
        ElementTree.SubElement(test, "error", message=escape_controls(gate.reason))
    for name, kind in (("failures", "failure"), ("skipped", "skipped"), ("errors", "error")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite)))
    data: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _test(suite: ElementTree.Element, course: Course, reason: str, bad: Sequence[Finding]) -> None:
    """A test of the suite; what other people wrote holds no sign that XML cannot."""
    name, place = (escape_controls(text) for text in (course.label, f"{course.suite}.{course.machine_key}"))
    test = ElementTree.SubElement(suite, "testcase", classname=place, name=f"{name}: {course.metric}")
    if reason or not course.can_change:
        few = f"{len(course.sessions)} sessions tell no change"
        ElementTree.SubElement(test, "skipped", message=escape_controls(reason or few))
    elif bad:
        said = [f"{_line(one)}, since {_since(one.commit, one.last_good_commit, one.started_at[:10])}" for one in bad]
        ElementTree.SubElement(test, "failure", message="; ".join(said))
