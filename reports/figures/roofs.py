"""What rooflines share: the roofs of a machine's measured peaks, log-log axes, and dots below them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.figures.figure import rounded, significant
from reports.figures.theme import Spec, layout, legend, log_axis, plain

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
#: Least ends of the horizontal axis, in operations per byte, so that a slope and a ceiling can be seen.
LEAST, MOST = 0.25, 256.0


@dataclass(frozen=True)
class Dot:
    """One subject: operations per byte, op/s that it reached, its row of the table and its text on hover."""

    intensity: float
    speed: float
    row: int | None
    text: int
    kind: str = ""
    size: float = 9.0


def draw(
    dots: Sequence[Dot], peaks: Mapping[str, float], bandwidth: float | None, colours: Mapping[str, str], x_title: str
) -> Spec:
    """A log-log roofline: slope of the memory, a ceiling per dtype, dots by kind.

    Args:
        dots: what is drawn.
        peaks: op/s by dtype.
        bandwidth: B/s; None where it was not measured, then there is no slope.
        colours: colour role of each kind of dot, in the order of the legend.
        x_title: what the intensity is of.
    """
    left = min([LEAST, *(dot.intensity for dot in dots)])
    right = max([MOST, *(dot.intensity for dot in dots)])
    top = max([*peaks.values(), *(dot.speed for dot in dots)])
    low = min([top / 1e3, *(dot.speed for dot in dots)])
    traces: list[Spec | None] = [
        _roof(name, peak, bandwidth, left, right, low, DASHES[place % len(DASHES)])
        for place, (name, peak) in enumerate(sorted(peaks.items(), key=lambda item: -item[1]))
    ]
    traces += [_dots(kind, [dot for dot in dots if dot.kind == kind], colour) for kind, colour in colours.items()]
    return {
        "data": [trace for trace in traces if trace],
        "layout": layout(
            xaxis=log_axis(x_title, left, right),
            yaxis=log_axis("GFLOP/s, log", low / 1e9, top / 1e9),
            height=440,
            legend=legend(),
        ),
    }


def _roof(name: str, peak: float, bandwidth: float | None, left: float, right: float, low: float, dash: str) -> Spec:
    """From where the slope leaves the picture up to the ridge, and level from there."""
    x, y = [left, right], [peak, peak]
    text = f"{plain(name)} peak: {significant(peak / 1e9)} GFLOP/s"
    if bandwidth:
        ridge = peak / bandwidth
        start = max(left / 2, low / bandwidth / 2)
        x, y = [start, ridge, max(right, ridge)], [start * bandwidth, peak, peak]
        text += f"<br>memory: {significant(bandwidth / 1e9)} GB/s; ridge at {significant(ridge)} op/byte"
    return {
        "type": "scatter", "mode": "lines", "name": f"{plain(name)} roof", "x": rounded(x),
        "y": rounded([value / 1e9 for value in y]), "hoverinfo": "text", "hovertext": [text] * len(x),
        "line": {"color": "@waterline", "width": 2, "dash": dash},
    }  # fmt: skip


def _dots(kind: str, own: Sequence[Dot], colour: str) -> Spec | None:
    if not own:
        return None
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(kind),
        "x": rounded([dot.intensity for dot in own]),
        "y": rounded([dot.speed / 1e9 for dot in own]),
        "marker": {"color": colour, "opacity": 0.75, "size": rounded([dot.size for dot in own], 3)},
        "customdata": [[dot.row, dot.text] for dot in own],
        "meta": "hover",
    }


def size_of(share: float | None) -> float:
    """The diameter of a dot whose area follows a share of the time; 6 to 30 px."""
    return 6.0 + 24.0 * math.sqrt(max(0.0, min(share or 0.0, 1.0)))
