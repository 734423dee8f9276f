"""The flagship picture: promised against measured speed-up on equal scales, over one suite or over all.

It is one picture; where it shows several suites or families of methods it can be had as small multiples as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from reports.atlas import Point
from reports.figures import small_multiples
from reports.figures.figure import SEPARATOR, Control, Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.promise_plane import Look, axes, ends, extent, guides, id_of, marks, slower
from reports.figures.theme import SERIES, Spec, layout, legend, plain
from reports.rows import Row

ID = "flagship"
HOW_TO_READ = (
    "Each mark is a case: on the upper line all of the promised speed-up arrives, on the lower ones three quarters and "
    "half of it; in the shaded part it is slower than the plain network."
)
#: One mark for each suite; all have a hollow form.
MARKS = (
    "circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon", "x", "pentagon",
    "triangle-left", "diamond-tall", "hourglass", "triangle-right", "star-square", "bowtie", "hexagram", "diamond-wide",
    "star-triangle-up", "octagon", "star-diamond", "triangle-ne", "star-triangle-down", "triangle-sw",
)  # fmt: skip
HEIGHT = 620
#: The menu of the two ways to draw a view, where there are two.
LAYOUT = Control("Layout", ("one picture", "small multiples"))


def looks_by_suite(found: Sequence[Point]) -> Callable[[Point], Look]:
    """A mark per suite, a colour per family of methods; colours begin anew in each suite."""
    forms = {name: MARKS[i % len(MARKS)] for i, name in enumerate(sorted({p.row.case.suite for p in found}))}
    colours: dict[tuple[str, str], str] = {}
    for suite in forms:
        families = sorted({p.row.family for p in found if p.row.case.suite == suite})
        colours |= {(suite, name): SERIES[i % len(SERIES)] for i, name in enumerate(families)}
    return lambda point: Look(
        colours[point.row.case.suite, point.row.family], forms[point.row.case.suite], point.row.case.suite
    )


def figure(
    found: Sequence[Point],
    look: Callable[[Point], Look],
    *,
    title: str,
    views: Mapping[str, Sequence[Point]] | None = None,
    control: str = "",
    id: str = ID,
    grey_legend: bool = False,
    behind: Sequence[Point] = (),
    notes: Sequence[str] = (),
    facets_first: bool = False,
) -> Figure:
    """The figure of these points.

    Args:
        found: what is drawn and stands in the table.
        look: of each point.
        title: the finding.
        views: parts of `found` by what the menu calls them, the first shown first; None for one view of all.
        control: the name of the menu.
        id: a stable slug, unique on its page.
        grey_legend: entries of the legend have no colour, because only the mark tells them apart.
        behind: further points, drawn in grey and without a name; with them there are no small multiples.
        notes: what has to be known.
        facets_first: on a wide screen the small multiples of the first view are what is shown first.
    """
    if not found:
        reason = "no case here has both a count of operations with its other side and a measured speed-up"
        return no_picture(id, title, HOW_TO_READ, reason)
    place = {id_of(point): number for number, point in enumerate(found)}
    shown = views or {"": found}
    first = next(iter(shown))
    specs = {name: _draw(own, look, place, grey_legend=grey_legend, behind=behind) for name, own in shown.items()}
    several = {} if behind else _small_multiples(shown, look, place)
    if several:
        specs = {_key(*key): spec for name in shown for key, spec in _both(name, specs[name], several.get(name))}
    menus = [*([Control(control, tuple(shown))] if views else []), *([LAYOUT] if several else [])]
    return Figure(
        id,
        title,
        HOW_TO_READ,
        _table(found),
        specs,
        tuple(menus),
        notes=(*notes, *_notes(found), *([small_multiples.note(shown.values())] if several else [])),
        hover=tuple(_hover(point, near) for point, near in zip(found, same_place(found), strict=True)),
        links=tuple(point.row.page for point in found),
        wide=_key(first, LAYOUT.options[1]) if facets_first and first in several else "",
    )


def _small_multiples(
    shown: Mapping[str, Sequence[Point]], look: Callable[[Point], Look], place: Mapping[str, int]
) -> dict[str, Spec]:
    """The views as small multiples, those in which there is more than one panel."""
    panels = {name: small_multiples.panels(own) for name, own in shown.items()}
    return {
        name: small_multiples.spec(found, look, place, shown[name])
        for name, found in panels.items()
        if len(found) >= small_multiples.LEAST
    }


def _both(name: str, one: Spec, several: Spec | None) -> list[tuple[tuple[str, str], Spec]]:
    """Both ways to draw a view, each with what the menus say of it; where there is one panel both are one picture."""
    return [((name, way), spec) for way, spec in zip(LAYOUT.options, (one, several or one), strict=True)]


def _key(*chosen: str) -> str:
    """What a view is kept under: what the menus say, of those that there are."""
    return SEPARATOR.join(filter(None, chosen))


def _notes(found: Sequence[Point]) -> list[str]:
    """What hollow and faint marks mean, with their numbers."""
    said = []
    hollow = sum(point.row.disturbed for point in found)
    if hollow:
        said.append(
            f"hollow: {hollow} of {len(found)} were measured while other work disturbed the machine; their ratios were "
            "timed in turns and stand, their ranks are withheld"
        )
    faint = sum(not point.certain for point in found)
    if faint:
        said.append(f"faint: {faint} of {len(found)} are neither faster nor slower for certain")
    return said


#: Marks that are nearer than this part of the longer axis, about a third of their size, look like one.
NEAR = 0.006
#: Of several marks on one place so many are named by each.
MOST_NAMED = 3


def same_place(found: Sequence[Point]) -> list[list[Point]]:
    """For each point the other ones whose marks lie on its own."""
    low, right, top = ends(found)
    step = NEAR * math.log(max(right, top) / low)
    places = [(math.log(point.promised) / step, math.log(point.measured) / step) for point in found]
    cells: dict[tuple[int, int], list[int]] = {}
    for number, (x, y) in enumerate(places):
        cells.setdefault((math.floor(x), math.floor(y)), []).append(number)
    near: list[list[Point]] = []
    for number, (x, y) in enumerate(places):
        around = [(math.floor(x) + i, math.floor(y) + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        others = (other for cell in around for other in cells.get(cell, ()) if other != number)
        near.append([found[other] for other in others if math.dist(places[other], (x, y)) <= 1])
    return near


def _draw(
    own: Sequence[Point],
    look: Callable[[Point], Look],
    place: Mapping[str, int],
    *,
    grey_legend: bool,
    behind: Sequence[Point],
) -> Spec:
    """One picture of these points."""
    reach = extent([*own, *behind])
    traces = [*([_behind(behind)] if behind else [])]
    members: dict[str, list[Point]] = {}
    for point in own:
        members.setdefault(look(point).entry, []).append(point)
    for entry in sorted(members):
        traces.append({**marks(entry, members[entry], look, place), "showlegend": not grey_legend})
        if grey_legend:
            traces.append(_entry(entry, look(members[entry][0]).symbol))
    if any(point.row.disturbed for point in own):
        traces.append(_entry("disturbed (hollow)", "circle-open"))
    lines, names = guides(reach)
    across, upwards = axes(reach, ("promised speed-up (×), log", "measured speed-up (×), log"))
    return {
        "data": [*lines, *traces],
        "layout": layout(
            xaxis=across,
            yaxis=upwards,
            height=HEIGHT,
            shapes=[slower(reach)],
            annotations=[*names, _slower_name()],
            legend=legend(),
        ),
    }


def _slower_name() -> Spec:
    return {
        "xref": "x domain", "x": 0.995, "y": 0, "yshift": -2, "text": "slower than plain", "showarrow": False,
        "xanchor": "right", "yanchor": "top", "font": {"size": 12, "color": "@quiet"},
    }  # fmt: skip


def _entry(entry: str, symbol: str) -> Spec:
    """An entry of the legend that stands for a mark alone."""
    return {
        "type": "scatter", "mode": "markers", "name": plain(entry), "legendgroup": entry, "x": [None], "y": [None],
        "hoverinfo": "skip", "marker": {"symbol": symbol, "size": 10, "color": "@quiet"},
    }  # fmt: skip


def _behind(others: Sequence[Point]) -> Spec:
    return {
        "type": "scatter", "mode": "markers", "name": "other methods",
        "x": rounded([point.promised for point in others], 4), "y": rounded([point.measured for point in others], 4),
        "hoverinfo": "skip", "marker": {"symbol": "circle", "size": 6, "color": "@grey", "opacity": 0.35},
    }  # fmt: skip


def _hover(point: Point, near: Sequence[Point]) -> str:
    row, cell = point.row, point.speedup
    names = [plain(other.row.name) for other in near[:MOST_NAMED]]
    more = [f"{len(near) - MOST_NAMED} more"] if len(near) > MOST_NAMED else []
    here = f"<br>on the same place: {', '.join([*names, *more])}" if near else ""
    interval = "" if cell.low is None or cell.high is None else f" [{significant(cell.low)}, {significant(cell.high)}]"
    return (
        f"<b>{plain(row.name)}</b><br>{plain(where(row))}<br>promised {significant(point.promised)}×, measured "
        f"{significant(cell.value)}×{interval}<br>{percent(point.share)} of the promise"
        f"{'<br>disturbed: no rank' if row.disturbed else ''}{here}"
    )


def where(row: Row) -> str:
    """Suite and batch of a row, for a line below its name."""
    return f"{row.case.suite} · batch {row.case.batch}"


def _table(found: Sequence[Point]) -> pd.DataFrame:
    rows = [
        {
            "suite": point.row.case.suite,
            "network": point.row.model,
            "method": point.row.head,
            "batch": point.row.case.batch,
            "promised (×)": point.promised,
            "measured (×)": point.measured,
            "low (×)": point.speedup.low,
            "high (×)": point.speedup.high,
            "share of promise": point.share,
            "disturbed": "yes" if point.row.disturbed else "no",
        }
        for point in found
    ]
    return table_of(rows)
