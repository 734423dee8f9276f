"""Time to the first token and per later token over the context, each with its roofline, one view per kind and batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain
from reports.waits import Waits, table

ID = "waiting"
HOW = (
    "Solid: what was waited for, with 95 % intervals. Dashed, in the same colour: what the roofline of this machine "
    "allows for the same work. The gap between the two is overhead, most of it Python where steps are short."
)


def figure(found: Sequence[Waits], *, styles: Mapping[str, Style], id: str = ID) -> Figure:
    """The figure of `reports.waits.waits`."""
    head, lines = table(found)
    numbers = pd.DataFrame(lines, columns=head).astype(object)
    if not found:
        return no_picture(id, "No waits over the context", HOW, "nothing was timed at two contexts", numbers)
    views, hover = {}, list[str]()
    for kind, batch in dict.fromkeys((one.kind, one.batch) for one in found):
        own = [one for one in found if (one.kind, one.batch) == (kind, batch)]
        views[f"{kind}, batch {batch}"] = _draw(own, styles, hover)
    return Figure(id, _title(found), HOW, numbers, views, (Control("Wait", tuple(views)),), hover=tuple(hover))


def _title(found: Sequence[Waits]) -> str:
    """The finding: the least and the most of a later token that the roofline explains."""
    later = [(point.explained, one, point) for one in found if one.kind == "later token" for point in one.points]
    known = sorted(((share, one, point) for share, one, point in later if share), key=lambda each: each[0])
    if not known:
        return f"{len(found)} courses of waits over the context"
    (low, *_), (high, one, point) = known[0], known[-1]
    where = f"{one.name} at context {point.context:g}, batch {one.batch}"
    return f"The roofline explains {100 * low:.0f} to {100 * high:.0f} % of a later token, most for {where}"


def _draw(found: Sequence[Waits], styles: Mapping[str, Style], hover: list[str]) -> Spec:
    traces, contexts, values = list[Spec](), set[float](), list[float]()
    for one in found:
        style, x = styles[one.family], [point.context for point in one.points]
        y = [point.took.value or 0.0 for point in one.points]
        start = len(hover)
        hover += [_hover(one, place) for place in range(len(x))]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(one.name),
                "x": x,
                "y": rounded(y),
                "error_y": error_bar(y, [p.took.low for p in one.points], [p.took.high for p in one.points]),
                "line": {"color": style.colour, "width": 1.6},
                "marker": {"symbol": style.symbol, "size": 8, "color": style.colour},
                "customdata": [[start + place] * 2 for place in range(len(x))],
                "meta": "hover",
            }
        )
        bounds = [(point.context, point.bound) for point in one.points if point.bound]
        if bounds:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": plain(f"{one.name}, roofline"),
                    "x": [context for context, _ in bounds],
                    "y": rounded([bound for _, bound in bounds]),
                    "line": {"color": style.colour, "width": 1.2, "dash": "dash"},
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        contexts |= set(x)
        values += [*y, *(bound for _, bound in bounds)]
    ticks = sorted(contexts)
    xaxis = {**log_axis("context, log", ticks[0], ticks[-1]), "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}
    yaxis = log_axis("ms, log", min(values), max(values))
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}


def _hover(one: Waits, place: int) -> str:
    point = one.points[place]
    share = "" if point.explained is None else f" · roofline {100 * point.explained:.0f} %"
    return f"<b>{plain(one.name)}</b><br>context {point.context:g} · {point.took.value:.3g} ms{share}"
