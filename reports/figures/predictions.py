"""Predicted against measured time of held-out networks, one view a predictor, and the errors of all side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded, significant
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, axis, family_styles, layout, legend, log_axis, plain
from reports.predictions import Predictor, asked, table

ID = "predictions"
HOW = (
    "A mark is a network that the predictor did not learn from. On the line the prediction is right; between the "
    "dotted lines it is as right as measuring again would be. The first view has the error of every predictor beside "
    "that of measuring again: bars are 95 % intervals over networks."
)
ERRORS = "errors of all"


def figure(found: Sequence[Predictor], *, id: str = ID) -> Figure:
    """The figure of `reports.predictions.predictors`."""
    numbers = pd.DataFrame(table(found)[1], columns=table(found)[0]).astype(object)
    drawn = [one for one in found if one.clouds and one.error is not None]
    if not drawn:
        return no_picture(id, "Nothing was predicted", HOW, "no predictor was judged on measured times", numbers)
    hover: list[str] = []
    views = {ERRORS: _errors(drawn, hover)}
    for place, one in enumerate(drawn):
        views.setdefault(f"{one.name} ({asked(one)})", _against(one, place, hover))
    return Figure(id, title(drawn), HOW, numbers, views, (Control("Show", tuple(views)),), hover=tuple(hover))


def title(found: Sequence[Predictor]) -> str:
    """The finding: the smallest error within the family and on unseen ones, beside the ceiling."""
    parts = []
    for split, words in (("a", "on unseen networks of a family"), ("c", "on unseen families")):
        own = [one for one in found if _split(one) == split]
        if own:
            best = min(own, key=lambda one: one.error or 0.0)
            ceiling = "" if best.ceiling is None else f", measuring again {significant(best.ceiling, 2)} %"
            parts.append(f"{words} {plain(best.name)} errs by {significant(best.error, 2)} %{ceiling}")
    text = "; ".join(parts) or f"{len(found)} predictors of time"
    return text[:1].upper() + text[1:]


def _split(one: Predictor) -> str:
    details = one.row.record.get("workload") or {}
    return str(details.get("split", "")) if details.get("machine", "measured") == "measured" else ""


def _errors(found: Sequence[Predictor], hover: list[str]) -> Spec:
    """Mean errors along a logarithmic x, predictors along y, and the ceiling of each as a mark of its own."""
    styles = family_styles(["predictor", "measuring again"])
    names = [plain(f"{one.name} ({asked(one)})") for one in found]
    values = [one.error or 0.0 for one in found]
    cells = [one.row.cells["mape"] for one in found]
    start = len(hover)
    for one, name in zip(found, names, strict=True):
        regret, rank = one.row.value("top1_regret"), one.row.value("spearman")
        hover.append(
            f"<b>{name}</b><br>{significant(one.error)} % · Spearman {significant(rank)} · "
            f"regret {significant(regret)}x"
        )
    traces: list[Spec] = [{
        "type": "scatter", "mode": "markers", "name": "predictor", "x": rounded(values), "y": names,
        "error_x": error_bar(values, [cell.low for cell in cells], [cell.high for cell in cells]),
        "marker": {"symbol": styles["predictor"].symbol, "size": 9, "color": styles["predictor"].colour},
        "customdata": [[place, start + place] for place in range(len(found))], "meta": "hover",
    }]  # fmt: skip
    known = [(one.ceiling, name) for one, name in zip(found, names, strict=True) if one.ceiling]
    style = styles["measuring again"]
    traces.append({
        "type": "scatter", "mode": "markers", "name": "measuring again", "hoverinfo": "skip",
        "x": rounded([ceiling for ceiling, _ in known]), "y": [name for _, name in known],
        "marker": {"symbol": "line-ns-open", "size": 12, "color": style.colour},
    })  # fmt: skip
    ends = [value for value in [*values, *(ceiling for ceiling, _ in known)] if value > 0] or [1.0]
    xaxis = log_axis("mean relative error (%), log", min(ends), max(ends))
    yaxis = {**axis(""), "type": "category", "autorange": "reversed", "automargin": True}
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=140 + 26 * len(found), legend=legend())}


def _against(one: Predictor, place: int, hover: list[str]) -> Spec:
    """Predicted over measured milliseconds, families apart, with the line of equality and the band of the noise."""
    styles = family_styles(cloud.family for cloud in one.clouds)
    traces: list[Spec] = []
    for cloud in one.clouds:
        start = len(hover)
        pairs = list(zip(cloud.measured, cloud.predicted, strict=True))
        hover += [
            f"<b>{plain(cloud.family)}</b><br>{significant(y)} ms measured<br>{significant(p)} ms predicted"
            for y, p in pairs
        ]
        style = styles[cloud.family]
        traces.append({
            "type": "scatter", "mode": "markers", "name": plain(cloud.family),
            "x": rounded([y for y, _ in pairs]), "y": rounded([p if p > 0 else None for _, p in pairs]),
            "marker": {"symbol": style.symbol, "size": 7, "color": style.colour},
            "customdata": [[place, start + number] for number in range(len(pairs))], "meta": "hover",
        })  # fmt: skip
    every = [value for cloud in one.clouds for value in (*cloud.measured, *cloud.predicted) if value > 0] or [1.0]
    low, high = min(every), max(every)
    traces += [_line(low, high, factor, dash) for factor, dash in _lines(one)]
    return {
        "data": traces,
        "layout": layout(
            xaxis=log_axis("measured (ms), log", low, high),
            yaxis=log_axis("predicted (ms), log", low, high),
            height=460,
            legend=legend(),
        ),
    }


def _lines(one: Predictor) -> list[tuple[float, str]]:
    noise = (one.ceiling or 0.0) / 100
    return [(1.0, "solid"), *([(1 + noise, "dot"), (1 / (1 + noise), "dot")] if noise else [])]


def _line(low: float, high: float, factor: float, dash: str) -> Spec:
    return {
        "type": "scatter", "mode": "lines", "showlegend": False, "hoverinfo": "skip",
        "x": rounded([low, high]), "y": rounded([low * factor, high * factor]),
        "line": {"color": "@quiet", "width": 1, "dash": dash},
    }  # fmt: skip
