"""Score against mean payload of split networks: the rate-distortion curve, one view a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.metrics import METRICS
from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain
from reports.split_ways import Point

ID = "rate-distortion"
HOW = (
    "Bytes on the wire, encoded for real over held-out inputs, against the score of the same artefact with its 95 % "
    "interval; a line joins the settings of one method. Up and to the left is better."
)


def figure(found: Mapping[tuple[str, str], Sequence[Point]], *, styles: Mapping[str, Style], id: str = ID) -> Figure:
    """The figure of `reports.split_ways.payload_points`."""
    numbers = pd.DataFrame(
        [
            {
                "case": point.row.head,
                "of": network,
                "payload (B)": point.payload,
                METRICS[metric].title: point.score.value,
            }
            for (network, metric), points in found.items()
            for point in points
        ],
        dtype=object,
    )
    if not found:
        return no_picture(
            id, "No curve of payloads", HOW, "fewer than two payloads of one network were scored", numbers
        )
    hover: list[str] = []
    views = {network: _draw(points, metric, styles, hover) for (network, metric), points in found.items()}
    return Figure(id, _title(found), HOW, numbers, views, (Control("Network", tuple(views)),), hover=tuple(hover))


def _title(found: Mapping[tuple[str, str], Sequence[Point]]) -> str:
    """The finding: the smallest payload whose score's interval reaches the best score."""
    (network, metric), points = next(iter(found.items()))
    lower = METRICS[metric].better == "lower"
    best = min(points, key=lambda p: (p.score.value or 0.0) * (1 if lower else -1)).score.value or 0.0
    ends = [(point, point.score.low if lower else point.score.high) for point in points]
    reach = [point for point, end in ends if end is not None and (end <= best if lower else end >= best)]
    if not reach:
        return f"{network}: payload against {METRICS[metric].title.lower()}"
    first = reach[0]
    return f"{network}: {first.row.head} reaches the best score within its interval on {first.payload:.3g} bytes"


def _draw(points: Sequence[Point], metric: str, styles: Mapping[str, Style], hover: list[str]) -> Spec:
    traces = []
    for family in dict.fromkeys(point.row.family for point in points):
        own = [point for point in points if point.row.family == family]
        style, start = styles[family], len(hover)
        y = [point.score.value or 0.0 for point in own]
        hover += [
            f"<b>{plain(point.row.head)}</b><br>{point.payload:.4g} B · {value:.4g} {METRICS[metric].unit}"
            for point, value in zip(own, y, strict=True)
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(family),
                "x": rounded([point.payload for point in own]),
                "y": rounded(y),
                "error_y": error_bar(y, [point.score.low for point in own], [point.score.high for point in own]),
                "line": {"color": style.colour, "width": 1.4},
                "marker": {"symbol": style.symbol, "size": 8, "color": style.colour},
                "customdata": [[start + place] * 2 for place in range(len(own))],
                "meta": "hover",
            }
        )
    sizes = [point.payload for point in points]
    xaxis = log_axis("bytes of a payload, log", min(sizes), max(sizes))
    yaxis = axis(f"{METRICS[metric].title.lower()} ({METRICS[metric].unit})")
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}
