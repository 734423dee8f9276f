"""What share of the zeros becomes time, over the sparsity: one line per kernel, one view per dense side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, axis, family_styles, layout, legend, plain
from reports.zeros import Line, table

ID = "zeros-to-time"
HOW = (
    "Each line is a kernel and what pruned for it. At 1 all of the zeros became time, at 0 none, below 0 the pruned "
    "network is slower than the dense one. Bars are 95 % intervals of the speed-up."
)


def figure(found: Sequence[Line], *, id: str = ID) -> Figure:
    """The figure of `reports.zeros.lines`."""
    head, rows = table(found)
    numbers = pd.DataFrame(rows, columns=head).astype(object)
    hover: list[str] = []
    views = {}
    for where in dict.fromkeys(line.where for line in found if line.is_course):
        views[where] = _draw([line for line in found if line.where == where], hover)
    if not views:
        return no_picture(id, "No share of zeros", HOW, "no kernel was measured at two sparsities", numbers)
    control = Control("Against", tuple(views))
    return Figure(id, _title(found), HOW, numbers, views, (control,), hover=tuple(hover))


def _title(found: Sequence[Line]) -> str:
    """The finding: the best share and where."""
    every = ((point.share.value, line.name, point.sparsity) for line in found for point in line.points)
    points = [(share, name, sparsity) for share, name, sparsity in every if share is not None]
    if not points:
        return "No share of the zeros could be measured"
    share, name, sparsity = max(points)
    if share <= 0:
        return "None of the zeros becomes time by any kernel that was measured"
    return f"At most {100 * share:.0f} % of the zeros becomes time: {name} at {100 * sparsity:.0f} % zero"


def _draw(found: Sequence[Line], hover: list[str]) -> Spec:
    traces = []
    styles = family_styles(line.name for line in found)
    for line in found:
        points = [point for point in line.points if point.share.value is not None]
        y = [point.share.value or 0.0 for point in points]
        start = len(hover)
        hover += [
            f"<b>{plain(line.name)}</b><br>{plain(point.row.name)}<br>{point.sparsity:.0%} zero · {value:.3g}"
            for point, value in zip(points, y, strict=True)
        ]
        style = styles[line.name]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(line.name),
                "x": rounded([point.sparsity for point in points]),
                "y": rounded(y),
                "error_y": error_bar(y, [p.share.low for p in points], [p.share.high for p in points]),
                "line": {"color": style.colour, "width": 1.6},
                "marker": {"symbol": style.symbol, "size": 8, "color": style.colour},
                "customdata": [[start + i] * 2 for i in range(len(points))],
                "meta": "hover",
            }
        )
    xaxis = axis("share of the dense products that is zero or gone", tickformat=".0%")
    yaxis = axis("share of the zeros that becomes time")
    marks = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": {"width": 1, "dash": "dot"}}
        for y in (0, 1)
    ]
    drawn = layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())
    return {"data": traces, "layout": {**drawn, "shapes": marks}}
