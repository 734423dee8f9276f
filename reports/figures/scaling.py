"""Scaling: how time, throughput and memory of a case grow with one number of its shape, all else being equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.metrics import METRICS
from reports.columns import column_key, column_of
from reports.figures.figure import SEPARATOR, Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain, styles_of
from reports.groups import AXES
from reports.numbers import Scale, scale_for, titled
from reports.rows import Cell, Row
from reports.words import unit_noun

ID = "scaling"
#: Why there is no picture where the numbers differ only between cases; such a figure is left out.
NOTHING = "no case was measured at two values of a number of its shape"
HOW_TO_READ = (
    "Each curve is one case with only the axis below changed; both axes are logarithmic, so a straight line is a power "
    "law, and time per {unit} that is flat over the batch means that nothing is gained by batching."
)
#: Axes that every workload may have; those of its own shape follow under their own names.
ACROSS = {"batch": "batch size", "resolution": "resolution (px)"}
SHOWN = (
    "latency_ms",
    *(name for name, metric in METRICS.items() if metric.section == "throughput"),
    "peak_memory_bytes",
    "energy_j",
    "cache_bytes",
    "state_bytes",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
#: Curves that are named one by one in the legend; with more, only methods are.
MOST_NAMES = 6


@dataclass(frozen=True)
class Curve:
    """A case at several values of one condition, in order; every other condition is equal."""

    row: Row
    across: str
    points: tuple[tuple[float, Row], ...]

    @property
    def name(self) -> str:
        """Model and method with setting."""
        return self.row.name


def axes_of(rows: Iterable[Row]) -> dict[str, str]:
    """Every number of a shape that rows have, and what it is called."""
    own = dict.fromkeys(name for row in rows for name, value in row.case.axes.items() if _is_number(value))
    return {**ACROSS, **{name: name.replace("_", " ") for name in own}}


def varied(rows: Sequence[Row]) -> bool:
    """Whether ranked rows differ in a number of their shape."""
    ranked = [row for row in rows if row.ranked]
    return any(len({row.case.full_shape.get(name) for row in ranked}) > 1 for name in axes_of(ranked))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def curves(rows: Sequence[Row], across: str) -> list[Curve]:
    """The cases that were measured at two or more values of `across`, a number of the shape."""
    fixed = [each for each in AXES if each.key not in (across, "shape")]
    groups: dict[tuple[object, ...], dict[float, Row]] = {}
    for row in rows:
        value = row.case.full_shape.get(across)
        if row.ranked and value and _is_number(value):
            rest = tuple(sorted((name, repr(own)) for name, own in row.case.axes.items() if name != across))
            groups.setdefault((row.name, rest, *(each.read(row) for each in fixed)), {})[float(value)] = row
    return [
        Curve(next(iter(members.values())), across, tuple(sorted(members.items(), key=lambda item: item[0])))
        for members in groups.values()
        if len(members) > 1
    ]


def per_sample(row: Row, metric: str) -> Cell | None:
    """A metric as it is compared over batches: latency per sample of the batch, everything else as it is."""
    cell = row.cells.get(metric)
    if cell is None or not cell.value:
        return None
    if not metric.startswith("latency_ms"):
        return cell
    value, low, high = (None if x is None else x / row.case.batch for x in (cell.value, cell.low, cell.high))
    return Cell(value, low, high, cell.n, cell.provenance, cell.note)


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The scaling figure of rows of any conditions: a view per varied condition and metric."""
    styles = styles or styles_of(rows)
    words, unit = axes_of(rows), unit_noun(rows)
    found = {across: curves(rows, across) for across in words}
    members = [(across, curve) for across, each in found.items() for curve in each]
    shown = _shown(members)
    table, position, hover = scaling_table(members, shown, words, unit)
    views = {}
    for across, each in found.items():
        for metric in shown:
            if any(len(_points(curve, metric)) > 1 for curve in each):
                spec = draw(
                    each,
                    words[across],
                    metric,
                    styles,
                    {row: at for (name, row), at in position.items() if name == across},
                    unit,
                )
                views[SEPARATOR.join((words[across], _title(metric, unit)))] = spec
    how = HOW_TO_READ.format(unit=unit)
    if not views:
        return no_picture(id, "No scaling", how, NOTHING, table)
    keys = [key.split(SEPARATOR) for key in views]
    controls = tuple(
        Control(name, tuple(dict.fromkeys(key[i] for key in keys))) for i, name in enumerate(("Over", "Metric"))
    )
    said = notes(found, words)
    return Figure(id, title(members, words, unit), how, table, views, controls, notes=said, hover=tuple(hover))


def _shown(members: Sequence[tuple[str, Curve]]) -> list[str]:
    """The metrics that any curve has, the latency of further parts behind that of the whole."""
    rows = [row for _, curve in members for _, row in curve.points]
    parts = dict.fromkeys(part for row in rows for part in row.parts)
    every = ("latency_ms", *(column_key("latency_ms", part) for part in parts), *SHOWN[1:])
    return [metric for metric in every if any(row.value(metric) is not None for row in rows)] or list(SHOWN[:1])


def _title(metric: str, unit: str) -> str:
    if not metric.startswith("latency_ms"):
        return column_of(metric).title
    part = column_of(metric).part
    return f"Latency per {unit}" + (f", {part}" if part else "")


def _points(curve: Curve, metric: str) -> list[tuple[float, Row, Cell]]:
    return [(x, row, cell) for x, row in curve.points if (cell := per_sample(row, metric)) is not None]


def title(members: Sequence[tuple[str, Curve]], words: Mapping[str, str], unit: str) -> str:
    """The finding: what the widest range does to the time per sample, for the case that it changes most."""
    best: tuple[float, str] | None = None
    for across, curve in members:
        points = _points(curve, "latency_ms")
        if len(points) > 1 and points[0][2].value and points[-1][2].value:
            ratio = points[-1][2].value / points[0][2].value
            change = max(ratio, 1 / ratio)
            what = "slower" if ratio > 1 else "faster"
            text = (
                f"{curve.name}: {significant(change, 2)}× {what} per {unit} from {across.replace('_', ' ')} "
                f"{points[0][0]:g} to {points[-1][0]:g}"
            )
            if best is None or change > best[0]:
                best = (change, text)
    return best[1] if best else "How the cases scale"


def notes(found: Mapping[str, Sequence[Curve]], words: Mapping[str, str]) -> tuple[str, ...]:
    """Which conditions do not vary, and whether the legend is shortened."""
    pixels = any(
        row.case.resolution is not None for each in found.values() for curve in each for _, row in curve.points
    )
    missing = [words[across] for across, each in found.items() if not each and (pixels or across != "resolution")]
    many = [words[across] for across, each in found.items() if len(each) > MOST_NAMES]
    return (
        *(f"no case was measured at two values of {name}" for name in missing),
        *(f"over {name} more than {MOST_NAMES} curves: the legend names methods, dashes are models" for name in many),
    )


def scaling_table(
    members: Sequence[tuple[str, Curve]], shown: Sequence[str], words: Mapping[str, str], unit: str
) -> tuple[pd.DataFrame, dict[tuple[str, int], int], list[str]]:
    """The numbers behind the figure, where each row stands in them by condition and identity, and the hover texts."""
    lines: list[dict[str, object]] = []
    position: dict[tuple[str, int], int] = {}
    hover: list[str] = []
    for across, curve in members:
        for x, row in curve.points:
            position[across, id(row)] = len(lines)
            cells = {metric: per_sample(row, metric) for metric in shown}
            lines.append(
                {
                    "model": row.case.model,
                    "method": row.case.method_label,
                    **beside(row),
                    "over": words[across],
                    "value": x,
                    "device": row.case.device,
                    "dtype": row.case.dtype,
                    **{
                        f"{_title(metric, unit)} ({column_of(metric).unit})": cell.value if cell else None
                        for metric, cell in cells.items()
                    },
                }
            )
            said = [f"{_title(metric, unit)} {_amount(cell, metric)}" for metric, cell in cells.items() if cell]
            hover.append(
                "<br>".join(
                    [
                        f"<b>{plain(row.name)}</b>",
                        f"{plain(words[across])} {x:g} · {plain(row.case.device)} · {plain(row.case.dtype)}",
                        *said,
                    ]
                )
            )
    return table_of(lines), position, hover


def _amount(cell: Cell, metric: str) -> str:
    scale = scale_for([cell.value or 0.0], column_of(metric).unit)
    value, low, high = (
        significant(None if x is None else x / scale.factor, 4) for x in (cell.value, cell.low, cell.high)
    )
    return f"{value}{'' if cell.low is None or cell.high is None else f' [{low}, {high}]'} {scale.unit}"


def _trace(
    points: Sequence[tuple[float, Row, Cell]], scale: Scale, style: Style, dash: str, position: Mapping[int, int]
) -> Spec:
    """One curve through its points, with intervals."""
    y = [(cell.value or 0.0) / scale.factor for *_, cell in points]
    ends = [[None if end is None else end / scale.factor for end in (cell.low, cell.high)] for *_, cell in points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [x for x, *_ in points],
        "y": rounded(y),
        "error_y": error_bar(y, [low for low, _ in ends], [high for _, high in ends]),
        "line": {"color": style.colour, "width": 1.6, "dash": dash},
        "marker": {"symbol": style.symbol, "size": 8, "color": style.colour},
        "customdata": [[position[id(row)]] * 2 for _, row, _ in points],
        "meta": "hover",
    }


def draw(
    found: Sequence[Curve],
    across: str,
    metric: str,
    styles: Mapping[str, Style],
    position: Mapping[int, int],
    unit: str,
) -> Spec:
    """A metric over one condition, both logarithmic."""
    usable = [(curve, points) for curve in found if len(points := _points(curve, metric)) > 1]
    values = [cell.value or 0.0 for _, points in usable for *_, cell in points]
    scale = scale_for(values, column_of(metric).unit)
    models = list(dict.fromkeys(curve.row.case.model for curve, _ in usable))
    named: set[str] = set()
    traces = []
    for curve, points in usable:
        name = curve.name if len(usable) <= MOST_NAMES else curve.row.family
        dash = DASHES[models.index(curve.row.case.model) % len(DASHES)]
        trace = _trace(points, scale, styles[curve.row.family], dash, position)
        traces.append({**trace, "name": plain(name), "legendgroup": name, "showlegend": name not in named})
        named.add(name)
    ticks = sorted({x for _, points in usable for x, *_ in points})
    xaxis = {
        **log_axis(f"{across}, log", min(ticks), max(ticks)),
        "tickvals": ticks,
        "ticktext": [f"{x:g}" for x in ticks],
    }
    yaxis = log_axis(
        f"{titled(_title(metric, unit), scale.unit)}, log", min(values) / scale.factor, max(values) / scale.factor
    )
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}
