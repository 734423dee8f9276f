"""The Pareto figure with uncertainty: any two metrics of one comparable group, and how sure the front is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from bench.analysis.pareto import Candidate, Estimate, Objective, Placed, pareto, staircase
from bench.metrics import METRICS
from reports.figures.figure import Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain, styles_of
from reports.numbers import Scale, scale_for, titled
from reports.rows import Cell, Row
from reports.scores import scores_of

ID = "pareto"
HOW_TO_READ = (
    "Opacity is the probability of being on the front given the intervals; the line joins what is on it as points, "
    "whose numbers are in the table; a hollow mark is dominated: another case is better on both axes, with intervals "
    "that do not touch."
)
#: Metrics offered beside scores, those for the y axis first; a pair is drawn with the earlier one upwards.
OFFERED = (
    "latency_ms",
    "time_to_first_token_ms",
    "time_per_output_token_ms",
    "time_per_step_ms",
    "energy_j",
    "peak_memory_bytes",
    "cache_bytes",
    "state_bytes",
    "payload_bytes",
    "macs",
    "params",
    "size_bytes",
)
#: Pairs that are drawn at most: the first ones of those that have values.
MOST_PAIRS = 28
EVIDENCE = ("measured", "counted", "modelled", "estimated", "published")
EXACT = ("counted", "modelled")
DRAWS = 2000
#: Above this many rows only the first pair is drawn.
MANY_ROWS = 150
LOG_SPAN = 5.0


@dataclass(frozen=True)
class Standing:
    """A row with where it stands; `number` counts along the front from the best x, None off the front."""

    row: Row
    x: float
    y: float
    placed: Placed
    number: int | None


@dataclass(frozen=True)
class Front:
    """One pair of metrics: everyone's standing, the staircase in the metrics' units, who was left out and why."""

    x: str
    y: str
    standings: tuple[Standing, ...]
    corners: tuple[list[float], list[float]]
    left_out: tuple[str, ...]

    def members(self, standing: str) -> list[Standing]:
        """Rows of one standing, those on the front in the order of their numbers."""
        return sorted((s for s in self.standings if s.placed.standing == standing), key=lambda s: s.number or 0)


def front(rows: Sequence[Row], x: str, y: str) -> Front | None:
    """The standing of rows by two metrics; None if fewer than two rows have both with the same kind of evidence.

    Args:
        rows: of one comparable group.
        x: metric across.
        y: metric upwards.
    """
    kinds = {metric: _evidence(rows, metric) for metric in (x, y)}
    usable = [row for row in rows if row.ranked and all(_has(row, metric, kinds[metric]) for metric in (x, y))]
    if len(usable) < 2:
        return None
    objectives = [Objective(metric, "higher" if METRICS[metric].better == "higher" else "lower") for metric in (x, y)]
    candidates = [Candidate(row.name, tuple(_estimate(row.cells[m]) for m in (x, y))) for row in usable]
    placed = pareto(candidates, objectives, draws=DRAWS)
    points = [(candidate.estimates[0].value, candidate.estimates[1].value) for candidate in candidates]
    on_front = [i for i, place in enumerate(placed) if place.standing == "front"]
    ordered = sorted(on_front, key=lambda i: points[i][0] * (1 if objectives[0].better == "lower" else -1))
    numbers = {i: place + 1 for place, i in enumerate(ordered)}
    standings = [Standing(row, *points[i], placed[i], numbers.get(i)) for i, row in enumerate(usable)]
    used = {id(row) for row in usable}  # to compare rows is to compare all of their records
    out = [row.name for row in rows if id(row) not in used]
    corners = staircase(points, (objectives[0].better, objectives[1].better))
    return Front(x, y, tuple(standings), corners, tuple(out))


def _evidence(rows: Sequence[Row], metric: str) -> str | None:
    """The most direct kind of evidence that any row has for a metric; kinds are never mixed on one axis."""
    present = {row.cells[metric].provenance for row in rows if row.ranked and row.value(metric) is not None}
    return next((kind for kind in EVIDENCE if kind in present), None)


def _has(row: Row, metric: str, kind: str | None) -> bool:
    return row.value(metric) is not None and row.cells[metric].provenance == kind


def _estimate(cell: Cell) -> Estimate:
    value = float("nan") if cell.value is None else cell.value
    return Estimate(value, cell.low, cell.high, cell.n, exact=cell.provenance in EXACT)


def pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The (x, y) pairs worth offering: both metrics present and not the same number everywhere."""
    offered = (*scores_of(rows), *OFFERED)
    present = [metric for metric in offered if len({row.value(metric) for row in rows if row.ranked} - {None}) > 1]
    return [(x, y) for y, x in combinations(present, 2)][:MOST_PAIRS]


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The Pareto figure of rows that may be compared (one `reports.groups.Group`), a view per pair of metrics."""
    styles = styles or styles_of(rows)
    offered = pairs(rows)[: 1 if len(rows) > MANY_ROWS else None]
    fronts = [found for x, y in offered if (found := front(rows, x, y)) is not None]
    table = pareto_table(rows, fronts)
    if not fronts:
        reason = "fewer than two cases of this group have two metrics that differ between them"
        return no_picture(id, "No Pareto front", HOW_TO_READ, reason, table)
    position = {id_: place for place, id_ in enumerate(_key(row) for row in rows)}
    views = {pair_name(found): draw(found, styles, position) for found in fronts}
    control = Control("Metrics", tuple(views))
    return Figure(id, title(fronts[0]), HOW_TO_READ, table, views, (control,), notes=notes(fronts[0], len(rows)))


def _key(row: Row) -> tuple[str, str]:
    return row.case_key, row.machine_key


def pair_name(found: Front) -> str:
    """How a pair is called in the drop-down."""
    return f"{METRICS[found.y].title} against {_spoken(found.x)}"


def _spoken(metric: str) -> str:
    """The metric's title inside a sentence: lower case unless it is an abbreviation."""
    text = METRICS[metric].title.removesuffix(" (p50)")
    return text if text[1:2].isupper() else text[0].lower() + text[1:]


def title(found: Front) -> str:
    """The finding for the first pair: how many are on the front, how many may be, how many are dominated."""
    sure, maybe, beaten = (len(found.members(kind)) for kind in ("front", "plausible", "certified-dominated"))
    names = f"{_spoken(found.y)} and {_spoken(found.x)}"
    return (
        f"{sure} of {len(found.standings)} cases are on the front of {names}, {maybe} more may be, "
        f"{beaten} {'is' if beaten == 1 else 'are'} dominated"
    )


def notes(found: Front, rows: int) -> tuple[str, ...]:
    """Who is on the front, by number; who is left out; whether pairs were left out."""
    named = "; ".join(f"{s.number} {s.row.name}" for s in found.members("front")[:12])
    said = [f"on the front: {named}"]
    if found.left_out:
        said.append(
            f"{len(found.left_out)} of {rows} cases have no comparable value of both metrics: only in the table"
        )
    weak = sum(bool(s.placed.note) for s in found.standings)
    if weak:
        said.append(
            f"{weak} of {rows} cases have no interval or fewer than 3 replicates, so nothing certain is said about them"
        )
    if rows > MANY_ROWS:
        said.append(f"over {MANY_ROWS} cases: only one pair of metrics is drawn")
    return tuple(said)


def pareto_table(rows: Sequence[Row], fronts: Sequence[Front]) -> pd.DataFrame:
    """One row per case: metrics, standing on the first pair, and the front's probability for every pair."""
    metrics = list(dict.fromkeys(metric for found in fronts for metric in (found.y, found.x)))
    standing = [{_key(s.row): s for s in found.standings} for found in fronts]
    lines = []
    for row in rows:
        line: dict[str, object] = {"model": row.case.model, "method": row.case.method_label, **beside(row)}
        line |= {f"{metric} ({METRICS[metric].unit})": row.value(metric) for metric in metrics}
        first = standing[0].get(_key(row)) if standing else None
        if standing:
            line |= {
                "number on the front": first.number if first else None,
                "standing": first.placed.standing if first else row.status if not row.ranked else "no value",
                "dominated by": "; ".join(first.placed.dominated_by) if first else None,
                "for certain by": "; ".join(first.placed.certified_by) if first else None,
            }
        for found, known in zip(fronts, standing, strict=True):
            line[f"P(front): {found.y}, {found.x}"] = known[_key(row)].placed.p_front if _key(row) in known else None
        lines.append(line)
    return table_of(lines)


def draw(found: Front, styles: Mapping[str, Style], position: Mapping[tuple[str, str], int]) -> Spec:
    """The spec of one pair; `position` finds a case's row of the table."""
    scales = {metric: _scale(found, metric) for metric in (found.x, found.y)}
    families = dict.fromkeys(s.row.family for s in found.standings)
    traces = [_staircase(found, scales)]
    for family in families:
        members = [s for s in found.standings if s.row.family == family]
        traces.append(_points(found, members, styles[family], scales, position))
    traces.append(_numbers(found, scales))
    return {
        "data": traces,
        "layout": layout(
            xaxis=_axis(found, found.x, scales), yaxis=_axis(found, found.y, scales), height=460, legend=legend()
        ),
    }


def _values(found: Front, metric: str) -> list[float]:
    return [s.x if metric == found.x else s.y for s in found.standings]


def _scale(found: Front, metric: str) -> Scale:
    return scale_for(_values(found, metric), METRICS[metric].unit)


def _axis(found: Front, metric: str, scales: Mapping[str, Scale]) -> Spec:
    values = [value / scales[metric].factor for value in _values(found, metric)]
    definition = METRICS[metric]
    better = "higher" if definition.better == "higher" else "lower"
    name = f"{titled(definition.title, scales[metric].unit)}, {better} is better"
    if definition.unit != "%" and min(values) > 0 and max(values) / min(values) > LOG_SPAN:
        return log_axis(f"{name}, log", min(values), max(values))
    return axis(name)


def _staircase(found: Front, scales: Mapping[str, Scale]) -> Spec:
    xs, ys = found.corners
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "hoverinfo": "skip",
        "line": {"color": "@ink", "width": 1.5, "dash": "dot"},
        "x": rounded([x / scales[found.x].factor for x in xs]),
        "y": rounded([y / scales[found.y].factor for y in ys]),
    }


def opacity(p_front: float | None) -> float:
    """Opacity of a mark: 0.25 for surely off the front up to 1 for surely on it."""
    return round(0.25 + 0.75 * (p_front or 0.0), 3)


def _points(
    found: Front,
    members: Sequence[Standing],
    style: Style,
    scales: Mapping[str, Scale],
    position: Mapping[tuple[str, str], int],
) -> Spec:
    hollow = [s.placed.standing == "certified-dominated" for s in members]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(members[0].row.legend),
        "x": rounded([s.x / scales[found.x].factor for s in members]),
        "y": rounded([s.y / scales[found.y].factor for s in members]),
        "error_x": _bars(members, found.x, scales),
        "error_y": _bars(members, found.y, scales),
        "marker": {
            "symbol": [f"{style.symbol}-open" if bare else style.symbol for bare in hollow],
            "size": 11,
            "color": style.colour,
            "opacity": [
                max(opacity(s.placed.p_front), 0.6 if bare else 0) for s, bare in zip(members, hollow, strict=True)
            ],
            "line": {"width": 1.5, "color": style.colour},
        },
        "customdata": [[position[_key(s.row)]] for s in members],
        "hovertext": [hover_text(found, s, scales) for s in members],
        "hoverinfo": "text",
    }


def _bars(members: Sequence[Standing], metric: str, scales: Mapping[str, Scale]) -> Spec:
    factor = scales[metric].factor
    cells = [s.row.cells[metric] for s in members]
    scaled = [[None if v is None else v / factor for v in (c.value, c.low, c.high)] for c in cells]
    return error_bar([v or 0.0 for v, _, _ in scaled], [low for _, low, _ in scaled], [high for *_, high in scaled])


def _numbers(found: Front, scales: Mapping[str, Scale]) -> Spec:
    members = found.members("front")
    return {
        "type": "scatter",
        "mode": "text",
        "showlegend": False,
        "hoverinfo": "skip",
        "x": rounded([s.x / scales[found.x].factor for s in members]),
        "y": rounded([s.y / scales[found.y].factor for s in members]),
        "text": [f"{s.number}\u2002" for s in members],
        "textposition": "top left",
        "textfont": {"size": 12, "color": "@ink"},
    }


def hover_text(found: Front, standing: Standing, scales: Mapping[str, Scale]) -> str:
    """All of one case as plotly's pseudo-HTML: both values with intervals, its standing and who beats it."""
    placed = standing.placed
    lines = [f"<b>{plain(standing.row.name)}</b>"]
    for metric in (found.y, found.x):
        cell, scale = standing.row.cells[metric], scales[metric]
        lines.append(f"{METRICS[metric].title} {_with_interval(cell, scale)} ({plain(cell.provenance)})")
    lines.append(f"{placed.standing} · P(front) {significant(placed.p_front, 2)}")
    beaten = placed.certified_by or placed.dominated_by
    if beaten:
        lines.append(
            f"{'for certain ' if placed.certified_by else ''}dominated by {plain('; '.join(beaten[:3]))}"
            + (", ..." if len(beaten) > 3 else "")
        )
    return "<br>".join([*lines, *([placed.note] if placed.note else [])])


def _with_interval(cell: Cell, scale: Scale) -> str:
    value = significant(None if cell.value is None else cell.value / scale.factor, 4)
    if cell.low is None or cell.high is None:
        return f"{value} {scale.unit}"
    return (
        f"{value} [{significant(cell.low / scale.factor, 4)}, {significant(cell.high / scale.factor, 4)}] {scale.unit}"
    )
