"""The student beside the teacher and the same student trained plainly: score against cost, with what teaching gave.

Which a row is says the note that its weights, or its method's, were trained with: `role` is `teacher`, `student` or
`control`, the student's network that learned without the teacher. Costs are those of the deployed artefact; seconds of
training stand in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.metrics import METRICS
from reports.columns import column_key
from reports.figures.figure import Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain, styles_of
from reports.numbers import scale_for, titled
from reports.rows import Row
from reports.scores import score_of
from reports.taught import is_taught, role, training_seconds

ID = "taught"
COSTS = ("latency_ms", "macs", "params")
ROLES = {"teacher": "square", "student": "circle", "control": "circle-open"}
HOW = (
    "A square is the teacher, a full circle a student, a hollow one the student's network trained without a teacher, "
    "each with its 95 % interval. The height between a full and a hollow circle is what teaching gave, the way to the "
    "left of the square what the student saves."
)


def wanted(rows: Sequence[Row]) -> bool:
    """Whether a student is there with a teacher or a control, each with a score."""
    score = score_of(rows)
    if score is None:
        return False
    return is_taught(rows, score)


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of comparable rows, a view for each cost that two of them have."""
    styles = styles or styles_of(rows)
    score = score_of(rows)
    known = [] if score is None else [row for row in rows if role(row) and row.value(score) is not None]
    costs = [cost for cost in COSTS if sum((row.value(cost) or 0) > 0 for row in known) > 1]
    if score is None or not costs:
        return no_picture(id, "No student beside a teacher", HOW, "fewer than two such rows have a score and a cost")
    views = {METRICS[cost].title: _draw(known, rows, cost, score, styles) for cost in costs}
    return Figure(id, _title(known, score), HOW, _table(rows, costs, score), views, (Control("Cost", tuple(views)),))


def best(rows: Sequence[Row], wanted_role: str, score: str) -> Row | None:
    """The row of a role with the best score."""
    sign = 1 if METRICS[score].better == "higher" else -1
    found = [row for row in rows if role(row) == wanted_role]
    return max(found, key=lambda row: sign * (row.value(score) or 0.0), default=None)


def _title(known: Sequence[Row], score: str) -> str:
    """The best student against the best teacher and the best control."""
    student = best(known, "student", score)
    if student is None:
        return f"No student has {METRICS[score].title}"
    said = [f"{student.model} has {significant(student.value(score), 3)} {METRICS[score].unit}"]
    for name, words in (("teacher", "its teacher"), ("control", "trained plainly")):
        other = best(known, name, score)
        if other is not None:
            said.append(f"{words} {significant(other.value(score), 3)}")
    return ", ".join(said)


def _table(rows: Sequence[Row], costs: Sequence[str], score: str) -> pd.DataFrame:
    """A line a row, in the order of the page: role, score with its interval, costs, seconds of training."""
    lines = []
    for row in rows:
        cell = row.cells.get(column_key(score))
        line: dict[str, object] = {"model": row.case.model_label, "role": role(row) or None, score: row.value(score)}
        line |= {"low": cell.low if cell else None, "high": cell.high if cell else None}
        line |= {f"{cost} ({METRICS[cost].unit})": row.value(cost) for cost in costs}
        lines.append({**line, "training (s)": training_seconds(row)})
    return table_of(lines)


def _draw(known: Sequence[Row], rows: Sequence[Row], cost: str, score: str, styles: Mapping[str, Style]) -> Spec:
    """A mark with its interval for each row, shaped by its role."""
    drawn = [row for row in known if (row.value(cost) or 0) > 0]
    scale = scale_for([row.value(cost) or 0.0 for row in drawn], METRICS[cost].unit)
    place = {(row.case_key, row.machine_key): index for index, row in enumerate(rows)}
    traces: list[Spec] = []
    for row in drawn:
        cell, value, style = row.cells[column_key(score)], row.value(score) or 0.0, styles[row.family]
        low, high = (value if end is None else end for end in (cell.low, cell.high))
        traces.append({
            "type": "scatter", "mode": "markers", "name": f"{role(row)}: {plain(row.model)}",
            "x": rounded([(row.value(cost) or 0.0) / scale.factor]), "y": rounded([value]),
            "error_y": {
                "type": "data", "symmetric": False, "thickness": 1, "color": style.colour,
                "array": rounded([high - value]), "arrayminus": rounded([value - low]),
            },
            "marker": {"symbol": ROLES[role(row)], "size": 12, "color": style.colour},
            "customdata": [[place[(row.case_key, row.machine_key)]]],
            "hovertext": [f"<b>{plain(row.name)}</b><br>{METRICS[score].title} {significant(value, 4)}"],
            "hoverinfo": "text",
        })  # fmt: skip
    values = [(row.value(cost) or 0.0) / scale.factor for row in drawn]
    better = METRICS[score].better
    across = log_axis(f"{titled(METRICS[cost].title, scale.unit)}, log", min(values), max(values))
    upwards = axis(f"{METRICS[score].title} ({METRICS[score].unit}), {better} is better")
    return {"data": traces, "layout": layout(xaxis=across, yaxis=upwards, height=420, legend=legend())}
