"""Which count does time follow? Times of networks against MACs, activations and parameters, with a line each.

A line through logarithms has a power (how fast time grows with the count), a correlation, and a typical factor by which
a network is off it; the networks are taken for a sample of those that are meant, so families should be mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.line_fit import LineFit, log_line
from bench.metrics import METRICS
from reports.figures.figure import Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain, styles_of
from reports.numbers import scale_for
from reports.rows import Row

ID = "predictors"
HOW_TO_READ = (
    "One mark a network, both axes logarithmic; the line is least squares through all of them. The closer the marks "
    "are to it, the better the count predicts the time; its slope is the power that time grows with."
)
PREDICTORS = ("activations", "macs", "params")
#: Networks that a line is drawn through at least.
LEAST = 4


@dataclass(frozen=True)
class Predicted:
    """One count with its line over the rows that have it."""

    metric: str
    rows: tuple[Row, ...]
    fit: LineFit

    @property
    def spoken(self) -> str:
        """The count's name inside a sentence."""
        text = METRICS[self.metric].title
        return text if text[1:2].isupper() else text[0].lower() + text[1:]


def wanted(rows: Sequence[Row]) -> bool:
    """Whether rows are of several networks, not of one with methods, so that a line over them says something."""
    return len({row.model for row in _usable(rows, "macs")}) >= LEAST and bool(predicted(rows))


def predicted(rows: Sequence[Row]) -> list[Predicted]:
    """Each count that differs between enough networks, the one that time follows most closely first."""
    found = []
    for metric in PREDICTORS:
        usable = _usable(rows, metric)
        values = [row.value(metric) or 0.0 for row in usable]
        if len(usable) >= LEAST and len(set(values)) > 1:
            found.append(
                Predicted(metric, tuple(usable), log_line(values, [row.value("latency_ms") or 0.0 for row in usable]))
            )
    return sorted(found, key=lambda each: -each.fit.correlation)


def _usable(rows: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in rows if row.ranked and row.value("latency_ms") and (row.value(metric) or 0) > 0]


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows that may be compared, a view for each count."""
    styles = styles or styles_of(rows)
    found = predicted(rows)
    table = predictor_table(rows)
    if not found:
        reason = f"fewer than {LEAST} networks have a time and a count that differs between them"
        return no_picture(id, "Nothing predicts the time", HOW_TO_READ, reason, table)
    views = {METRICS[each.metric].title: draw(each, styles, rows) for each in found}
    control = Control("Against", tuple(views))
    return Figure(id, title(found), HOW_TO_READ, table, views, (control,), notes=notes(found))


def title(found: Sequence[Predicted]) -> str:
    """The finding: what time follows most closely, and how the others do."""
    best, others = found[0], found[1:]
    text = f"Time follows {best.spoken} most closely (r = {significant(best.fit.correlation, 3)})"
    if others:
        text += ", " + ", ".join(f"{each.spoken} {significant(each.fit.correlation, 3)}" for each in others)
    return text


def notes(found: Sequence[Predicted]) -> tuple[str, ...]:
    """The numbers of each line, with their intervals."""
    return tuple(in_words(each) for each in found)


def in_words(each: Predicted) -> str:
    """A line's power, correlation and residual in a sentence."""
    fit = each.fit
    ends = ("no interval" if fit.correlation_low is None or fit.correlation_high is None
            else f"{significant(fit.correlation_low, 3)} to {significant(fit.correlation_high, 3)}")  # fmt: skip
    return (
        f"{METRICS[each.metric].title}: time grows with the power {significant(fit.power, 3)} "
        f"[{significant(fit.power_low, 3)}, {significant(fit.power_high, 3)}], "
        f"r {significant(fit.correlation, 3)} [{ends}], R² {significant(fit.determination, 3)}, "
        f"typically off by {significant(fit.residual, 3)}×, {fit.n} networks"
    )


def predictor_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Time and counts of every ranked row."""
    lines = [
        {
            "model": row.case.model_label, "method": row.case.method_label, **beside(row),
            "latency (ms)": row.value("latency_ms"),
            **{f"{METRICS[name].title} ({METRICS[name].unit})": row.value(name) for name in PREDICTORS},
        }
        for row in rows if row.ranked
    ]  # fmt: skip
    return table_of(lines)


def draw(each: Predicted, styles: Mapping[str, Style], rows: Sequence[Row]) -> Spec:
    """Time over one count, with its line."""
    order = [id(row) for row in rows if row.ranked]
    counts = [row.value(each.metric) or 0.0 for row in each.rows]
    cells = [row.cells["latency_ms"] for row in each.rows]
    across, up = scale_for(counts, METRICS[each.metric].unit), scale_for([cell.value or 0.0 for cell in cells], "ms")
    traces: list[Spec] = []
    for family in dict.fromkeys(row.family for row in each.rows):
        members = [
            (row, count, cell)
            for row, count, cell in zip(each.rows, counts, cells, strict=True)
            if row.family == family
        ]
        y = [(cell.value or 0.0) / up.factor for *_, cell in members]
        ends = [[None if end is None else end / up.factor for end in (cell.low, cell.high)] for *_, cell in members]
        traces.append({
            "type": "scatter", "mode": "markers", "name": plain(family),
            "x": rounded([count / across.factor for _, count, _ in members]),
            "y": rounded(y), "error_y": error_bar(y, [low for low, _ in ends], [high for _, high in ends]),
            "marker": {"symbol": styles[family].symbol, "size": 9, "color": styles[family].colour},
            "customdata": [[order.index(id(row))] for row, *_ in members],
            "hovertext": [_hover(row, each.metric) for row, *_ in members], "hoverinfo": "text",
        })  # fmt: skip
    ends_x = [min(counts), max(counts)]
    traces.append({
        "type": "scatter", "mode": "lines", "name": f"power {significant(each.fit.power, 3)}", "hoverinfo": "skip",
        "x": rounded([x / across.factor for x in ends_x]), "y": rounded([each.fit.at(x) / up.factor for x in ends_x]),
        "line": {"color": "@quiet", "width": 1.5, "dash": "dash"},
    })  # fmt: skip
    times = [(cell.value or 0.0) / up.factor for cell in cells]
    named = f"{METRICS[each.metric].title} ({across.unit}), log"
    xaxis = log_axis(named, min(counts) / across.factor, max(counts) / across.factor)
    yaxis = log_axis(f"Latency ({up.unit}), log", min(times), max(times))
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}


def _hover(row: Row, metric: str) -> str:
    scale = scale_for([row.value(metric) or 0.0], METRICS[metric].unit)
    count = (row.value(metric) or 0.0) / scale.factor
    time = significant(row.value("latency_ms"), 4)
    return f"<b>{plain(row.name)}</b><br>{significant(count, 4)} {scale.unit}<br>{time} ms"
