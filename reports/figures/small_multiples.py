"""The flagship picture as small multiples: a panel for each suite, or for each method of one, on shared axes.

The panels stand in plotly's `layout.grid`; `arrange` in `2_figures.js` gives it the columns that a page has room for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.foreign_text import shortened
from reports.atlas import Point
from reports.figures.promise_plane import Extent, Look, axes, extent, guides, marks, slower
from reports.figures.theme import Spec, layout, plain

#: Panels of one view; of more families those with the most points are drawn.
MOST = 24
#: Panels in a row of a picture of the usual width, and how many there must be at least.
COLUMNS, LEAST = 4, 2
#: How many times narrower than the whole picture a panel is where ticks are concerned.
CROWDED = 2.5
#: Signs of a panel's title, which is no wider than its panel.
MOST_SIGNS = 26
#: Pixels of a panel's width in a picture of the usual width, of the room above one, and above and below all together.
WIDTH, ABOVE, AROUND = 210, 30, 76
#: The part of a column that is kept free beside its panel.
BESIDE = 0.08
TITLES = ("promised (×)", "measured (×)")


def panels(own: Sequence[Point]) -> dict[str, list[Point]]:
    """What has a panel: each suite where there are several, else each family; of too many those with most points."""
    found = _groups(own)
    largest = sorted(found, key=lambda name: (-len(found[name]), name))[:MOST]
    return {name: found[name] for name in sorted(largest)}


def _groups(own: Sequence[Point]) -> dict[str, list[Point]]:
    several = len({point.row.case.suite for point in own}) > 1
    found: dict[str, list[Point]] = {}
    for point in own:
        found.setdefault(point.row.case.suite if several else point.row.family, []).append(point)
    return found


def note(views: Iterable[Sequence[Point]]) -> str:
    """What the panels are of, and how many a view lacks because there are too many."""
    without = max((len(_groups(own)) - MOST for own in views), default=0)
    said = "small multiples: a panel for each suite, or for each method of one suite, all on the same axes"
    return f"{said}; {without} with the fewest cases have none" if without > 0 else said


def spec(
    found: Mapping[str, Sequence[Point]],
    look: Callable[[Point], Look],
    place: Mapping[str, int],
    whole: Sequence[Point],
) -> Spec:
    """The picture of these panels.

    Args:
        found: the points of each panel by its title, in order.
        look: of each point.
        place: of a point among the texts on hover and the rows of the table.
        whole: the points that the axes of every panel reach over.
    """
    reach = extent(whole)
    columns = min(COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    traces: list[Spec] = []
    around: dict[str, Any] = {}
    shapes, titles = [], []
    for number, (name, own) in enumerate(found.items()):
        at = _Place(number, columns, len(found))
        traces += [{**trace, **at.axes} for trace in (*guides(reach)[0], *_marks(own, look, place))]
        around |= at.layout(reach)
        shapes.append({**slower(reach), "xref": f"{at.x} domain", "yref": at.y})
        titles.append(at.title(name))
    tall = round(WIDTH * _aspect(reach))
    return {
        "data": traces,
        "layout": {
            **layout(xaxis={}, yaxis={}, height=rows * (tall + ABOVE) - ABOVE + AROUND),
            **around,
            "grid": {
                "rows": rows, "columns": columns, "pattern": "independent", "xgap": BESIDE,
                "ygap": ABOVE / (tall + ABOVE),
            },
            "meta": {"panels": len(found), "above": ABOVE, "around": AROUND, "titles": list(TITLES)},
            "shapes": shapes,
            "annotations": titles,
            "showlegend": False,
        },
    }  # fmt: skip


def _marks(own: Sequence[Point], look: Callable[[Point], Look], place: Mapping[str, int]) -> list[Spec]:
    """The marks of one panel, those of a colour and a form together."""
    entries: dict[str, list[Point]] = {}
    for point in own:
        entries.setdefault(look(point).entry, []).append(point)
    return [marks(entry, members, look, place, size=8) for entry, members in sorted(entries.items())]


def _aspect(reach: Extent) -> float:
    """Height over width of a plane whose steps are equally long both ways, as `axes` make it."""
    across, upwards = (axes(reach, TITLES)[at]["range"] for at in (0, 1))
    return float((upwards[1] - upwards[0]) / (across[1] - across[0]))


class _Place:
    """One panel of the grid: the names of its axes, and which of them have numbers."""

    def __init__(self, number: int, columns: int, count: int) -> None:
        which = str(number + 1) if number else ""
        self.x, self.y, self._which = f"x{which}", f"y{which}", which
        self._left, self._lowest = number % columns == 0, number + columns >= count

    @property
    def axes(self) -> dict[str, str]:
        """What a trace of the panel is drawn on."""
        return {"xaxis": self.x, "yaxis": self.y}

    def layout(self, reach: Extent) -> dict[str, Spec]:
        """Both axes; only those at the left and the lower edge are numbered and have a title."""
        across, upwards = axes(reach, TITLES, crowded=CROWDED)
        across |= {"showticklabels": self._lowest, "anchor": self.y}
        upwards |= {"showticklabels": self._left, "anchor": self.x, "scaleanchor": self.x}
        for axis, shown in ((across, self._lowest), (upwards, self._left)):
            axis["title"] = {**axis["title"], "text": axis["title"]["text"] if shown else ""}
        return {f"xaxis{self._which}": across, f"yaxis{self._which}": upwards}

    def title(self, name: str) -> Spec:
        """The name above the panel."""
        return {
            "xref": f"{self.x} domain", "yref": f"{self.y} domain", "x": 0, "y": 1, "xanchor": "left",
            "yanchor": "bottom", "yshift": 2, "showarrow": False, "text": plain(shortened(name, MOST_SIGNS)),
            "font": {"size": 12, "color": "@ink"},
        }  # fmt: skip
