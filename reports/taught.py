"""Students beside their teachers and beside the same networks trained plainly: what a row is, and a table of them.

Which of the three a row is says the note that its weights, or its method's, were trained with: `role` is `teacher`,
`student` or `control`, the student's network that learned without the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.analysis.amortised import answers_until_it_pays
from bench.metrics import METRICS
from reports.content import Site
from reports.rows import Cell, Row
from reports.scores import scores_of
from reports.sessions import plain_latency

ROLES = ("teacher", "student", "control")


def role(row: Row) -> str:
    """Teacher, student or control; empty where the weights say nothing of it."""
    found = str(_notes(row).get("role", ""))
    return found if found in ROLES else ""


def training_seconds(row: Row) -> float | None:
    """What it took to get the weights, the teacher of a student included; None where it is not known."""
    found = _notes(row).get("seconds")
    return float(found) if isinstance(found, int | float) else None


def _notes(row: Row) -> Mapping[str, object]:
    """How the weights were trained: what a method learned comes after what the task did."""
    weights = row.record.get("weights") or {}
    of_method = weights.get("method")
    return {**weights, **of_method} if isinstance(of_method, Mapping) else weights


def is_taught(rows: Sequence[Row], score: str) -> bool:
    """Whether a student is there with a teacher or a control, each with that score."""
    found = {role(row) for row in rows if row.value(score) is not None}
    return "student" in found and bool(found & {"teacher", "control"})


def table(site: Site) -> tuple[list[str], list[list[str]]]:
    """Head and lines: of every group with a student its teacher, student and control, each with score and costs."""
    head = ["network", "is", "score", "latency (ms)", "MACs", "parameters", "training (s)", "paid after (answers)"]
    lines = []
    for group in site.groups:
        rows = [row for row in site.in_group(group.index) if role(row) and row.ranked]
        for score in scores_of(rows):
            if is_taught(rows, score):
                scored = [row for row in rows if row.value(score) is not None]
                lines += [_line(row, score, site) for row in sorted(scored, key=lambda row: ROLES.index(role(row)))]
    return head, lines


def _line(row: Row, score: str, site: Site) -> list[str]:
    seconds, metric = training_seconds(row), METRICS[score]
    return [
        row.name,
        role(row),
        f"{metric.title} {_said(row.cells.get(score), metric.unit)}",
        _said(row.cells.get("latency_ms")),
        _whole(row.value("macs")),
        _whole(row.value("params")),
        "unavailable" if seconds is None else f"{seconds:.3g}",
        _paid(row, site),
    ]


def _paid(row: Row, site: Site) -> str:
    """After how many answers a student's training is paid by what each saves against its other side."""
    base = site.baseline(row)
    seconds, own = training_seconds(row), row.value("latency_ms")
    other = plain_latency(row, base)
    if role(row) != "student" or seconds is None or own is None or other is None or other.value is None:
        return "-"
    speedup = row.cells.get("speedup")
    if speedup is not None and speedup.low is not None and speedup.low <= 1 <= (speedup.high or math.inf):
        return "unknown: not faster for certain"
    answers = answers_until_it_pays(seconds, other.value, own)
    return "never: it is no faster" if math.isinf(answers) else f"{answers:,.0f}"


def _said(cell: Cell | None, unit: str = "") -> str:
    """`96.9 % [95.8, 97.7]`."""
    if cell is None or cell.value is None:
        return "unavailable"
    value = f"{cell.value:.4g} {unit}".rstrip()
    return value if cell.low is None or cell.high is None else f"{value} [{cell.low:.4g}, {cell.high:.4g}]"


def _whole(value: float | None) -> str:
    return "unavailable" if value is None else f"{value:,.0f}"
