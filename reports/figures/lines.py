"""One line per case: marks of one quantity on a shared log axis, joined, with the name of the case above its line.

The names stand inside the plot, so that the picture keeps its width on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.figures.figure import rounded
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain

#: Lines that still can be read; the table has all rows.
MOST_LINES = 60
PITCH = 36


@dataclass(frozen=True)
class Line:
    """A named line: its hollow start, a tick on the way and its solid end with an interval; None is not drawn.

    `row` is its row of the table and of the figure's hover texts."""

    name: str
    style: Style
    row: int
    start: float | None
    end: float
    middle: float | None = None
    low: float | None = None
    high: float | None = None


def draw(
    lines: Sequence[Line],
    *,
    x_title: str,
    start: str,
    end: str,
    middle: str = "",
    band: Spec | None = None,
    mark: float | None = None,
) -> Spec:
    """The spec of up to `MOST_LINES` lines, the first on top; `start`, `middle` and `end` name the marks in the legend.

    Args:
        lines: what to draw.
        x_title: with its unit.
        start: name of the hollow marks.
        end: name of the solid marks.
        middle: name of the ticks, if there are any.
        band: a shape behind everything.
        mark: where to draw a thin line from top to bottom.
    """
    shown = list(lines)[:MOST_LINES]
    at = [float(len(shown) - place) for place in range(len(shown))]
    values = [v for x in shown for v in (mark, x.start, x.middle, x.end, x.low, x.high) if v is not None and v > 0]
    span = log_axis(x_title, min(values), max(values), showgrid=True)
    left = 10 ** span["range"][0] * 1.002
    traces = [
        _joins(shown, at),
        _marks(shown, at, start, "start"),
        *([_marks(shown, at, middle, "middle")] if middle else []),
        _ends(shown, at, end),
        _names(shown, at, left),
    ]
    height = 90 + PITCH * len(shown) + 40
    rows = axis("", range=[0.4, len(shown) + 0.75], showticklabels=False, ticks="", showgrid=False, showline=False)
    return {
        "data": traces,
        "layout": layout(
            xaxis=span,
            yaxis=rows,
            height=max(height, 220),
            margin={"l": 12, "r": 12, "t": 40, "b": 48},
            legend=legend(),
            shapes=[shape for shape in (band, _mark(mark)) if shape],
        ),
    }


def _mark(at: float | None) -> Spec | None:
    if at is None:
        return None
    return {
        "type": "line",
        "x0": at,
        "x1": at,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": "@quiet", "width": 1},
    }


def _joins(lines: Sequence[Line], at: Sequence[float]) -> Spec:
    x: list[float | None] = []
    y: list[float | None] = []
    for line, height in zip(lines, at, strict=True):
        if line.start is not None:
            x += [line.start, line.end, None]
            y += [height, height, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(x),
        "y": y,
        "hoverinfo": "skip",
        "showlegend": False,
        "line": {"color": "@grey", "width": 2},
    }


def _marks(lines: Sequence[Line], at: Sequence[float], name: str, part: str) -> Spec:
    places = [(getattr(line, part), height, line) for line, height in zip(lines, at, strict=True)]
    known = [place for place in places if place[0] is not None]
    shape: Spec = (
        {"symbol": [f"{line.style.symbol}-open" for *_, line in known], "size": 9, "line": {"width": 2}}
        if part == "start"
        else {"symbol": "line-ns-open", "size": 11, "line": {"width": 2}}
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rounded([x for x, *_ in known]),
        "y": [y for _, y, _ in known],
        "marker": {**shape, "color": [line.style.colour for *_, line in known]},
        "customdata": [[line.row, line.row] for *_, line in known],
        "meta": "hover",
    }


def _ends(lines: Sequence[Line], at: Sequence[float], name: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rounded([line.end for line in lines]),
        "y": list(at),
        "error_x": error_bar([line.end for line in lines], [line.low for line in lines], [line.high for line in lines]),
        "marker": {
            "symbol": [line.style.symbol for line in lines],
            "color": [line.style.colour for line in lines],
            "size": 10,
        },
        "customdata": [[line.row, line.row] for line in lines],
        "meta": "hover",
    }


def _names(lines: Sequence[Line], at: Sequence[float], left: float) -> Spec:
    return {
        "type": "scatter",
        "mode": "text",
        "x": [left] * len(lines),
        "y": [height + 0.36 for height in at],
        "text": [plain(line.name) for line in lines],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": "@quiet"},
        "hoverinfo": "skip",
        "showlegend": False,
        "cliponaxis": False,
    }


def error_bar(values: Sequence[float], lows: Sequence[float | None], highs: Sequence[float | None]) -> Spec:
    """Plotly's asymmetric error bars of intervals; length 0 where there is none."""
    return {
        "type": "data",
        "symmetric": False,
        "thickness": 1.2,
        "width": 0,
        "color": "@quiet",
        "array": rounded([0.0 if h is None else max(0.0, h - v) for v, h in zip(values, highs, strict=True)]),
        "arrayminus": rounded([0.0 if low is None else max(0.0, v - low) for v, low in zip(values, lows, strict=True)]),
    }
