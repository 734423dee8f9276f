"""Courses over sessions: the value of every session with its interval, the levels between changes, and the changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from bench.analysis.history import Course
from bench.foreign_text import escape_controls, shortened
from bench.metrics import METRICS
from bench.short_names import short_name
from bench.words import plural
from reports.figures.figure import Control, Figure, no_picture, rounded, significant
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, axis, layout, legend, plain

ID = "courses"
HOW_TO_READ = (
    "Each mark is one session with its 95 % interval, in the order in which they were measured; the level steps only "
    "where two stretches of sessions differ for certain."
)
#: Courses that have a view; the table below the figure of the page has all.
MOST = 40


def figure(found: Sequence[Course], total: int, *, id: str = ID) -> Figure:
    """The figure of these courses, a view each.

    Args:
        found: those with a change of level first.
        total: how many there are in all.
        id: a stable slug, unique on its page.
    """
    if not found:
        return no_picture(id, "No history", HOW_TO_READ, "no case was measured in two sessions")
    names = _names(found)
    moved = sum(bool(course.changes) for course in found)
    many = plural(total, "line")
    title = (
        f"{moved} of {many} changed {'its' if moved == 1 else 'their'} level"
        if moved
        else f"None of {many} changed its level"
    )
    lines: list[dict[str, Any]] = []
    views: dict[str, Spec] = {}
    hover: list[Any] = []
    for name, course in zip(names, found, strict=True):
        views[name] = _draw(course, len(lines), len(hover))
        for session in course.sessions:
            value = session.value
            lines.append(
                {
                    "case": course.label,
                    "quantity": course.metric,
                    "unit": course.unit,
                    "session": session.name,
                    "value": value.value,
                    "low": value.low,
                    "high": value.high,
                }
            )
            hover.append(
                f"<b>{plain(escape_controls(session.name))}</b><br>{significant(value.value, 4)} {plain(course.unit)}"
            )
    table = pd.DataFrame(lines).astype(object)
    return Figure(
        id, title, HOW_TO_READ, table.where(table.notna(), None), views, (Control("Line", tuple(views)),),
        notes=(f"views are of {len(found)} of {total} lines",) if len(found) < total else (), hover=tuple(hover),
    )  # fmt: skip


def _names(found: Sequence[Course]) -> list[str]:
    """What the menu calls each course; alike ones are numbered."""
    plain_names = [
        f"{shortened(short_name(escape_controls(course.label)), 90)}, {METRICS[course.metric].title}".replace(
            " · ", ", "
        )
        for course in found
    ]
    return [name if plain_names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(plain_names, 1)]


def _draw(course: Course, row: int, text: int) -> Spec:
    values = [session.value for session in course.sessions]
    middle = [value.value for value in values]
    places = list(range(len(values)))
    marks: Spec = {
        "type": "scatter",
        "mode": "markers",
        "name": "session",
        "x": places,
        "y": rounded(middle),
        "error_y": error_bar(middle, [value.low for value in values], [value.high for value in values]),
        "marker": {"color": "@blue", "size": 9},
        "customdata": [[row + place, text + place] for place in places],
        "meta": "hover",
    }
    better = "lower is better" if course.lower_is_better else "higher is better"
    names = [plain(escape_controls(session.name)) for session in course.sessions]
    step = max(1, len(places) // 8)
    return {
        "data": [_levels(course, middle), marks],
        "layout": layout(
            xaxis=axis("session", tickvals=places[::step], ticktext=names[::step], range=[-0.5, len(places) - 0.5]),
            yaxis=axis(f"{METRICS[course.metric].title} ({course.unit}), {better}"),
            height=400,
            legend=legend(),
        ),
    }


def _levels(course: Course, middle: Sequence[float]) -> Spec:
    """The mean of each stretch between changes, as steps."""
    bounds = [0, *(change.at for change in course.changes), len(middle)]
    x: list[float | None] = []
    y: list[float | None] = []
    for start, end in pairwise(bounds):
        level = sum(middle[start:end]) / (end - start)
        x += [start - 0.5, end - 0.5, None]
        y += [level, level, None]
    return {
        "type": "scatter", "mode": "lines", "name": "level", "x": x, "y": rounded(y), "hoverinfo": "skip",
        "line": {"color": "@vermillion" if course.changes else "@grey", "width": 2},
    }  # fmt: skip
