"""A request as a bar of its stages, one bar per case, with the interval of what lies outside the network."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.figures.figure import Figure, no_picture, rounded
from reports.figures.lines import error_bar
from reports.figures.theme import SERIES, Spec, axis, family_styles, layout, legend, plain
from reports.stages import MOST, Request, said, table

ID = "request-stages"
HOW = (
    "A bar is one request from arrival to answer; its pieces are the stages in their order, as shares of the time "
    "(ratios of sums). The mark shows the share outside the network with its 95 % interval over processes."
)
OUTSIDE = "outside the network"
#: Patterns of pieces whose colour has come before: the house has so many colours.
COLOURS, PATTERNS = len(SERIES), ("", "/", "x")


def figure(found: Sequence[Request], *, id: str = ID) -> Figure:
    """The figure of `reports.stages.requests`."""
    head, lines = table(found)
    numbers = pd.DataFrame(lines, columns=head).astype(object)
    if not found:
        return no_picture(id, "No stages", HOW, "no request was timed stage by stage", numbers)
    shown = list(found)[:MOST]
    hover: list[str] = []
    return Figure(id, _title(found), HOW, numbers, {"": _draw(shown, hover)}, (), hover=tuple(hover))


def _title(found: Sequence[Request]) -> str:
    """The finding: the range of what lies outside the network."""
    order = sorted(found, key=lambda one: one.outside.value or 0.0)
    low, high = order[0], order[-1]
    return (
        f"From {low.outside.value:.0f} % ({low.name}) to {high.outside.value:.0f} % ({high.name}) of a request lie "
        "outside the network"
    )


def _draw(found: Sequence[Request], hover: list[str]) -> Spec:
    names = [plain(one.name) for one in found]
    stages = list(dict.fromkeys(name for one in found for name, _ in one.stages))
    styles = family_styles(stages)
    looks = {stage: PATTERNS[place // COLOURS % len(PATTERNS)] for place, stage in enumerate(sorted(stages))}
    traces: list[Spec] = []
    for stage in stages:
        values = [dict(one.stages)[stage].value if stage in dict(one.stages) else None for one in found]
        start = len(hover)
        hover += [_hover(one, stage) for one in found]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(stage),
                "x": rounded(values),
                "y": names,
                "marker": _filled(styles[stage].colour, looks[stage]),
                "customdata": [[place, start + place] for place in range(len(found))],
                "meta": "hover",
            }
        )
    outside = [one.outside.value or 0.0 for one in found]
    start = len(hover)
    hover += [f"<b>{plain(one.name)}</b><br>{OUTSIDE} {plain(said(one.outside))}" for one in found]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": OUTSIDE,
            "x": rounded(outside),
            "y": names,
            "marker": {"symbol": "diamond", "size": 9, "color": "@ink"},
            "error_x": error_bar(outside, [one.outside.low for one in found], [one.outside.high for one in found]),
            "customdata": [[place, start + place] for place in range(len(found))],
            "meta": "hover",
        }
    )
    yaxis = {**axis(""), "type": "category", "autorange": "reversed", "automargin": True}
    return {
        "data": traces,
        "layout": layout(
            xaxis=axis("share of the request (%)", range=[0, 101]),
            yaxis=yaxis,
            height=170 + 30 * len(found),
            barmode="stack",
            legend=legend(traceorder="normal"),
        ),
    }


def _filled(colour: str, pattern: str) -> Spec:
    """A filling with its pattern; a pattern without a ground of its own would stand on nothing."""
    return {"color": colour, "pattern": {"shape": pattern, "bgcolor": colour, "fgcolor": "@paper"}}


def _hover(one: Request, stage: str) -> str:
    cell = dict(one.stages).get(stage)
    told = "absent" if cell is None else said(cell)
    return f"<b>{plain(one.name)}</b><br>{plain(stage)} {plain(told)}"
