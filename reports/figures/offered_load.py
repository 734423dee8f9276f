"""Percentiles of the time in system over the offered rate, and where the backlog grew; a view per case."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, axis, family_styles, layout, legend, log_axis, plain
from reports.offered import TIMES, Course, table

ID = "offered-load"
HOW = (
    "Requests arrive by themselves at the rate along x, whether or not the last is answered; times run from the "
    "scheduled arrival, with 95 % intervals over runs. A dotted line marks a rate at which the backlog grew: there "
    "are no times beyond it. What other work disturbed stands in the table alone."
)


def figure(found: Sequence[Course], *, id: str = ID) -> Figure:
    """The figure of `reports.offered.courses`."""
    head, lines = table(found)
    numbers = pd.DataFrame(lines, columns=head).astype(object)
    drawn = [one for one in found if any(point.times for point in one.sound)]
    if not drawn:
        return no_picture(id, "No offered loads", HOW, "no pipeline had times under arrivals", numbers)
    hover: list[str] = []
    views = {one.name: _draw(one, hover) for one in drawn}
    return Figure(id, _title(drawn), HOW, numbers, views, (Control("Case", tuple(views)),), hover=tuple(hover))


def _title(found: Sequence[Course]) -> str:
    """The finding: how far the tail is above the middle at the highest load that was kept."""
    best = None
    for one in found:
        for point in one.sound:
            middle, tail = point.times.get("p50"), point.times.get("p99") or point.times.get("p90")
            if (
                middle
                and tail
                and middle.value
                and tail.value
                and (best is None or tail.value / middle.value > best[0])
            ):
                best = (tail.value / middle.value, one.name, point)
    if best is None:
        return "Time in system over the offered load"
    ratio, name, point = best
    which = "99th" if "p99" in point.times else "90th"
    return f"The {which} percentile of {name} at {point.rate:.3g} requests per second is {ratio:.1f} times its median"


def _draw(one: Course, hover: list[str]) -> Spec:
    styles = family_styles(list(TIMES))
    traces, values = list[Spec](), list[float]()
    for name in TIMES:
        points = [(point.rate, point.times[name]) for point in one.sound if name in point.times]
        if not points:
            continue
        x, y = [rate for rate, _ in points], [cell.value or 0.0 for _, cell in points]
        start = len(hover)
        hover += [
            f"<b>{plain(one.name)}</b><br>{rate:.3g} requests/s · {name} {ms:.3g} ms"
            for rate, ms in zip(x, y, strict=True)
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": rounded(x),
                "y": rounded(y),
                "error_y": error_bar(y, [cell.low for _, cell in points], [cell.high for _, cell in points]),
                "line": {"color": styles[name].colour, "width": 1.6},
                "marker": {"symbol": styles[name].symbol, "size": 8, "color": styles[name].colour},
                "customdata": [[start + place] * 2 for place in range(len(points))],
                "meta": "hover",
            }
        )
        values += y
    rates = [point.rate for point in one.points]
    edges = [
        {"type": "line", "x0": rate, "x1": rate, "yref": "paper", "y0": 0, "y1": 1,
         "line": {"color": "@quiet", "width": 1.4, "dash": "dot"}}
        for rate in one.unstable
    ]  # fmt: skip
    xaxis = axis("offered requests per second", range=[0, 1.08 * max(rates)])
    yaxis = log_axis("ms in the system, log", min(values), max(values))
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend(), shapes=edges)}
