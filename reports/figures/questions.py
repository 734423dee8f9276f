"""Answers by type of question against a cost, with what blind dropping reaches at that cost drawn through.

The line joins the plain row and the rows whose tokens go at random or at even distances: what a method that looks at
its tokens has to beat. Each type of question has a view of its own, because a mean over types hides which one falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.canonical import BASELINE_METHOD
from bench.metrics import METRICS
from bench.store.record_parts import scored
from reports.figures.figure import SEPARATOR, Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.theme import Spec, Style, axis, layout, legend, plain, styles_of
from reports.numbers import scale_for, titled
from reports.rows import Row

ID = "questions"
#: Methods that decide nothing by what they see.
BLIND = (BASELINE_METHOD, "uniform", "random")
#: What may stand across: a metric and the part of a run that it is of.
COSTS = (("visual_tokens_mean", "prefill"), ("macs", "prefill"), ("macs_method", "prefill"), ("cache_bytes", "request"))
HOW = (
    "A mark per case, with the 95 % interval of its answers. The line joins the plain model and rows that keep tokens "
    "at random or evenly: a method has chosen well where its mark lies above it at the same cost."
)


def by_type(row: Row) -> Mapping[str, Mapping[str, float]]:
    """Percent of right answers (`value`, `low`, `high`, `n`) by type of question; empty where there is none."""
    details = (scored(row.record, "accuracy") or {}).get("details") or {}
    found = details.get("by_question")
    return found if isinstance(found, Mapping) else {}


def wanted(rows: Sequence[Row]) -> bool:
    """Whether two rows were asked by type."""
    return sum(bool(by_type(row)) for row in rows) >= 2


def blind_line(rows: Sequence[Row], kind: str, metric: str, part: str) -> list[tuple[float, float]]:
    """Cost and answers of rows that drop blindly, by cost; of several at one cost the best."""
    best: dict[float, float] = {}
    for row in rows:
        cost, answer = row.value(metric, part), by_type(row).get(kind)
        if row.case.method in BLIND and cost is not None and answer is not None:
            best[cost] = max(answer["value"], best.get(cost, 0.0))
    return sorted(best.items())


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of comparable rows: a view for each type of question and each cost."""
    styles = styles or styles_of(rows)
    asked = [row for row in rows if by_type(row)]
    kinds = tuple(dict.fromkeys(kind for row in asked for kind in by_type(row)))
    costs = [cost for cost in COSTS if sum(row.value(*cost) is not None for row in asked) > 1]
    if not kinds or not costs:
        return no_picture(id, "No answers by question", HOW, "fewer than two rows have answers by type and a cost")
    views = {
        SEPARATOR.join((kind, METRICS[metric].title)): _draw(asked, rows, kind, metric, part, styles)
        for kind in kinds
        for metric, part in costs
    }
    controls = (Control("Question", kinds), Control("Against", tuple(METRICS[metric].title for metric, _ in costs)))
    return Figure(id, _title(asked, kinds), HOW, _table(rows, kinds, costs), views, controls)


def _title(rows: Sequence[Row], kinds: Sequence[str]) -> str:
    """Which type loses most against the plain model, over all rows."""
    base = next((row for row in rows if row.case.is_baseline), None)
    if base is None:
        return f"Answers by question: {', '.join(kinds)}"
    loss = {}
    for kind in kinds:
        known = [by_type(row)[kind]["value"] for row in rows if row is not base and kind in by_type(row)]
        if known and kind in by_type(base):
            loss[kind] = by_type(base)[kind]["value"] - sum(known) / len(known)
    if not loss:
        return f"Answers by question: {', '.join(kinds)}"
    worst = max(loss, key=lambda kind: loss[kind])
    return f"Fewer tokens cost {worst} most: {significant(loss[worst])} points on average"


def _table(rows: Sequence[Row], kinds: Sequence[str], costs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """A line a row, in the order of the page: costs, and each type's answers with their interval."""
    lines = []
    for row in rows:
        line: dict[str, object] = {"model": row.case.model, "method": row.case.method_label}
        line |= {f"{metric} ({METRICS[metric].unit})": row.value(metric, part) for metric, part in costs}
        for kind in kinds:
            answer = by_type(row).get(kind, {})
            line |= {
                f"{kind} (%)": answer.get("value"),
                f"{kind} low": answer.get("low"),
                f"{kind} high": answer.get("high"),
            }
        lines.append(line)
    return table_of(lines)


def _draw(
    asked: Sequence[Row], rows: Sequence[Row], kind: str, metric: str, part: str, styles: Mapping[str, Style]
) -> Spec:  # fmt: skip
    """The blind line and a mark with its interval for each row."""
    known = [row for row in asked if row.value(metric, part) is not None and kind in by_type(row)]
    scale = scale_for([row.value(metric, part) or 0.0 for row in known], METRICS[metric].unit)
    line = blind_line(asked, kind, metric, part)
    traces: list[Spec] = [{
        "type": "scatter", "mode": "lines", "name": "blind dropping", "hoverinfo": "skip",
        "line": {"color": "@ink", "width": 1.5},
        "x": rounded([x / scale.factor for x, _ in line]), "y": rounded([y for _, y in line]),
    }]  # fmt: skip
    place = {(row.case_key, row.machine_key): index for index, row in enumerate(rows)}
    for family in dict.fromkeys(row.family for row in known):
        members = [row for row in known if row.family == family]
        answers = [by_type(row)[kind] for row in members]
        traces.append({
            "type": "scatter", "mode": "markers", "name": plain(members[0].legend),
            "x": rounded([(row.value(metric, part) or 0.0) / scale.factor for row in members]),
            "y": rounded([answer["value"] for answer in answers]),
            "error_y": {
                "type": "data", "symmetric": False, "thickness": 1, "color": styles[family].colour,
                "array": rounded([answer["high"] - answer["value"] for answer in answers]),
                "arrayminus": rounded([answer["value"] - answer["low"] for answer in answers]),
            },
            "marker": {"symbol": styles[family].symbol, "size": 11, "color": styles[family].colour},
            "customdata": [[place[(row.case_key, row.machine_key)]] for row in members],
            "hovertext": [
                f"<b>{plain(row.name)}</b><br>{plain(kind)} {significant(answer['value'], 4)} %"
                for row, answer in zip(members, answers, strict=True)
            ],
            "hoverinfo": "text",
        })  # fmt: skip
    across = axis(titled(METRICS[metric].title, scale.unit))
    upwards = axis(f"right answers to {plain(kind)} (%), higher is better")
    return {"data": traces, "layout": layout(xaxis=across, yaxis=upwards, height=420, legend=legend())}
