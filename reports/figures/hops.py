"""From which hop on a window is cheaper than a stream: time of an answer over the hop, one view per network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain
from reports.hops import HOPS, Course, table

ID = "hops"
HOW = (
    "What an answer costs who needs one only every so many steps. A stream takes every step in between (rising lines), "
    "a window is run once (level lines, dotted). They cross at the break-even hop: to its right recomputing is cheaper."
)


def figure(found: Sequence[Course], *, styles: Mapping[str, Style], id: str = ID) -> Figure:
    """The figure of `reports.hops.courses`."""
    head, lines = table(found)
    numbers = pd.DataFrame(lines, columns=head).astype(object)
    hover: list[str] = []
    views = {
        where: _draw([course for course in found if course.where == where], styles, hover)
        for where in dict.fromkeys(course.where for course in found)
    }
    if not views:
        return no_picture(id, "No break-even hop", HOW, "no stream was timed beside its window", numbers)
    control = Control("Network", tuple(views))
    return Figure(id, _title(found), HOW, numbers, views, (control,), hover=tuple(hover))


def _title(found: Sequence[Course]) -> str:
    """The finding: the stream that pays longest."""
    best = max(found, key=lambda course: course.break_even)
    if best.break_even <= 1:
        return "No stream is cheaper than running its window at every step"
    return f"{best.row.name} is cheaper than its window up to a hop of {best.break_even:.3g} steps"


def _draw(found: Sequence[Course], styles: Mapping[str, Style], hover: list[str]) -> Spec:
    traces, values = [], list[float]()
    for course in found:
        style = styles[course.row.family]
        rising = [course.cost(hop) for hop in HOPS]
        level = [course.clip_ms for _ in HOPS]
        for name, y, dash in ((course.row.name, rising, "solid"), (f"{course.row.name}: window", level, "dot")):
            start = len(hover)
            hover += [f"<b>{plain(name)}</b><br>hop {hop} · {ms:.3g} ms" for hop, ms in zip(HOPS, y, strict=True)]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": plain(name),
                    "x": list(HOPS),
                    "y": rounded(y),
                    "line": {"color": style.colour, "width": 1.6, "dash": dash},
                    "customdata": [[start + place] * 2 for place in range(len(HOPS))],
                    "meta": "hover",
                }
            )
        values += [*rising, course.clip_ms]
    ticks = {"tickvals": list(HOPS), "ticktext": [str(hop) for hop in HOPS]}
    xaxis = {**log_axis("steps from one answer to the next, log", HOPS[0], HOPS[-1]), **ticks}
    yaxis = log_axis("milliseconds of an answer, log", min(values), max(values))
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}
