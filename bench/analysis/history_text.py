"""A history in words, for a terminal: what is worse and since when, then what became better, at most a line's width.

Names and commits are of records that others may have written: every cell is spelt out before it is shown.
"""

from __future__ import annotations

from bench.analysis.history import Change, Course, History
from bench.analysis.text_columns import fitted, wrapped

_HEAD = ("case", "quantity", "since", "from", "to", "better by")
#: Columns whose cells may be cut for the width of a terminal, and those that are left out of a narrow one.
_PROSE, _SPARE = ("case", "quantity", "since"), (("from", "to"),)


def as_text(history: History, *, width: int | None = None) -> str:
    """The history for a terminal.

    Args:
        history: what was followed.
        width: signs of a line; None for as many as it takes.
    """
    if not history.courses:
        return "History: no case was measured in two sessions or more.\n"
    worse, better = history.regressions(), _improvements(history)
    now = sum(not one.mended for one in worse)
    days = sorted({session.started_at[:10] for course in history.courses for session in course.sessions})
    longest = max(len(course.sessions) for course in history.courses)
    noun = "quantity" if len(history.courses) == 1 else "quantities"
    title = (
        f"History of {len(history.courses)} {noun} in up to {longest} sessions, {days[0]} to {days[-1]}: "
        f"{now} worse now, {len(worse) - now} worse and mended since, {len(better)} better"
    )
    parts = [wrapped(title, width)]
    if worse:
        lines = [_line(one.course, one.change, mended=one.mended) for one in worse]
        parts.append(fitted([_HEAD, *lines], width, _PROSE, _SPARE))
    if better:
        parts.append(fitted([_HEAD, *(_line(course, change) for course, change in better)], width, _PROSE, _SPARE))
    return "\n\n".join([*parts, *([wrapped(history.note, width)] if history.note else [])]) + "\n"


def _improvements(history: History) -> list[tuple[Course, Change]]:
    found = [(course, change) for course in history.courses for change in course.changes]
    return [(course, change) for course, change in found if change.verdict.kind == "FASTER"]


def _line(course: Course, change: Change, *, mended: bool = False) -> tuple[str, ...]:
    before, after = course.sessions[change.at - 1], course.sessions[change.at]
    ratio = change.ratio
    said = (
        f"{ratio.value:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio.low and ratio.high else f"{ratio.value:.3f}x"
    )
    since = after.name + (" (mended)" if mended else "")
    return course.label, course.metric, since, shown(course, before.value.value), shown(course, after.value.value), said


def shown(course: Course, value: float) -> str:
    """A value of a course with its unit."""
    return f"{value:.4g} {course.unit}"
