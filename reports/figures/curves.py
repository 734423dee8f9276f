"""Curves of a record: a quantity over an index (step, token, layer, rate), of the case and its other side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.metrics import METRICS
from bench.store.records import Record
from reports.figures.figure import Control, Figure, no_picture, rounded, significant
from reports.figures.theme import Spec, axis, layout, legend, log_axis, plain
from reports.numbers import Scale, quantity, scale_for, titled

ID = "curves"
HOW_TO_READ = (
    "A point per index, in order; nothing is averaged over them. Where the side that the case is compared with has the "
    "same curve, it is drawn in the colour of the text."
)
CASE, OTHER = "this case", "compared with"
#: Share of the largest value below which a curve needs a logarithmic axis to be read.
LOG_SPAN = 30.0


@dataclass(frozen=True)
class Pair:
    """One curve of a case and the same one of its other side, if that has it; both as a record holds them."""

    name: str
    own: Mapping[str, Any]
    other: Mapping[str, Any] | None


def pairs(record: Record, other: Record | None) -> list[Pair]:
    """The curves of a record with a value, each with the same one of the other side.

    Raises:
        ValueError: a record has two of one quantity, index and part.
    """
    own, others = _by_key(record), _by_key(other) if other is not None else {}
    return [Pair(_name(curve), curve, others.get(key)) for key, curve in own.items()]


def _by_key(record: Record) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    found: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for curve in record.get("curves") or []:
        key = (curve["metric"], curve["index"], curve.get("part", ""))
        if key in found:
            raise ValueError(f"two curves of {key}")
        if curve["metric"] in METRICS and any(value is not None for value in curve["values"]):
            found[key] = curve
    return found


def _name(curve: Mapping[str, Any]) -> str:
    part = f" of {curve['part']}" if curve.get("part") else ""
    return f"{METRICS[curve['metric']].title}{part} over {str(curve['index']).replace('_', ' ')}"


def figure(record: Record, other: Record | None = None, *, other_name: str = "baseline", id: str = ID) -> Figure:
    """The curves of a case beside those of its other side, a view each.

    Args:
        record: of the case.
        other: of the side that it is compared with, if it is there.
        other_name: what that is called.
        id: a stable slug, unique on the page.
    """
    found = pairs(record, other)
    table = curve_table(found, other_name)
    if not found:
        return no_picture(id, "No curves", HOW_TO_READ, "the workload records no quantity over an index", table)
    first = {name: place for place, name in reversed(list(enumerate(table["curve"])))}
    views = {pair.name: draw(pair, first[pair.name], other_name) for pair in found}
    control = (Control("Curve", tuple(views)),) if len(views) > 1 else ()
    shown = views if len(views) > 1 else {"": next(iter(views.values()))}
    return Figure(id, title(found[0]), HOW_TO_READ, table, shown, control, notes=notes(found))


def title(pair: Pair) -> str:
    """The finding of the first curve: where it begins and ends."""
    known = [(at, value) for at, value in zip(pair.own["at"], pair.own["values"], strict=True) if value is not None]
    (start, before), (end, after) = known[0], known[-1]
    unit = METRICS[pair.own["metric"]].unit
    if len(known) == 1:
        return f"{pair.name}: {quantity(before, unit)} at {start}"
    return f"{pair.name}: {quantity(before, unit)} at {start}, {quantity(after, unit)} at {end}"


def notes(found: Sequence[Pair]) -> tuple[str, ...]:
    """How each curve was taken, and points that are missing."""
    said = []
    for pair in found:
        missing = sum(value is None for value in pair.own["values"])
        text = "; ".join(filter(None, [str(pair.own.get("provenance", "")), str(pair.own.get("note") or "")]))
        said.append(
            f"{pair.name}: {text}"
            + (f"; {missing} of {len(pair.own['values'])} points have no value" if missing else "")
        )
    return tuple(dict.fromkeys(said))


def curve_table(found: Sequence[Pair], other_name: str) -> pd.DataFrame:
    """The numbers behind the figure, a row per point of the case's curves."""
    lines: list[dict[str, Any]] = []
    for pair in found:
        beside = {} if pair.other is None else dict(zip(pair.other["at"], pair.other["values"], strict=True))
        unit = METRICS[pair.own["metric"]].unit
        lines += [
            {"curve": pair.name, "at": at, "value": value, other_name: beside.get(at), "unit": unit}
            for at, value in zip(pair.own["at"], pair.own["values"], strict=True)
        ]
    table = pd.DataFrame(lines, columns=["curve", "at", "value", other_name, "unit"]).astype(object)
    return table.where(table.notna(), None)


def draw(pair: Pair, first: int, other_name: str) -> Spec:
    """Both sides of one curve; `first` is the table's row of its first point."""
    unit = METRICS[pair.own["metric"]].unit
    every = [
        value for curve in (pair.own, pair.other) if curve is not None for value in curve["values"] if value is not None
    ]
    scale = scale_for(every, unit)
    traces = [_trace(pair.own, CASE, "@blue", "circle", scale, first)]
    if pair.other is not None:
        traces.insert(0, _trace(pair.other, plain(other_name), "@ink", "circle-open", scale, None))
    name = titled(METRICS[pair.own["metric"]].title, scale.unit)
    drawn = [value / scale.factor for value in every]
    steep = min(drawn) > 0 and max(drawn) / min(drawn) > LOG_SPAN
    yaxis = log_axis(f"{name}, log", min(drawn), max(drawn)) if steep else axis(name, rangemode="tozero")
    words = all(isinstance(at, str) for at in pair.own["at"])
    xaxis = axis(plain(str(pair.own["index"]).replace("_", " ")), **({"type": "category"} if words else {}))
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=380, legend=legend())}


def _trace(curve: Mapping[str, Any], name: str, colour: str, symbol: str, scale: Scale, first: int | None) -> Spec:
    values = [None if value is None else value / scale.factor for value in curve["values"]]
    places = [None if first is None else first + place for place in range(len(values))]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [plain(at) if isinstance(at, str) else at for at in curve["at"]],
        "y": rounded(values),
        "connectgaps": False,
        "line": {"color": colour, "width": 1.8},
        "marker": {"symbol": symbol, "size": 6, "color": colour},
        "customdata": [[place] for place in places],
        "hovertext": [
            f"{name}<br>{plain(at)}: {significant(value)} {scale.unit}"
            for at, value in zip(curve["at"], values, strict=True)
        ],
        "hoverinfo": "text",
    }
