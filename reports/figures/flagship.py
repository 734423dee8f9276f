"""The flagship picture: promised against measured speed-up on equal scales, over one suite or over all.

Both axes are logarithmic and a step is as long on one as on the other, so that the distance from the diagonal means the
same everywhere and lines of an equal share of the promise run beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.atlas import Point
from reports.figures.figure import Control, Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.theme import SERIES, Spec, axis, layout, legend, plain
from reports.rows import Row

ID = "flagship"
HOW_TO_READ = (
    "Each mark is a case: on the upper line all of the promised speed-up arrives, on the lower ones three quarters and "
    "half of it; in the shaded part it is slower than the plain network."
)
#: Shares of the promise that have a line.
GUIDES = (1.0, 0.75, 0.5)
#: One mark for each suite; all have a hollow form.
MARKS = (
    "circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon", "x", "pentagon",
    "triangle-left", "diamond-tall", "hourglass", "triangle-right", "star-square", "bowtie", "hexagram", "diamond-wide",
    "star-triangle-up", "octagon", "star-diamond", "triangle-ne", "star-triangle-down", "triangle-sw",
)  # fmt: skip
_TICKS = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)
#: Decades beyond which only whole, doubled and fivefold ones have a tick.
WIDE = 1.3
FAINT, FULL = 0.38, 0.95
HEIGHT = 620


@dataclass(frozen=True)
class Look:
    """How a point is drawn: its colour role, its mark, and the entry of the legend that it belongs to."""

    colour: str
    symbol: str
    entry: str


def looks_by_suite(found: Sequence[Point]) -> Callable[[Point], Look]:
    """A mark per suite, a colour per family of methods; colours begin anew in each suite."""
    marks = {name: MARKS[i % len(MARKS)] for i, name in enumerate(sorted({p.row.case.suite for p in found}))}
    colours: dict[tuple[str, str], str] = {}
    for suite in marks:
        families = sorted({p.row.family for p in found if p.row.case.suite == suite})
        colours |= {(suite, name): SERIES[i % len(SERIES)] for i, name in enumerate(families)}
    return lambda point: Look(
        colours[point.row.case.suite, point.row.family], marks[point.row.case.suite], point.row.case.suite
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
    extent: Sequence[Point] | None = None,
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
        behind: further points, drawn in grey and without a name.
        notes: what has to be known.
        extent: points that the axes of every view reach over; None: those of the view.
    """
    if not found:
        reason = "no case here has both a count of operations with its other side and a measured speed-up"
        return no_picture(id, title, HOW_TO_READ, reason)
    place = {id_of(point): number for number, point in enumerate(found)}
    shown = views or {"": found}
    specs = {
        name: _draw(own, look, place, grey_legend=grey_legend, behind=behind, extent=extent or [*own, *behind])
        for name, own in shown.items()
    }
    hollow = sum(point.row.disturbed for point in found)
    said = [*notes]
    if hollow:
        said.append(
            f"hollow: {hollow} of {len(found)} were measured while other work disturbed the machine; their ratios were "
            "timed in turns and stand, their ranks are withheld"
        )
    faint = sum(not point.certain for point in found)
    if faint:
        said.append(f"faint: {faint} of {len(found)} are neither faster nor slower for certain")
    return Figure(
        id,
        title,
        HOW_TO_READ,
        _table(found),
        specs,
        (Control(control, tuple(shown)),) if views else (),
        notes=tuple(said),
        hover=tuple(_hover(point, near) for point, near in zip(found, same_place(found), strict=True)),
        links=tuple(point.row.page for point in found),
    )


def id_of(point: Point) -> str:
    """What tells a point from all others: the page of its case."""
    return point.row.page


#: How wide the picture is at least beside its height, however little is promised.
LEAST_WIDE = 0.8
#: Marks that are nearer than this part of the longer axis, about a third of their size, look like one.
NEAR = 0.006
#: Of several marks on one place so many are named by each.
MOST_NAMED = 3


def same_place(found: Sequence[Point]) -> list[list[Point]]:
    """For each point the other ones whose marks lie on its own."""
    low, right, top = _extent(found)
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
    extent: Sequence[Point],
) -> Spec:
    low, right, top = _extent(extent)
    left = min([1.0, *_promised(extent)])
    right = max(right, left * (top / low) ** LEAST_WIDE)
    traces = [*([_behind(behind)] if behind else [])]
    members: dict[str, list[Point]] = {}
    for point in own:
        members.setdefault(look(point).entry, []).append(point)
    for entry in sorted(members):
        traces.append(_points(entry, members[entry], look, place, grey=grey_legend))
        if grey_legend:
            traces.append(_key(entry, look(members[entry][0]).symbol))
    if any(point.row.disturbed for point in own):
        traces.append(_key("disturbed (hollow)", "circle-open"))
    lines, names = _guides(min(low, 1.0), right, top)
    return {
        "data": [*lines, *traces],
        "layout": layout(
            xaxis={
                **_axis("promised speed-up (×), log", left, right),
                "constrain": "domain",
                "constraintoward": "left",
            },
            yaxis={
                **_axis("measured speed-up (×), log", low, top),
                "scaleanchor": "x",
                "scaleratio": 1,
                "constrain": "domain",
                "constraintoward": "top",
            },
            height=HEIGHT,
            shapes=[_slower(low)],
            annotations=[*names, _slower_name()],
            legend=legend(),
        ),
    }


def _promised(own: Sequence[Point]) -> list[float]:
    return [point.promised for point in own]


def _extent(own: Sequence[Point]) -> tuple[float, float, float]:
    """Least measured, largest promised and largest measured or promised value."""
    measured = [point.measured for point in own]
    right = max(1.3, *_promised(own))
    return min(0.9, *measured), right, max(1.15, *measured)


def _axis(title: str, low: float, high: float) -> Spec:
    """A logarithmic axis with a tick at 1.2, 1.5, 2, 3 and so on, fewer over several decades."""
    start, end = math.log10(low) - 0.02, math.log10(high) + 0.09
    steps = _TICKS if end - start < WIDE else (1.0, 2.0, 5.0) if end - start < 2 * WIDE else (1.0,)
    decades = range(math.floor(start), math.ceil(end) + 1)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    shown = [tick for tick in ticks if start <= math.log10(tick) <= end]
    text = [f"{tick:g}" for tick in shown]
    return axis(title, type="log", range=[start, end], tickvals=shown, ticktext=text, tickangle=0)


def _guides(low: float, right: float, top: float) -> tuple[list[Spec], list[Spec]]:
    """The lines of equal shares from left to right, and their names where they leave the picture."""
    lines, names = [], []
    for share in GUIDES:
        end = min(right, top / share) * 1.06
        lines.append({
            "type": "scatter", "mode": "lines", "x": rounded([low / 2, end]),
            "y": rounded([share * low / 2, share * end]), "hoverinfo": "skip", "showlegend": False,
            "line": {"color": "@quiet", "width": 1.6 if share == 1 else 1, "dash": "solid" if share == 1 else "dot"},
        })  # fmt: skip
        names.append({
            "x": math.log10(end), "y": math.log10(share * end), "text": f"{100 * share:.0f} %", "showarrow": False,
            "xanchor": "left", "yanchor": "middle", "font": {"size": 12, "color": "@quiet"},
            **({"name": "wide"} if share == GUIDES[1] else {}),
        })  # fmt: skip
    return lines, names


def _slower(low: float) -> Spec:
    return {
        "type": "rect", "layer": "below", "fillcolor": "@band", "line": {"width": 0, "color": "@none"},
        "xref": "x domain", "x0": 0, "x1": 1, "y0": low / 10, "y1": 1,
    }  # fmt: skip


def _slower_name() -> Spec:
    return {
        "xref": "x domain", "x": 0.995, "y": 0, "yshift": -2, "text": "slower than plain", "showarrow": False,
        "xanchor": "right", "yanchor": "top", "font": {"size": 12, "color": "@quiet"},
    }  # fmt: skip


def _points(
    entry: str, members: Sequence[Point], look: Callable[[Point], Look], place: Mapping[str, int], *, grey: bool
) -> Spec:
    looks = [look(point) for point in members]
    symbols = [
        f"{each.symbol}-open" if point.row.disturbed else each.symbol
        for each, point in zip(looks, members, strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(entry),
        "legendgroup": entry,
        "showlegend": not grey,
        "x": rounded([point.promised for point in members], 4),
        "y": rounded([point.measured for point in members], 4),
        "marker": {
            "symbol": _one_or_all(symbols),
            "color": _one_or_all([each.colour for each in looks]),
            "opacity": _one_or_all([FULL if point.certain else FAINT for point in members]),
            "size": 10,
            "line": {"width": _one_or_all([1.6 if point.row.disturbed else 0 for point in members])},
        },
        "customdata": [[place[id_of(point)]] * 2 for point in members],
        "meta": "hover",
    }


def _one_or_all(values: Sequence[object]) -> object:
    """The value that all have, else the list: plotly takes both, and pages stay small."""
    return values[0] if len(set(values)) == 1 else list(values)


def _key(entry: str, symbol: str) -> Spec:
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
