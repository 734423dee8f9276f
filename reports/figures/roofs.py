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
#: Letters of a name beside a dot; on a phone half of the picture has room for so many.
LONGEST_NAME = 20


@dataclass(frozen=True)
class Dot:
    """One subject: operations per byte, op/s that it reached, its row of the table and its text on hover.

    `name` is written beside it in a picture with names; empty for none.
    """

    intensity: float
    speed: float
    row: int | None
    text: int
    kind: str = ""
    size: float = 9.0
    name: str = ""


def draw(
    dots: Sequence[Dot],
    peaks: Mapping[str, float],
    bandwidth: float | None,
    colours: Mapping[str, str],
    x_title: str,
    *,
    named: bool = False,
) -> Spec:
    """A log-log roofline: slope of the memory, a ceiling per dtype, dots by kind.

    Args:
        dots: what is drawn.
        peaks: op/s by dtype.
        bandwidth: B/s; None where it was not measured, then there is no slope.
        colours: colour role of each kind of dot, in the order of the legend.
        x_title: what the intensity is of.
        named: dots have their names beside them.
    """
    left = min([LEAST, *(dot.intensity for dot in dots)])
    right = max([MOST, *(dot.intensity for dot in dots)])
    top = max([*peaks.values(), *(dot.speed for dot in dots)])
    low = min([top / 1e3, *(dot.speed for dot in dots)])
    traces: list[Spec] = [
        _roof(name, peak, bandwidth, left, right, low, DASHES[place % len(DASHES)])
        for place, (name, peak) in enumerate(sorted(peaks.items(), key=lambda item: -item[1]))
    ]
    kinds = {kind: [dot for dot in dots if dot.kind == kind] for kind in colours}
    traces += [_dots(kind, own, colours[kind]) for kind, own in kinds.items() if own]
    if named:
        traces.append(_names([dot for dot in dots if dot.name], math.sqrt(left * right)))
    return {
        "data": traces,
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


def _dots(kind: str, own: Sequence[Dot], colour: str) -> Spec:
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


def _names(own: Sequence[Dot], middle: float) -> Spec:
    """The names of dots, each towards the middle of the picture, so that none leaves it."""
    return {
        "type": "scatter", "mode": "markers+text", "showlegend": False, "hoverinfo": "skip",
        "x": rounded([dot.intensity for dot in own]),
        "y": rounded([dot.speed / 1e9 for dot in own]),
        "text": [plain(_cut(dot.name)) for dot in own],
        "textposition": ["middle left" if dot.intensity > middle else "middle right" for dot in own],
        # unseen marks keep the text off the dots
        "marker": {"color": "@none", "size": rounded([dot.size for dot in own], 3)},
        "textfont": {"size": 11, "color": "@ink"},
    }  # fmt: skip


def _cut(name: str) -> str:
    """The end of a long name, which tells it from others."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def size_of(share: float | None) -> float:
    """The diameter of a dot whose area follows a share of the time; 6 to 30 px."""
    return 6.0 + 24.0 * math.sqrt(max(0.0, min(share or 0.0, 1.0)))
