"""Every entry of the cohorts: how much its processes vary, over the time that it takes; a line at a tenth."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.prediction_errors import REPEATS_WITHIN
from reports.figures.figure import Figure, no_picture, rounded, significant
from reports.figures.theme import Spec, Style, family_styles, layout, legend, log_axis, plain
from reports.repeats import Entry, Repeats, table

ID = "repeats"
HOW = (
    "A mark is one function, timed in every process by itself: how much its processes vary (standard deviation over "
    "mean) against how long it takes. Above the dashed line, a tenth, an entry is neither published nor used."
)
#: Per cent that a mark has at least on a logarithmic axis.
LEAST = 0.01


def figure(found: Sequence[Repeats], *, id: str = ID) -> Figure:
    """The figure of `reports.repeats.cohorts`."""
    head, lines = table(found)
    numbers = pd.DataFrame(lines, columns=head).astype(object)
    if not found:
        return no_picture(id, "Nothing was timed function by function", HOW, "no cohort has two processes", numbers)
    hover: list[str] = []
    return Figure(id, title(found), HOW, numbers, {"": draw(found, hover)}, hover=tuple(hover))


def title(found: Sequence[Repeats]) -> str:
    """The finding: how many entries repeat."""
    entries = [entry for one in found for entry in one.entries]
    kept = sum(entry.repeats for entry in entries)
    return f"{kept} of {len(entries)} entries repeat within {100 * REPEATS_WITHIN:g} % between processes"


def draw(found: Sequence[Repeats], hover: list[str]) -> Spec:
    """Per cent over milliseconds, models apart."""
    models = list(dict.fromkeys(one.row.case.model for one in found))
    styles = family_styles(models)
    traces = [_marks(model, found, styles[model], hover) for model in models]
    entries = [entry for one in found for entry in one.entries]
    times, spreads = [entry.ms for entry in entries], [_shown(entry) for entry in entries]
    limit = 100 * REPEATS_WITHIN
    traces.append({
        "type": "scatter", "mode": "lines", "name": f"{limit:g} %", "hoverinfo": "skip",
        "x": rounded([min(times), max(times)]), "y": [limit, limit],
        "line": {"color": "@quiet", "width": 1, "dash": "dash"},
    })  # fmt: skip
    xaxis = log_axis("time (ms), log", min(times), max(times))
    yaxis = log_axis("standard deviation over mean (%), log", min([*spreads, limit]), max([*spreads, limit]))
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}


def _marks(model: str, found: Sequence[Repeats], style: Style, hover: list[str]) -> Spec:
    """The entries of one model's cohorts."""
    start = len(hover)
    own = [(place, one) for place, one in enumerate(found) if one.row.case.model == model]
    entries = [(place, one, entry) for place, one in own for entry in one.entries]
    hover += [
        f"<b>{plain(entry.name)}</b><br>{plain(one.name)}<br>{significant(entry.ms)} ms · "
        f"{significant(100 * entry.deviation)} % between {one.processes} processes"
        for _, one, entry in entries
    ]
    return {
        "type": "scatter", "mode": "markers", "name": plain(model),
        "x": rounded([entry.ms for *_, entry in entries]), "y": rounded([_shown(entry) for *_, entry in entries]),
        "marker": {"symbol": style.symbol, "size": 7, "color": style.colour},
        "customdata": [[place, start + at] for at, (place, *_) in enumerate(entries)], "meta": "hover",
    }  # fmt: skip


def _shown(entry: Entry) -> float:
    return max(LEAST, 100 * entry.deviation)
