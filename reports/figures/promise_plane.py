"""The plane of promised against measured speed-up: its axes, the lines of equal shares of the promise, and the marks.

Both axes are logarithmic and a step is as long on one as on the other, so that the distance from the diagonal means the
same everywhere and lines of an equal share of the promise run beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports.atlas import Point
from reports.figures.figure import rounded
from reports.figures.theme import Spec, axis, plain

#: Shares of the promise that have a line.
GUIDES = (1.0, 0.75, 0.5)
_TICKS = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)
#: Decades beyond which only whole, doubled and fivefold ones have a tick.
WIDE = 1.3
FAINT, FULL = 0.38, 0.95
#: How wide the picture is at least beside its height, however little is promised.
LEAST_WIDE = 0.8


@dataclass(frozen=True)
class Look:
    """How a point is drawn: its colour role, its mark, and the entry of the legend that it belongs to."""

    colour: str
    symbol: str
    entry: str


def id_of(point: Point) -> str:
    """What tells a point from all others: the page of its case."""
    return point.row.page


@dataclass(frozen=True)
class Extent:
    """How far the axes reach: promised from `left` to `right`, measured from `low` to `top`."""

    left: float
    right: float
    low: float
    top: float


def extent(own: Sequence[Point]) -> Extent:
    """The ends of axes that show all of these points and the level of no gain."""
    low, right, top = ends(own)
    left = min([1.0, *(point.promised for point in own)])
    return Extent(left, max(right, left * (top / low) ** LEAST_WIDE), low, top)


def ends(own: Sequence[Point]) -> tuple[float, float, float]:
    """Least measured, largest promised and largest measured value, with some room around no gain."""
    measured = [point.measured for point in own]
    right = max(1.3, *(point.promised for point in own))
    return min(0.9, *measured), right, max(1.15, *measured)


def axes(reach: Extent, titles: tuple[str, str], *, crowded: float = 1.0) -> tuple[Spec, Spec]:
    """Both axes with their titles; a step is as long on one as on the other.

    Args:
        reach: what they show.
        titles: of the promised and of the measured speed-up.
        crowded: how many times narrower than the whole picture the plane is drawn, so that ticks keep their distance.
    """
    across = {**_axis(titles[0], reach.left, reach.right, crowded), "constrain": "domain", "constraintoward": "left"}
    upwards = {
        **_axis(titles[1], reach.low, reach.top, crowded),
        "scaleanchor": "x",
        "scaleratio": 1,
        "constrain": "domain",
        "constraintoward": "top",
    }
    return across, upwards


def _axis(title: str, low: float, high: float, crowded: float) -> Spec:
    """A logarithmic axis with a tick at 1.2, 1.5, 2, 3 and so on, fewer over several decades."""
    start, end = math.log10(low) - 0.02, math.log10(high) + 0.09
    span = crowded * (end - start)
    steps = _TICKS if span < WIDE else (1.0, 2.0, 5.0) if span < 2 * WIDE else (1.0,)
    apart = 1 if span < 6 * WIDE else 2  # decades from a tick to the next, where one each would overlap on a phone
    decades = [decade for decade in range(math.floor(start), math.ceil(end) + 1) if decade % apart == 0]
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    shown = [tick for tick in ticks if start <= math.log10(tick) <= end]
    text = [f"{tick:g}" for tick in shown]
    return axis(title, type="log", range=[start, end], tickvals=shown, ticktext=text, tickangle=0)


def guides(reach: Extent) -> tuple[list[Spec], list[Spec]]:
    """The lines of equal shares from left to right, and their names where they leave the picture."""
    start = min(reach.low, 1.0) / 2
    lines, names = [], []
    for share in GUIDES:
        end = min(reach.right, reach.top / share) * 1.06
        lines.append({
            "type": "scatter", "mode": "lines", "x": rounded([start, end]),
            "y": rounded([share * start, share * end]), "hoverinfo": "skip", "showlegend": False,
            "line": {"color": "@quiet", "width": 1.6 if share == 1 else 1, "dash": "solid" if share == 1 else "dot"},
        })  # fmt: skip
        names.append({
            "x": math.log10(end), "y": math.log10(share * end), "text": f"{100 * share:.0f} %", "showarrow": False,
            "xanchor": "left", "yanchor": "middle", "font": {"size": 12, "color": "@quiet"},
            **({"name": "wide"} if share == GUIDES[1] else {}),
        })  # fmt: skip
    return lines, names


def slower(reach: Extent) -> Spec:
    """The shade below the level of no gain."""
    return {
        "type": "rect", "layer": "below", "fillcolor": "@band", "line": {"width": 0, "color": "@none"},
        "xref": "x domain", "x0": 0, "x1": 1, "y0": reach.low / 10, "y1": 1,
    }  # fmt: skip


def marks(
    entry: str, members: Sequence[Point], look: Callable[[Point], Look], place: Mapping[str, int], *, size: int = 10
) -> Spec:
    """The marks of one entry of the legend.

    Args:
        entry: what the legend calls them.
        members: the points.
        look: of each.
        place: of a point among the texts on hover and the rows of the table, by `id_of`.
        size: of a mark, in px.
    """
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
        "x": rounded([point.promised for point in members], 4),
        "y": rounded([point.measured for point in members], 4),
        "marker": {
            "symbol": _one_or_all(symbols),
            "color": _one_or_all([each.colour for each in looks]),
            "opacity": _one_or_all([FULL if point.certain else FAINT for point in members]),
            "size": size,
            "line": {"width": _one_or_all([1.6 if point.row.disturbed else 0 for point in members])},
        },
        "customdata": [[place[id_of(point)]] * 2 for point in members],
        "meta": "hover",
    }


def _one_or_all(values: Sequence[object]) -> object:
    """The value that all have, else the list: plotly takes both, and pages stay small."""
    return values[0] if len(set(values)) == 1 else list(values)
