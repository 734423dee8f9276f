"""Quality against the mean cost of an input, with the line of paths that are chosen at random.

Each curve is one trained network at several thresholds. The line joins its two ends, everyone at the first exit and
everyone at the last: what choosing between them by lot would give at every mean cost. A gate earns only what it has
above that line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.canonical import parse_settings, settings_text
from bench.metrics import METRICS
from reports.figures.figure import Figure, no_picture, rounded, significant, table_of
from reports.figures.theme import Spec, Style, axis, layout, legend, plain, styles_of
from reports.numbers import Scale, scale_for, titled
from reports.rows import Row
from reports.scores import score_of

ID = "routing"
COST, FIXED = "macs_mean", "macs"
#: Settings that move along one trained network's curve, that fix a path, and that choose who takes which.
THRESHOLDS = ("threshold", "k")
PATHS = ("exit", "heavy", "size")
GATES = ("gate", "execution", "policy")
#: The same as `THRESHOLDS` where the weights were not trained with it: a score to pass, or the price of products.
TRAINED_WITH = ("lam",)
HOW = (
    "A mark is a threshold of one trained network: its score, and an input's mean multiply-accumulates. The "
    "dashed line is what drawing the cheapest or the dearest path by lot gives at that mean cost: a mark on its better "
    "side knows who needs more."
)


@dataclass(frozen=True)
class Family:
    """One method on one model: operating points by cost, and the two ends of its line."""

    name: str
    points: tuple[tuple[Row, float, float], ...]
    ends: tuple[tuple[float, float], tuple[float, float]]

    def by_lot(self, cost: float) -> float | None:
        """The line's score at a cost; None outside its ends."""
        (x0, y0), (x1, y1) = self.ends
        if not x0 <= cost <= x1:
            return None
        return y0 if x1 == x0 else y0 + (cost - x0) / (x1 - x0) * (y1 - y0)


def cost_of(row: Row) -> float | None:
    """Mean products of an input: over inputs where they differ, else of the one cost that all of them have."""
    mean = row.value(COST)
    return row.value(FIXED) if mean is None else mean


def families(rows: Sequence[Row]) -> list[Family]:
    """Networks whose cost depends on the input at one threshold or more, with two ends to draw a line between.

    Rows of one curve differ in nothing but a threshold. Ends are rows with a fixed path and the same training, of the
    least and the largest cost; without two of them there is no line.
    """
    score = score_of(rows)
    curves: dict[tuple[str, str, str], list[tuple[Row, float, float]]] = {}
    fixed: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        value, cost = None if score is None else row.value(score), cost_of(row)
        if row.case.is_baseline or value is None or not cost:
            continue
        if row.value(COST) is None:
            fixed.setdefault(_key(row, (*THRESHOLDS, *PATHS, *GATES)), []).append((cost, value))
        else:
            curves.setdefault(_key(row, THRESHOLDS), []).append((row, cost, value))
    found = []
    for (model, method, rest), points in curves.items():
        ends = sorted(fixed.get(_key(points[0][0], (*THRESHOLDS, *PATHS, *GATES)), []))
        if len(ends) > 1 and ends[0][0] < ends[-1][0]:
            name = f"{method}({rest}) on {model}" if rest else f"{method} on {model}"
            found.append(Family(name, tuple(sorted(points, key=_by_cost)), (ends[0], ends[-1])))
    return found


def _key(row: Row, without: Sequence[str]) -> tuple[str, str, str]:
    """Model, method, and its settings but some, and but those of `TRAINED_WITH` that its weights do not depend on."""
    settings = parse_settings(row.case.setting or "")
    learned = (row.record.get("weights") or {}).get("method")
    free = [name for name in TRAINED_WITH if isinstance(learned, dict) and name not in learned]
    kept = settings_text({name: value for name, value in settings.items() if name not in (*without, *free)})
    return row.case.model_label, row.family, kept


def _by_cost(point: tuple[Row, float, float]) -> float:
    return point[1]


def wanted(rows: Sequence[Row]) -> bool:
    """Whether there is a curve with a line to beat."""
    return bool(families(rows))


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of comparable rows."""
    found, score = families(rows), score_of(rows)
    if not found or score is None:
        reason = "no network was scored at a threshold and at two fixed exits"
        return no_picture(id, "No line of random paths", HOW, reason)
    return Figure(id, _title(found, score), HOW, _table(found, score), {"": _draw(found, rows, score, styles)})


def _title(found: Sequence[Family], score: str) -> str:
    """How many thresholds are above the line, and by how much at most."""
    sign = 1 if METRICS[score].better == "higher" else -1
    points = [(value, family.by_lot(cost)) for family in found for _, cost, value in family.points]
    gains = [sign * (value - line) for value, line in points if line is not None]
    if not gains:
        return "No threshold's mean cost lies between the two ends of its line"
    above = sum(gain > 0 for gain in gains)
    said = f"{above} of {len(gains)} thresholds beat paths chosen at random at equal mean cost"
    return f"{said}; the most is {significant(max(gains), 2)} {METRICS[score].unit}" if above else said


def _table(found: Sequence[Family], score: str) -> pd.DataFrame:
    """A line a threshold: its cost and score, and the score of a random path of the same mean cost."""
    lines = [
        {
            "method": row.case.method_label,
            "model": row.case.model,
            f"{COST} ({METRICS[COST].unit})": cost,
            score: value,
            f"{score} of random paths at equal cost": family.by_lot(cost),
        }
        for family in found
        for row, cost, value in family.points
    ]
    return table_of(lines)


def _draw(found: Sequence[Family], rows: Sequence[Row], score: str, styles: Mapping[str, Style] | None) -> Spec:
    by_family = styles or styles_of(rows)
    everything = [cost for family in found for cost in (*(p[1] for p in family.points), *(e[0] for e in family.ends))]
    scale = scale_for(everything, METRICS[COST].unit)
    traces: list[Spec] = []
    first = 0  # of its lines in the table
    for family in found:
        style = by_family[family.points[0][0].family]
        traces += [_line(family, style, scale), _marks(family, first, score, style, scale)]
        first += len(family.points)
    across = axis(titled(METRICS[COST].title, scale.unit))
    upwards = axis(f"{METRICS[score].title} ({METRICS[score].unit}), {METRICS[score].better} is better")
    return {"data": traces, "layout": layout(xaxis=across, yaxis=upwards, height=420, legend=legend())}


def _line(family: Family, style: Style, scale: Scale) -> Spec:
    return {
        "type": "scatter", "mode": "lines", "name": f"{plain(family.name)}, by lot", "hoverinfo": "skip",
        "line": {"color": style.colour, "width": 1.5, "dash": "dash"},
        "x": rounded([x / scale.factor for x, _ in family.ends]), "y": rounded([y for _, y in family.ends]),
    }  # fmt: skip


def _marks(family: Family, first: int, score: str, style: Style, scale: Scale) -> Spec:
    return {
        "type": "scatter", "mode": "lines+markers", "name": plain(family.name),
        "x": rounded([cost / scale.factor for _, cost, _ in family.points]),
        "y": rounded([value for _, _, value in family.points]),
        "line": {"color": style.colour, "width": 1},
        "marker": {"symbol": style.symbol, "size": 10, "color": style.colour},
        "customdata": [[first + place] for place in range(len(family.points))],
        "hovertext": [
            f"<b>{plain(row.name)}</b><br>{METRICS[score].title} {significant(value, 4)}"
            for row, _, value in family.points
        ],
        "hoverinfo": "text",
    }  # fmt: skip
