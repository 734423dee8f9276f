"""Cases over sessions, commits and days: what is worse and since when, then a line per case with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.history import Change, Course, Regression
from bench.analysis.history_text import shown
from bench.foreign_text import escape_controls, shortened
from bench.metrics import METRICS
from bench.short_names import short_name
from bench.words import plural
from reports.content import Site
from reports.figure_sets import guarded
from reports.figures import courses as drawn
from reports.numbers import pair
from reports.pages.page import Sheet, render

PATH = "history.html"
#: Size of a small line in px, and how many courses have one.
WIDTH, HEIGHT, ROOM = 168.0, 34.0, 4.0
MOST = 600


@dataclass(frozen=True)
class Line:
    """One course as text and as a small picture: `band` and `path` are points of SVG shapes, `marks` its changes."""

    name: str
    metric: str
    suite: str
    page: str
    sessions: int
    first: str
    last: str
    change: str
    kind: str
    band: str
    path: str
    marks: tuple[tuple[str, str], ...]


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `history.html`."""
    yield Sheet(PATH, "", lambda: _page(site))


def _page(site: Site) -> str:
    found = sorted(site.history.courses, key=lambda course: (not course.changes, course.suite, course.label))
    worse = site.history.regressions()
    moved = [course for course in found if course.changes]
    picked = (moved or found)[: drawn.MOST]
    return render(
        "history.html.j2",
        site,
        PATH,
        headline=_headline(found, worse),
        note=site.history.note,
        worse=[(one, _name(one.course), _page_of(site, one.course), since(one)) for one in worse],
        drawing=guarded(drawn.ID, PATH, site, lambda: drawn.figure(picked, len(found))),
        lines=[_line(site, course) for course in found[:MOST]],
        left_out=max(0, len(found) - MOST),
        size=(WIDTH, HEIGHT),
        titles=METRICS,
    )


def _headline(found: Sequence[Course], worse: Sequence[Regression]) -> str:
    now = sum(not one.mended for one in worse)
    days = sorted({session.started_at[:10] for course in found for session in course.sessions})
    span = f"{days[0]} to {days[-1]}"
    if not now:
        return f"Nothing of {plural(len(found), 'line')} is worse now than it was, {span}"
    return f"{now} of {plural(len(found), 'line')} {'is' if now == 1 else 'are'} worse than before, {span}"


def _name(course: Course) -> str:
    return shortened(short_name(escape_controls(course.label)), 120)


def since(one: Regression) -> tuple[str, str, str, str]:
    """When a regression began, the value before and after, and the ratio of the levels with its interval."""
    sessions, at, ratio = one.course.sessions, one.change.at, one.change.ratio
    return (
        escape_controls(one.since.name),
        _shown(one.course, sessions[at - 1].value.value),
        _shown(one.course, sessions[at].value.value),
        f"{pair(ratio.value, ratio.low, ratio.high)}×",
    )


def _shown(course: Course, value: float) -> str:
    """A value with its unit as the other pages write it."""
    text = shown(course, value)
    return f"{text[:-2]}×" if text.endswith(" x") else text


def _page_of(site: Site, course: Course) -> str:
    """The page of the newest session of a course; empty where it has none."""
    row = site.by_key.get(course.sessions[-1].page_key)
    return row.page if row else ""


def _line(site: Site, course: Course) -> Line:
    values = [session.value for session in course.sessions]
    lows = [value.low or value.value for value in values]
    highs = [value.high or value.value for value in values]
    low, high = min(lows), max(highs)
    span = (high - low) or high or 1.0
    step = (WIDTH - 2 * ROOM) / max(1, len(values) - 1)

    def at(place: int, value: float) -> str:
        return f"{ROOM + place * step:.1f},{HEIGHT - ROOM - (HEIGHT - 2 * ROOM) * (value - low) / span:.1f}"

    change = course.changes[-1] if course.changes else None
    return Line(
        name=_name(course),
        metric=METRICS[course.metric].title,
        suite=course.suite,
        page=_page_of(site, course),
        sessions=len(values),
        first=_shown(course, values[0].value),
        last=_shown(course, values[-1].value),
        change=_said(course, change),
        kind="" if change is None else "good" if change.verdict.kind == "FASTER" else "bad",
        band=" ".join(
            [*(at(i, value) for i, value in enumerate(highs)), *(at(i, lows[i]) for i in reversed(range(len(lows))))]
        ),
        path=" ".join(at(i, value.value) for i, value in enumerate(values)),
        marks=tuple((x, y) for one in course.changes for x, y in [at(one.at, values[one.at].value).split(",")]),
    )


def _said(course: Course, change: Change | None) -> str:
    if change is None:
        return "no change of level"
    word = "better" if change.verdict.kind == "FASTER" else "worse"
    return f"{word} since {escape_controls(course.sessions[change.at].name)}"
