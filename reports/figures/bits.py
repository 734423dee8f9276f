"""Which bits become bytes and time: what a number format promises, what is stored, and what arrives, one line a case.

A group holds rows of one execution, so that formats that run are never beside those that are imitated; where the time
is the cost of a simulation the line ends at the bytes. A second view sets the score against all stored or promised bits
of the weights, which is the axis that formats of different width can be compared on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.labels import NO_SPEED, label_of
from reports.figures.figure import Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain, styles_of
from reports.rows import Row
from reports.scores import scores_of

ID = "bits"
HOW_TO_READ = (
    "Each line is one case over its baseline: bits that its format promises, bytes that are stored, time that arrives. "
    "A level line keeps its promise; a simulated case stores floats and has no time of its own."
)
STAGES = ("bits promised", "bytes stored", "time arrived")
RATIOS = "promised, stored, arrived"


def cases(rows: Sequence[Row]) -> list[Row]:
    """Ranked cases that declare bits and whose bytes can be compared."""
    return [row for row in rows if row.ranked and row.value("bits_ratio") and row.value("size_ratio")]


def ratios(row: Row) -> list[float | None]:
    """Bits promised, bytes stored, speed-up over the baseline; the last is None where the row claims no speed."""
    timed = str(label_of(row.record, "execution")) not in NO_SPEED
    return [row.value("bits_ratio"), row.value("size_ratio"), row.value("speedup") if timed else None]


def total_bits(row: Row) -> float | None:
    """Promised bits of all weights: nominal bits x parameters."""
    bits, count = row.value("nominal_bits"), row.value("params")
    return bits * count if bits and count else None


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows that may be compared (one `reports.groups.Group`)."""
    found, styles = cases(rows), styles or styles_of(rows)
    table = bits_table(found)
    if not found:
        reason = "no case of this group declares nominal bits beside a baseline"
        return no_picture(id, "No bits to compare", HOW_TO_READ, reason, table)
    views = {RATIOS: _lines(found, styles)}
    for score in scores_of(found):
        points = [row for row in found if row.value(score) is not None and total_bits(row)]
        if len(points) > 1:
            views[f"{score} over total bits"] = _scatter(points, score, styles, found)
    return Figure(id, title(found), HOW_TO_READ, table, views, (Control("View", tuple(views)),), notes=notes(found))


def title(found: Sequence[Row]) -> str:
    """The finding: of the case that promises most, how much is stored and how much arrives."""
    most = max(found, key=lambda row: row.value("bits_ratio") or 0.0)
    bits, size, time = ratios(most)
    arrived = "no time is claimed" if time is None else f"{significant(time)}x of time arrives"
    return f"{most.name} promises {significant(bits)}x, stores {significant(size)}x; {arrived}"


def notes(found: Sequence[Row]) -> tuple[str, ...]:
    """How many store less than they promise, and whether times are those of a simulation."""
    short = [row for row in found if (row.value("size_ratio") or 0) < 0.5 * (row.value("bits_ratio") or 0)]
    said = []
    if short:
        said.append(f"{len(short)} of {len(found)} save less than half of the bytes that their bits promise")
    if all(ratios(row)[2] is None for row in found):
        said.append("no speed is claimed here, so lines end at the bytes")
    return tuple(said)


def bits_table(found: Sequence[Row]) -> pd.DataFrame:
    """The numbers behind the figure."""
    lines = [
        {
            "model": row.case.model_label,
            "method": row.case.method_label,
            **beside(row),
            "execution": label_of(row.record, "execution"),
            "nominal bits": row.value("nominal_bits"),
            "stored bits": row.value("effective_bits"),
            **{f"{stage} (x)": value for stage, value in zip(STAGES, ratios(row), strict=True)},
            "total bits promised": total_bits(row),
            **{score: row.value(score) for score in scores_of(found)},
        }
        for row in found
    ]
    return table_of(lines)


def _lines(found: Sequence[Row], styles: Mapping[str, Style]) -> Spec:
    traces, values = [], [1.0]
    for place, row in enumerate(found):
        style, own = styles[row.family], ratios(row)
        values += [value for value in own if value]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(row.name),
                "x": list(STAGES),
                "y": rounded(own),
                "line": {"color": style.colour, "width": 1.6},
                "marker": {"symbol": style.symbol, "size": 8, "color": style.colour},
                "customdata": [[place]] * len(STAGES),
            }
        )
    yaxis = log_axis("over the baseline (x), log", min(values), max(values))
    xaxis = axis("from promise to time", type="category", categoryarray=list(STAGES))
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}


def _scatter(points: Sequence[Row], score: str, styles: Mapping[str, Style], found: Sequence[Row]) -> Spec:
    place = {id(row): index for index, row in enumerate(found)}
    traces = []
    for family in dict.fromkeys(row.family for row in points):
        own = sorted((row for row in points if row.family == family), key=lambda row: total_bits(row) or 0.0)
        style = styles[family]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(family),
                "x": rounded([total_bits(row) for row in own]),
                "y": rounded([row.value(score) for row in own]),
                "text": [plain(row.name) for row in own],
                "marker": {"symbol": style.symbol, "size": 9, "color": style.colour},
                "customdata": [[place[id(row)]] for row in own],
            }
        )
    across = [total_bits(row) or 1.0 for row in points]
    xaxis = log_axis("total bits promised, nominal bits x parameters, log", min(across), max(across))
    yaxis = axis(score)
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}
