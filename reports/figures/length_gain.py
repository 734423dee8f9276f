"""From which length a method pays: the speed-up of a step or a call over the context or length, one view per batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain
from reports.lengths import Course, table

ID = "length-gain"
HOW = (
    "Each curve is one case against its other side with only the length changed; above the line at 1 it is faster. "
    "Bars are 95 % intervals. A method pays from the first length at which its bar is above the line there and at "
    "every longer one."
)


def figure(found: Sequence[Course], *, styles: Mapping[str, Style], id: str = ID) -> Figure:
    """The figure of `reports.lengths.courses`."""
    head, lines = table(found)
    numbers = pd.DataFrame(lines, columns=head).astype(object)
    views, hover = {}, list[str]()
    for axis, batch in dict.fromkeys((course.axis, course.batch) for course in found):
        own = [course for course in found if (course.axis, course.batch) == (axis, batch)]
        spec = _draw(own, axis, styles, hover)
        if spec is not None:
            views[f"{axis}, batch {batch}"] = spec
    if not views:
        return no_picture(id, "No gain over length", HOW, "no speed-up was measured at two lengths", numbers)
    control = Control("Over", tuple(views))
    return Figure(id, _title(found), HOW, numbers, views, (control,), hover=tuple(hover))


def _title(found: Sequence[Course]) -> str:
    """The finding: how many pay, and the one that does from the shortest length."""
    paying = [course for course in found if course.pays_from is not None]
    if not paying:
        return f"None of {len(found)} cases pays at a length that was measured"
    first = min(paying, key=lambda course: course.pays_from or 0.0)
    where = f"{first.axis} {first.pays_from:g} at batch {first.batch}"
    return f"{first.name} pays from {where}; {len(paying)} of {len(found)} cases pay"


def _draw(found: Sequence[Course], axis: str, styles: Mapping[str, Style], hover: list[str]) -> Spec | None:
    traces, lengths, values = [], set[float](), [1.0]
    for course in found:
        points = [(point, cell) for point in course.points if (cell := point.speedup) is not None and cell.value]
        if len(points) < 2:
            continue
        style = styles[course.family]
        y = [cell.value or 0.0 for _, cell in points]
        start = len(hover)
        hover += [
            f"<b>{plain(course.name)}</b><br>{plain(axis)} {point.length:g} · {cell.value:.3g}x"
            for point, cell in points
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(course.name),
                "x": [point.length for point, _ in points],
                "y": rounded(y),
                "error_y": error_bar(y, [cell.low for _, cell in points], [cell.high for _, cell in points]),
                "line": {"color": style.colour, "width": 1.6},
                "marker": {"symbol": style.symbol, "size": 8, "color": style.colour},
                "customdata": [[start + place] * 2 for place in range(len(points))],
                "meta": "hover",
            }
        )
        lengths |= {point.length for point, _ in points}
        values += y
    if not traces:
        return None
    ticks = sorted(lengths)
    xaxis = {**log_axis(f"{axis}, log", ticks[0], ticks[-1]), "tickvals": ticks, "ticktext": [f"{x:g}" for x in ticks]}
    yaxis = log_axis("speed-up over the other side, log", min(values), max(values))
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"width": 1, "dash": "dot"}}
    return {
        "data": traces,
        "layout": {**layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend()), "shapes": [line]},
    }
