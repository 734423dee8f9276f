"""Trade-off curves: what each step of a method's setting costs and gains, or all methods over their MACs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.canonical import parse_settings
from bench.metrics import METRICS
from reports.figures.figure import SEPARATOR, Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import SERIES, SYMBOLS, Spec, Style, axis, layout, legend, log_axis, plain, styles_of
from reports.numbers import scale_for, titled
from reports.rows import Row
from reports.scores import score_of, scores_of

ID = "trade-off"
HOW_TO_READ = (
    "Each curve is one method on one model, a point per setting with its 95 % interval; the first choice puts "
    "everything on one axis of MACs kept, the others show a method's own setting, with the other side as a dashed "
    "line."
)
ALL = "all by MACs kept"
#: What is shown beside scores.
METRICS_SHOWN = ("latency_ms", "speedup", "macs", "peak_memory_bytes", "energy_j")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Family:
    """A method on a model at several settings: rows ordered by the one setting `knob` that varies, with its values."""

    model: str
    method: str
    knob: str
    strengths: tuple[float, ...]
    rows: tuple[Row, ...]


def shown_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The scores that these rows have, and the common costs."""
    return (*scores_of(rows), *METRICS_SHOWN)


def families(rows: Sequence[Row]) -> list[Family]:
    """Every method on every model that was run at two or more values of exactly one numeric setting."""
    groups: dict[tuple[str, str], list[tuple[dict[str, object], Row]]] = {}
    for row in rows:
        settings = _settings(row)
        if row.ranked and not row.by_model and not row.case.is_baseline and settings:
            groups.setdefault((row.case.model_label, row.family), []).append((settings, row))
    made = []
    for (model, method), members in groups.items():
        knob = _knob([settings for settings, _ in members])
        if knob is not None:
            ordered = sorted(((float(str(settings[knob])), row) for settings, row in members), key=lambda item: item[0])
            made.append(Family(model, method, knob, tuple(x for x, _ in ordered), tuple(row for _, row in ordered)))
    return made


def _settings(row: Row) -> dict[str, object]:
    try:
        return parse_settings(row.case.setting)
    except ValueError:
        return {}


def _knob(settings: Sequence[Mapping[str, object]]) -> str | None:
    """The only setting whose value differs, if it is a number everywhere."""
    varying = [name for name in settings[0] if len({repr(each.get(name)) for each in settings}) > 1]
    same_names = all(set(each) == set(settings[0]) for each in settings)
    if len(varying) != 1 or not same_names:
        return None
    numbers = [each[varying[0]] for each in settings]
    return varying[0] if all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) else None


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows that may be compared (one `reports.groups.Group`): a view per method and metric."""
    styles = styles or styles_of(rows)
    found = families(rows)
    table = tradeoff_table(rows, found)
    views: dict[str, Spec] = {}
    shown = shown_of(rows)
    for metric in shown:
        if metric != "macs" and (spec := against_macs(rows, metric, styles)):
            views[SEPARATOR.join((ALL, METRICS[metric].title))] = spec
    for method, knob in dict.fromkeys((family.method, family.knob) for family in found):
        members = [family for family in found if (family.method, family.knob) == (method, knob)]
        for metric in shown:
            if spec := against_setting(members, rows, metric):
                views[SEPARATOR.join((f"{method}: {knob}", METRICS[metric].title))] = spec
    if not views:
        reason = "no method of this group was run at two settings, and no two cases have MACs and another metric"
        return no_picture(id, "No trade-off curve", HOW_TO_READ, reason, table)
    keys = [key.split(SEPARATOR) for key in views]
    controls = tuple(
        Control(name, tuple(dict.fromkeys(key[i] for key in keys))) for i, name in enumerate(("Curves", "Metric"))
    )
    return Figure(
        id,
        title(found, rows),
        HOW_TO_READ,
        table,
        views,
        controls,
        notes=notes(rows, found),
        hover=tuple(hover_text(row, shown) for row in rows if row.ranked),
    )


def title(found: Sequence[Family], rows: Sequence[Row]) -> str:
    """The finding for the longest curve: what its strongest setting (fewest MACs) changes against its weakest."""
    if not found:
        score = score_of(rows)
        kept_of = f"{_spoken(METRICS[score].title)} and speed" if score else "speed"
        return (
            f"What each {'model' if all(row.by_model for row in rows) else 'method'} keeps of {kept_of} for the MACs "
            f"it saves ({len(rows)} cases)"
        )
    family = max(found, key=lambda each: len(each.rows))
    ends = [(family.strengths[i], family.rows[i]) for i in (0, -1)]
    (weak, first), (strong, last) = sorted(ends, key=lambda end: -(kept(end[1]) or 0.0))
    costs = ("macs", "latency_ms", *scores_of(rows))
    changes = [text for metric in costs if (text := _change(first, last, metric))]
    step = f"{family.knob} from {weak:g} to {strong:g}"
    return f"{family.method} on {family.model}, {step}: {', '.join(changes) or 'no common metric'}"


def _change(first: Row, last: Row, metric: str) -> str:
    before, after = first.value(metric), last.value(metric)
    if before is None or after is None:
        return ""
    name = _spoken(METRICS[metric].title.removesuffix(" (p50)"))
    if METRICS[metric].unit == "%":
        return f"{name} {after - before:+.1f} points".replace("-", "−")
    return f"{name} {100 * (after / before - 1):+.0f} %".replace("-", "−") if before else ""


def _spoken(title: str) -> str:
    return title if title[1:2].isupper() else title[0].lower() + title[1:]


def notes(rows: Sequence[Row], found: Sequence[Family]) -> tuple[str, ...]:
    """Which methods have no curve of their own."""
    single = sorted(
        {row.family for row in rows if row.ranked and not row.case.is_baseline and not row.by_model}
        - {f.method for f in found}
    )
    return (
        (f"no curve over a setting for {', '.join(single)}: it needs two values of exactly one numeric setting",)
        if single
        else ()
    )


def tradeoff_table(rows: Sequence[Row], found: Sequence[Family]) -> pd.DataFrame:
    """One row per rankable case: its setting's strength, the MACs it keeps and the metrics."""
    strength = {
        id(row): (family.knob, x) for family in found for x, row in zip(family.strengths, family.rows, strict=True)
    }
    lines = []
    for row in (row for row in rows if row.ranked):
        knob, value = strength.get(id(row), (None, None))
        line: dict[str, object] = {
            "model": row.case.model_label,
            "method": row.case.method_label,
            **beside(row),
            "setting": knob,
            "strength": value,
            "MACs kept (%)": kept(row),
        }
        line |= {f"{metric} ({METRICS[metric].unit})": row.value(metric) for metric in shown_of(rows)}
        lines.append(line)
    return table_of(lines)


def kept(row: Row) -> float | None:
    """MACs as a percentage of the baseline's; None where one of them is not known."""
    if row.case.is_baseline:
        return 100.0 if row.value("macs") else None
    ratio = row.value("mac_ratio")
    return 100.0 / ratio if ratio else None


def against_macs(rows: Sequence[Row], metric: str, styles: Mapping[str, Style]) -> Spec | None:
    """A metric over the MACs kept: a curve per method and model that starts at the side that it is compared with."""
    usable = [row for row in rows if row.ranked and kept(row) is not None and row.value(metric) is not None]
    baselines = {row.side.model_label: row for row in usable if row.case.is_baseline}
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in usable:
        if not row.case.is_baseline:
            curves.setdefault((row.side.model_label, row.family), []).append(row)
    if not curves:
        return None
    models = list(dict.fromkeys(row.side.model_label for row in usable))
    position = {id(row): i for i, row in enumerate(row for row in rows if row.ranked)}
    traces, named = [], set()
    for (model, method), members in curves.items():
        start = [baselines[model]] if model in baselines else []
        ordered = sorted([*members, *start], key=lambda row: kept(row) or 0.0)
        if ordered[0].case.is_baseline:
            ordered.reverse()  # a legend shows the first mark, which is to be the method's
        dash = DASHES[models.index(model) % len(DASHES)]
        traces.append(
            _curve(
                ordered,
                [kept(row) or 0.0 for row in ordered],
                metric,
                usable,
                position,
                styles[method],
                name=plain(members[0].legend),
                dash=dash,
                group=method,
                legend_entry=method not in named,
            )
        )
        named.add(method)
    traces.append(_model_names([baselines[model] for model in models if model in baselines], metric, usable))
    xaxis = axis("MACs kept (% of baseline), fewer to the right", autorange="reversed")
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=_y_axis(usable, metric), height=440, legend=legend())}


def _model_names(baselines: Sequence[Row], metric: str, usable: Sequence[Row]) -> Spec:
    """The model's name where its curves start."""
    factor = _factor(usable, metric)
    return {
        "type": "scatter",
        "mode": "text",
        "x": [100] * len(baselines),
        "y": rounded([(row.value(metric) or 0.0) / factor for row in baselines]),
        "text": [plain(row.case.model_label) for row in baselines],
        "textposition": "top right",
        "textfont": {"size": 11, "color": "@ink"},
        "hoverinfo": "skip",
        "showlegend": False,
        "cliponaxis": False,
    }


def against_setting(members: Sequence[Family], rows: Sequence[Row], metric: str) -> Spec | None:
    """A metric over one method's setting: a curve per model, and its baseline as a dashed line."""
    shown = [family for family in members if sum(row.value(metric) is not None for row in family.rows) > 1]
    if not shown:
        return None
    usable = [row for family in shown for row in family.rows if row.value(metric) is not None]
    base = {row.side.model_label: row.value(metric) for row in rows if row.ranked and row.case.is_baseline}
    if metric == "speedup":
        base = dict.fromkeys(base, 1.0)
    position = {id(row): i for i, row in enumerate(row for row in rows if row.ranked)}
    strengths = [x for family in shown for x in family.strengths]
    traces = []
    for place, family in enumerate(shown):
        points = [
            (x, row) for x, row in zip(family.strengths, family.rows, strict=True) if row.value(metric) is not None
        ]
        style = Style(SERIES[place % len(SERIES)], SYMBOLS[place % len(SYMBOLS)])
        traces.append(
            _curve(
                [row for _, row in points],
                [x for x, _ in points],
                metric,
                usable,
                position,
                style,
                name=plain(family.model),
                dash="solid",
                group=family.model,
                legend_entry=True,
            )
        )
        level = base.get(family.model)
        if level is not None:
            traces.append(_level(level / _factor(usable, metric), min(strengths), max(strengths), style, family.model))
    levels = [
        value for model, value in base.items() if value is not None and model in {family.model for family in shown}
    ]
    return {
        "data": traces,
        "layout": layout(
            xaxis=axis(plain(f"{shown[0].method}: {shown[0].knob}")),
            yaxis=_y_axis(usable, metric, levels),
            height=440,
            legend=legend(),
        ),
    }


def _factor(usable: Sequence[Row], metric: str) -> float:
    return scale_for([row.value(metric) or 0.0 for row in usable], METRICS[metric].unit).factor


def _y_axis(usable: Sequence[Row], metric: str, levels: Sequence[float] = ()) -> Spec:
    scale = scale_for([row.value(metric) or 0.0 for row in usable], METRICS[metric].unit)
    values = [(value or 0.0) / scale.factor for value in [*(row.value(metric) for row in usable), *levels]]
    name = titled(METRICS[metric].title, scale.unit)
    if METRICS[metric].section != "quality" and min(values) > 0 and max(values) / min(values) > 5:
        return log_axis(f"{name}, log", min(values), max(values))
    return axis(name)


def _curve(
    members: Sequence[Row],
    x: Sequence[float],
    metric: str,
    usable: Sequence[Row],
    position: Mapping[int, int],
    style: Style,
    *,
    name: str,
    dash: str,
    group: str,
    legend_entry: bool,
) -> Spec:
    factor = _factor(usable, metric)
    cells = [row.cells[metric] for row in members]
    y = [(cell.value or 0.0) / factor for cell in cells]
    ends: Callable[[float | None], float | None] = lambda end: None if end is None else end / factor  # noqa: E731
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": group,
        "showlegend": legend_entry,
        "x": rounded(x),
        "y": rounded(y),
        "line": {"color": style.colour, "width": 1.6, "dash": dash},
        "marker": {
            "symbol": [("circle" if row.case.is_baseline else style.symbol) for row in members],
            "size": 9,
            "color": ["@ink" if row.case.is_baseline else style.colour for row in members],
        },
        "error_y": error_bar(y, [ends(cell.low) for cell in cells], [ends(cell.high) for cell in cells]),
        "customdata": [[position[id(row)]] * 2 for row in members],
        "meta": "hover",
    }


def _level(value: float, left: float, right: float, style: Style, model: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [left, right],
        "y": rounded([value, value]),
        "hoverinfo": "text",
        "hovertext": [f"{plain(model)} · baseline: {significant(value)}"] * 2,
        "showlegend": False,
        "legendgroup": model,
        "line": {"color": style.colour, "width": 1.2, "dash": "dash"},
    }


def hover_text(row: Row, metrics: Sequence[str]) -> str:
    """All metrics of one case as plotly's pseudo-HTML."""
    shown = [(METRICS[metric], row.cells[metric]) for metric in metrics if row.value(metric) is not None]
    lines = [f"<b>{plain(row.name)}</b>", f"MACs kept {significant(kept(row))} %"]
    for metric, cell in shown:
        scale = scale_for([cell.value or 0.0], metric.unit)
        value, low, high = (
            significant(None if x is None else x / scale.factor, 4) for x in (cell.value, cell.low, cell.high)
        )
        interval = "" if cell.low is None or cell.high is None else f" [{low}, {high}]"
        lines.append(f"{metric.title} {value}{interval} {scale.unit} ({plain(cell.provenance)})")
    return "<br>".join(lines)
