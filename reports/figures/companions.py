"""Quality against cost with the plain sampler's own curve drawn through: the line that a method has to beat.

The curve joins the plain row and those that only take fewer steps. A method beats it where its score is better than
what the curve has at the same cost, read between two steps on a logarithmic axis of cost. A group of several plain
samplers has a curve for each, and a row is set beside that of the sampler that it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from bench.metrics import METRICS
from reports.figures.figure import Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain, styles_of
from reports.numbers import Scale, scale_for, titled
from reports.rows import Row
from reports.scores import score_of
from reports.sessions import cost_of

ID = "companions"
#: The method that only takes fewer steps.
COMPANION = "fewer_steps"
DASHES = ("solid", "dash", "dot", "dashdot")
COSTS = ("macs", "time_per_image_ms", "latency_ms")
HOW = (
    "The line is the plain sampler with fewer and fewer steps. A mark on its better side got more out of the same cost "
    "than leaving steps out does; a mark on the line or on the other side has shown nothing."
)


@dataclass(frozen=True)
class Against:
    """A row beside the curve: its cost and score, and the curve's score at that cost; None outside the curve."""

    row: Row
    cost: float
    score: float
    plain: float | None

    def beats(self, metric: str) -> bool | None:
        """Whether its score is better than the curve's."""
        if self.plain is None:
            return None
        return self.score > self.plain if METRICS[metric].better == "higher" else self.score < self.plain


def is_companion(row: Row) -> bool:
    """Whether a row is on the curve."""
    return row.case.is_baseline or row.case.method == COMPANION


def by_plain(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each plain sampler together, as they come: itself and what is compared with it."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        key = row.case_key if row.case.is_baseline else str(row.record.get("baseline_key"))
        found.setdefault(key, []).append(row)
    return list(found.values())


def wanted(rows: Sequence[Row]) -> bool:
    """Whether of one plain sampler a score and a curve of two points are there, and a row beside it."""
    return any(map(has_curve, by_plain(rows)))


def has_curve(rows: Sequence[Row]) -> bool:
    """The same of the rows of one plain sampler."""
    score = score_of(rows)
    if score is None:
        return False
    scored = [row for row in rows if row.value(score) is not None]
    return (
        sum(map(is_companion, scored)) >= 2
        and any(row.case.method == COMPANION for row in scored)
        and not all(map(is_companion, scored))
    )


def curve(rows: Sequence[Row], cost: str, score: str) -> list[tuple[float, float]]:
    """Cost and score of one plain sampler's rows on the curve, by cost; times of other sessions brought to its own."""
    plain_row = plain_of(rows)
    points = [(cost_of(row, plain_row, cost), row.value(score)) for row in rows if is_companion(row)]
    return sorted((x, y) for x, y in points if x is not None and y is not None and x > 0)


def plain_of(rows: Sequence[Row]) -> Row | None:
    """The plain sampler's own row, of the rows that are compared with it."""
    return next((row for row in rows if row.case.is_baseline), None)


def at(points: Sequence[tuple[float, float]], cost: float) -> float | None:
    """The curve's score at a cost, linear in the cost's logarithm; None outside it."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= cost <= x1:
            share = 0.0 if x1 == x0 else math.log(cost / x0) / math.log(x1 / x0)
            return y0 + share * (y1 - y0)
    return None


def beside(rows: Sequence[Row], cost: str, score: str) -> list[Against]:
    """Every other row beside the curve of its plain sampler."""
    found = []
    for own in by_plain(rows):
        points, plain_row = curve(own, cost, score), plain_of(own)
        for row in own:
            x, y = cost_of(row, plain_row, cost), row.value(score)
            if not is_companion(row) and x is not None and y is not None:
                found.append(Against(row, x, y, at(points, x)))
    return found


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of comparable rows, a view for every cost that the curve has two points of."""
    styles = styles or styles_of(rows)
    rows = [row for own in by_plain(rows) for row in own]  # as the table has them, whose lines the marks name
    score = score_of(rows)
    costs = [] if score is None else [cost for cost in COSTS if curves(rows, cost, score)]
    if score is None or not costs:
        return no_picture(id, "No curve of fewer steps", HOW, "fewer than two rows of it have a score and a cost")
    numbers = _table(rows, costs, score)
    views = {METRICS[cost].title: _draw(rows, cost, score, styles) for cost in costs}
    return Figure(id, _title(beside(rows, costs[0], score), costs[0], score), HOW, numbers, views,
                  (Control("Cost", tuple(views)),))  # fmt: skip


def _title(found: Sequence[Against], cost: str, score: str) -> str:
    """The finding on the first cost."""
    known = [each for each in found if each.plain is not None]
    better = [each.row.name for each in known if each.beats(score)]
    said = f"{len(better)} of {len(known)} cases beat fewer steps at equal {METRICS[cost].title}"
    return said if not better else f"{said}: {', '.join(better[:3])}{' and more' if len(better) > 3 else ''}"


def _table(rows: Sequence[Row], costs: Sequence[str], score: str) -> pd.DataFrame:
    """A line a row: score, costs, and the curve's score at each cost."""
    lines = []
    for own in by_plain(rows):
        points, plain_row = {cost: curve(own, cost, score) for cost in costs}, plain_of(own)
        for row in own:
            line: dict[str, object] = {"model": row.case.model, "method": row.case.method_label}
            line[score] = row.value(score)
            for cost in costs:
                paid = cost_of(row, plain_row, cost)
                line[f"{cost} ({METRICS[cost].unit})"] = paid
                line[f"{score} of fewer steps at equal {cost}"] = None if paid is None else at(points[cost], paid)
            lines.append(line)
    return table_of(lines)


def curves(rows: Sequence[Row], cost: str, score: str) -> dict[str, list[tuple[float, float]]]:
    """Every plain sampler's curve of two points or more, by what a legend calls it."""
    made = {}
    for own in by_plain(rows):
        points = curve(own, cost, score)
        if len(points) > 1 and any(row.case.method == COMPANION for row in own):
            made[(plain_of(own) or own[0]).model] = points
    return {"fewer steps" if len(made) == 1 else f"fewer steps, {name}": points for name, points in made.items()}


def _draw(rows: Sequence[Row], cost: str, score: str, styles: Mapping[str, Style]) -> Spec:
    """The curves and a mark a row."""
    drawn = curves(rows, cost, score)
    scale = scale_for([x for points in drawn.values() for x, _ in points], METRICS[cost].unit)
    traces: list[Spec] = [{
        "type": "scatter", "mode": "lines", "name": plain(name), "hoverinfo": "skip",
        "line": {"color": "@ink", "width": 1.5, "dash": DASHES[place % len(DASHES)]},
        "x": rounded([x / scale.factor for x, _ in points]), "y": rounded([y for _, y in points]),
    } for place, (name, points) in enumerate(drawn.items())]  # fmt: skip
    for family in dict.fromkeys(row.family for row in rows):
        members = [row for row in rows if row.family == family]
        traces.append(_marks(members, rows, cost, score, styles[family], scale))
    values = [value / scale.factor for value in _paid(rows, cost).values() if value]
    better = "higher" if METRICS[score].better == "higher" else "lower"
    across = log_axis(f"{titled(METRICS[cost].title, scale.unit)}, log", min(values), max(values))
    upwards = axis(f"{METRICS[score].title} ({METRICS[score].unit}), {better} is better")
    return {"data": traces, "layout": layout(xaxis=across, yaxis=upwards, height=420, legend=legend())}


def _marks(members: Sequence[Row], rows: Sequence[Row], cost: str, score: str, style: Style, scale: Scale) -> Spec:
    known = [row for row in members if row.value(cost) is not None and row.value(score) is not None]
    position = {(row.case_key, row.machine_key): place for place, row in enumerate(rows)}
    paid = _paid(rows, cost)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(members[0].legend),
        "x": rounded([(paid[row.case_key, row.machine_key] or 0.0) / scale.factor for row in known]),
        "y": rounded([row.value(score) for row in known]),
        "marker": {"symbol": style.symbol, "size": 11, "color": style.colour},
        "customdata": [[position[(row.case_key, row.machine_key)]] for row in known],
        "hovertext": [
            f"<b>{plain(row.name)}</b><br>{METRICS[score].title} {significant(row.value(score), 4)}" for row in known
        ],
        "hoverinfo": "text",
    }


def _paid(rows: Sequence[Row], cost: str) -> dict[tuple[str, str], float | None]:
    """What every row costs, by its keys; times of other sessions brought to its plain sampler's."""
    return {(row.case_key, row.machine_key): cost_of(row, plain_of(own), cost) for own in by_plain(rows) for row in own}
