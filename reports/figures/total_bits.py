"""Quality against total bits: one line a format through the sizes of a family, and its law."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.metrics import METRICS
from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.theme import Spec, axis, family_styles, layout, legend, log_axis, plain
from reports.total_bits import Family, Line, table

ID = "total-bits"
HOW = (
    "Marks are sizes of a family in one number format, over all bits of their weights; the line through them is the "
    "law a + b bits^-c. At a budget the lowest line is the format to take: more weights of fewer bits, or fewer of "
    "more bits."
)
#: Places of a law that are drawn.
DRAWN = 24


def figure(found: Sequence[Family], *, id: str = ID) -> Figure:
    """The figure of `reports.total_bits.families`."""
    head, rows = table(found)
    numbers = pd.DataFrame(rows, columns=head).astype(object)
    if not found:
        return no_picture(id, "No law of bits", HOW, "no two formats were scored at three sizes of a family", numbers)
    hover: list[str] = []
    views, row = {}, 0
    for family in found:
        views[f"{family.name}: {METRICS[family.metric].title}"] = _draw(family, hover, row)
        row += len(family.lines)
    return Figure(id, title(found), HOW, numbers, views, (Control("Family", tuple(views)),), hover=tuple(hover))


def title(found: Sequence[Family]) -> str:
    """The finding: the format that is best at the most budgets, over all families."""
    names = [name for family in found for _, name, _ in family.best()]
    if not names:
        return "Quality against total bits; no two laws meet at a budget"
    best = max(dict.fromkeys(names), key=names.count)
    return f"{best} is best at {names.count(best)} of {len(names)} budgets of total bits"


def _draw(family: Family, hover: list[str], first: int) -> Spec:
    """The view of a family, whose lines stand in the table from row `first` on."""
    traces, styles = [], family_styles(line.name for line in family.lines)
    for row, line in enumerate(family.lines, first):
        style, start = styles[line.name], len(hover)
        hover += [f"<b>{plain(line.name)}</b><br>{bits:.4g} bits · {score:.4g}" for bits, score in line.points]
        if line.law is not None:
            at = _places(line)
            traces.append({
                "type": "scatter", "mode": "lines", "name": plain(line.name), "showlegend": False, "hoverinfo": "skip",
                "x": rounded(at), "y": rounded([line.law.at(bits) for bits in at]),
                "line": {"color": style.colour, "width": 1.6},
            })  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "markers", "name": plain(line.name),
            "x": rounded([bits for bits, _ in line.points]), "y": rounded([score for _, score in line.points]),
            "marker": {"symbol": style.symbol, "size": 9, "color": style.colour},
            "customdata": [[row, start + place] for place in range(len(line.points))], "meta": "hover",
        })  # fmt: skip
    every = [bits for line in family.lines for bits, _ in line.points]
    metric = METRICS[family.metric]
    xaxis = log_axis("total bits of the weights, log", min(every), max(every))
    yaxis = axis(f"{metric.title} ({metric.unit}), {metric.better} is better")
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=460, legend=legend())}


def _places(line: Line) -> list[float]:
    low, high = line.points[0][0], line.points[-1][0]
    return [low * (high / low) ** (place / (DRAWN - 1)) for place in range(DRAWN)]
