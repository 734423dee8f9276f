"""From which batch a method or a model pays: measured speed-up over batch size, beside what was promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from reports.batches import LATENCY, MEASURES, THROUGHPUT, Course, Panel, Point, in_words, panels, pays_from
from reports.figures.figure import SEPARATOR, Control, Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain, styles_of
from reports.rows import Row
from reports.words import unit_noun

ID = "batch-gain"
HOW_TO_READ = (
    "Above the line at 1 a curve is faster than what it is compared with at the same batch; bars are 95 % intervals, a "
    "ring marks the smallest measured batch from which the whole interval stays above 1, and the faint line in a "
    "curve's colour is what its MACs promise."
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
#: How far apart on the log axis the marks of two methods at one batch stand.
APART = 1.035
#: Curves of one network that still can be told apart; the table has all.
MOST_CURVES = 12


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows of any conditions: a view per network and way of timing."""
    styles = styles or styles_of(rows)
    found = panels(rows)
    table, position, hover = gain_table(found)
    views = {
        SEPARATOR.join((panel.title.replace(SEPARATOR, ", "), measure)): draw(panel, measure, styles, position)
        for panel in found
        for measure in MEASURES
        if _curves(panel, measure)
    }
    if not views:
        reason = "nothing was measured with its baseline at two batch sizes"
        return no_picture(id, "No speed-up over the batch", HOW_TO_READ, reason, table)
    return Figure(
        id, title(found), HOW_TO_READ, table, views, _controls(list(views)), notes=notes(found), hover=tuple(hover)
    )


def _controls(keys: Sequence[str]) -> tuple[Control, ...]:
    parts = [key.split(SEPARATOR) for key in keys]
    return tuple(
        Control(name, tuple(dict.fromkeys(part[i] for part in parts))) for i, name in enumerate(("Network", "Timed as"))
    )


def title(found: Sequence[Panel]) -> str:
    """The finding: how many methods pay everywhere, from some batch on, and not at all."""
    firsts = [(pays_from(course), course) for panel in found for course in panel.courses if len(course.points) > 1]
    everywhere = sum(first == course.points[0].batch for first, course in firsts)
    never = sum(first is None for first, _ in firsts)
    later = len(firsts) - everywhere - never
    parts = [
        (everywhere, "pays", "pay", "at every measured batch"),
        (later, "pays", "pay", "only from a larger batch on"),
        (never, "does not", "do not", "pay up to the largest"),
    ]
    said = [f"{count} {one if count == 1 else many} {words}" for count, one, many, words in parts if count]
    return f"Of {len(firsts)} case{'' if len(firsts) == 1 else 's'} {', '.join(said)}"


def notes(found: Sequence[Panel]) -> tuple[str, ...]:
    """What the picture leaves out: failed batches, curves beyond the most, and that nothing is interpolated."""
    failed = [
        f"{course.name} on {panel.title} at {', '.join(map(str, course.failed))}"
        for panel in found
        for course in panel.courses
        if course.failed
    ]
    many = [panel.title for panel in found if len(panel.courses) > MOST_CURVES]
    said = [
        "only measured batches are named; marks of one batch are set apart sideways, lines between them guide the eye"
    ]
    if failed:
        said.append(f"no speed-up at: {'; '.join(failed[:5])}{'; ...' if len(failed) > 5 else ''}")
    if many:
        said.append(f"{MOST_CURVES} curves are drawn for {', '.join(many)}; the table has all")
    return tuple(said)


def gain_table(found: Sequence[Panel]) -> tuple[pd.DataFrame, dict[int, int], list[str]]:
    """The numbers behind the figure, where each row stands in them by identity, and the hover texts."""
    lines: list[dict[str, object]] = []
    position: dict[int, int] = {}
    hover: list[str] = []
    for panel in found:
        for course in panel.courses:
            for point in course.points:
                position[id(point.row)] = len(lines)
                lines.append(_line(panel, course, point))
                hover.append(_hover(panel, course, point))
    return table_of(lines), position, hover


def _line(panel: Panel, course: Course, point: Point) -> dict[str, object]:
    line: dict[str, object] = {
        "network": panel.title,
        "method": point.row.case.method_label,
        **beside(point.row),
        "batch": point.batch,
        "promised (×)": point.promised,
    }
    for measure in MEASURES:
        cell = point.gains.get(measure)
        ends = (None, None, None) if cell is None else (cell.value, cell.low, cell.high)
        line |= {f"speed-up, {measure} (×)": ends[0], f"low, {measure} (×)": ends[1], f"high, {measure} (×)": ends[2]}
    return {**line, "pays": in_words(course)}


def _hover(panel: Panel, course: Course, point: Point) -> str:
    gains = [
        f"{measure} {significant(cell.value)}×"
        + ("" if cell.low is None or cell.high is None else f" [{significant(cell.low)}, {significant(cell.high)}]")
        for measure, cell in point.gains.items()
    ]
    latency = point.gains[LATENCY].value
    share = latency / point.promised if latency and point.promised else None
    return "<br>".join(
        [
            f"<b>{plain(course.name)}</b>",
            f"{plain(panel.title)}, batch {point.batch}",
            *gains,
            f"promised {significant(point.promised)}×, realised {percent(share)}",
            plain(f"pays: {in_words(course)}"),
        ]
    )


def _curves(panel: Panel, measure: str) -> list[Course]:
    """The courses with two or more points in a measure, at most `MOST_CURVES`."""
    usable = [c for c in panel.courses if sum(measure in point.gains for point in c.points) > 1]
    return usable[:MOST_CURVES]


def draw(panel: Panel, measure: str, styles: Mapping[str, Style], position: Mapping[int, int]) -> Spec:
    """Speed-up over batch, both logarithmic, with the promise behind and a ring where a method begins to pay."""
    courses = _curves(panel, measure)
    points = {course.name: [p for p in course.points if measure in p.gains] for course in courses}
    batches = sorted({p.batch for own in points.values() for p in own})
    ends = [end for own in points.values() for p in own for end in _ends(p, measure)]
    promises = [course.promised for course in courses if course.promised]
    dashes = _dashes(courses)
    apart = {course.name: APART ** (place - (len(courses) - 1) / 2) for place, course in enumerate(courses)}
    traces = [_promise(c, styles[c.method], batches) for c in courses if c.promised]
    methods = [course.method for course in courses]
    for course in courses:
        drawn = _curve(course, points[course.name], measure, styles[course.method], dashes[course.name], position)
        drawn["name"] = plain(course.method if methods.count(course.method) == 1 else course.name)
        traces.append(_aside(drawn, apart[course.name]))
    rings = [(course, _ring(course, measure, styles[course.method])) for course in courses]
    traces += [_aside(ring, apart[course.name]) for course, ring in rings if ring]
    pad = log_axis(
        f"batch size ({unit_noun(point.row for own in points.values() for point in own)}s), log",
        batches[0],
        batches[-1],
        pad=0.08,
    )
    xaxis = {**pad, "tickvals": batches, "ticktext": [str(batch) for batch in batches]}
    yaxis = log_axis("speed-up over the baseline (×), log", min(0.95, *ends), max(1.05, *ends, *promises))
    return {
        "data": traces,
        "layout": layout(xaxis=xaxis, yaxis=yaxis, height=480, shapes=[_break_even()], legend=legend()),
    }


def _aside(trace: Spec, factor: float) -> Spec:
    """The trace moved sideways on the log axis by a small factor."""
    return {**trace, "x": rounded([x * factor for x in trace["x"]])}


def _ends(point: Point, measure: str) -> list[float]:
    cell = point.gains[measure]
    return [end for end in (cell.value, cell.low, cell.high) if end]


def _dashes(courses: Sequence[Course]) -> dict[str, str]:
    """A dash per setting of one method: its colour says the method."""
    seen: dict[str, int] = {}
    found = {}
    for course in courses:
        found[course.name] = DASHES[seen.get(course.method, 0) % len(DASHES)]
        seen[course.method] = seen.get(course.method, 0) + 1
    return found


def _curve(
    course: Course, points: Sequence[Point], measure: str, style: Style, dash: str, position: Mapping[int, int]
) -> Spec:
    cells = [point.gains[measure] for point in points]
    values = [cell.value or 0.0 for cell in cells]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "legendgroup": course.name,
        "x": [point.batch for point in points],
        "y": rounded(values),
        "error_y": {
            **error_bar(values, [c.low for c in cells], [c.high for c in cells]),
            "color": style.colour,
            "width": 3,
        },
        "line": {"color": style.colour, "width": 1.8, "dash": dash},
        "marker": {"symbol": style.symbol, "size": 9, "color": style.colour},
        "customdata": [[position[id(point.row)]] * 2 for point in points],
        "meta": "hover",
    }


def _promise(course: Course, style: Style, batches: Sequence[int]) -> Spec:
    """The promised speed-up of one method as a faint line from the first to the last batch."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [batches[0], batches[-1]],
        "y": rounded([course.promised] * 2),
        "opacity": 0.45,
        "line": {"color": style.colour, "width": 1, "dash": "dot"},
        "legendgroup": course.name,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _ring(course: Course, measure: str, style: Style) -> Spec | None:
    """A ring around the point from which the method pays."""
    first = pays_from(course, measure)
    if first is None:
        return None
    value = next(point.gains[measure].value for point in course.points if point.batch == first)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [first],
        "y": rounded([value]),
        "legendgroup": course.name,
        "showlegend": False,
        "marker": {"symbol": "circle-open", "size": 19, "color": style.colour, "line": {"width": 2}},
        "hoverinfo": "skip",
    }


def _break_even() -> Spec:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 1,
        "y1": 1,
        "layer": "below",
        "line": {"color": "@ink", "width": 1.2},
    }


__all__ = ["HOW_TO_READ", "ID", "LATENCY", "THROUGHPUT", "draw", "figure", "gain_table", "notes", "title"]
