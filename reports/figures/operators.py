"""What arrives of the machine: bare functions over their operations per byte, as a share of the bound that binds them.

A function of few operations per byte is bound by the bandwidth, one of many by the arithmetic (Williams et al. 2009,
"Roofline"). A function that is wrong by more than its tolerance has no time and no mark; it is named below, with its
error in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain, styles_of
from reports.rows import Cell, Row

ID = "operators"
HOW_TO_READ = (
    "Across: multiply-accumulates twice, over the bytes that go in and out once each; up: {what}. Two forms of one "
    "function stand above one another where they multiply alike."
)
VIEWS = {
    "share of the roofline": ("roofline_share", "Share of the roofline (%)"),
    "time": ("latency_ms", "Latency (ms)"),
    "buffers": ("workspace_bytes", "Workspace (B)"),
}
#: Metric of the record -> what the table's column is called.
COLUMNS = {
    "latency_ms": "latency (ms)", "macs": "MACs a sample", "io_bytes": "in and out (B)", "op_per_byte": "op/B",
    "op_per_byte_copied": "op/B, buffers included", "workspace_bytes": "workspace, measured (B)",
    "buffer_bytes": "workspace, stated (B)",
    "roofline_share": "share of the roofline (%)", "reference_error": "error (relative L2)", "iterations": "iterations",
}  # fmt: skip


def wanted(rows: Sequence[Row]) -> bool:
    """Whether there are bare functions among the rows with a time and bytes."""
    return any(row.value("io_bytes") and row.value("latency_ms") for row in rows if row.ranked)


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows of bare functions, a view for share, time and buffers."""
    styles = styles or styles_of(rows)
    own = [row for row in rows if row.case.workload == "operator"]
    table = operator_table(own)
    views = {name: draw(own, metric, label, styles) for name, (metric, label) in VIEWS.items() if _points(own, metric)}
    how = HOW_TO_READ.format(what="the larger of both bounds over the measured time")
    if not views:
        return no_picture(id, "No operators", how, "no function has products, bytes and a time", table)
    return Figure(id, title(own), how, table, views, (Control("Up", tuple(views)),), notes=notes(own))


def title(rows: Sequence[Row]) -> str:
    """The finding: the span of shares, or of times where no peak was measured."""
    shares = sorted(
        (row.value("roofline_share") or 0.0, row.name) for row in rows if row.ranked and row.value("roofline_share")
    )
    if len(shares) < 2:
        return f"{sum(row.ranked for row in rows)} bare functions over their operations per byte"
    (low, least), (high, most) = shares[0], shares[-1]
    return f"From {significant(low, 2)} % of the roofline ({least}) to {significant(high, 2)} % ({most})"


def notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """What failed, and which functions multiply nothing."""
    wrong = [f"{row.name}: {row.reason.splitlines()[0]}" for row in rows if not row.ranked and row.reason]
    without = [row.name for row in rows if row.ranked and not row.value("op_per_byte") and row.value("latency_ms")]
    said = [f"no time: {text}" for text in wrong[:6]]
    if without:
        named = [*without[:8], *(["..."] if len(without) > 8 else [])]
        said.append(f"no products, so that they stand in the table alone: {', '.join(named)}")
    return tuple(said)


def operator_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Correctness, time, bytes and share of every function, those that failed included."""
    lines = [
        {
            "function": row.case.model_label, **beside(row), "batch": row.case.batch, "dtype": row.case.dtype,
            "status": row.status,
            "form": _detail(row, "form"), "tolerance": _detail(row, "tolerance"),
            **{title: row.value(name) for name, title in COLUMNS.items()},
        }
        for row in rows
    ]  # fmt: skip
    return table_of(lines)


def _detail(row: Row, name: str) -> object:
    """What the workload noted of the function beside its readings."""
    facts = (row.record.get("workload") or {}).get("facts") if isinstance(row.record.get("workload"), dict) else None
    details = facts if isinstance(facts, dict) else row.record.get("workload")
    return details.get(name) if isinstance(details, dict) else None


def _points(rows: Sequence[Row], metric: str) -> list[tuple[Row, float, Cell]]:
    found = []
    for row in rows:
        across, cell = row.value("op_per_byte"), row.cells.get(metric)
        if row.ranked and across and cell is not None and cell.value:
            found.append((row, across, cell))
    return found


def draw(rows: Sequence[Row], metric: str, label: str, styles: Mapping[str, Style]) -> Spec:
    """One quantity over operations per byte, both logarithmic."""
    points, place = _points(rows, metric), {id(row): i for i, row in enumerate(rows)}
    traces = []
    for family in dict.fromkeys(row.family for row, *_ in points):
        members = [point for point in points if point[0].family == family]
        y = [cell.value or 0.0 for *_, cell in members]
        traces.append({
            "type": "scatter", "mode": "markers", "name": plain(family),
            "x": rounded([x for _, x, _ in members]), "y": rounded(y),
            "error_y": error_bar(y, [cell.low for *_, cell in members], [cell.high for *_, cell in members]),
            "marker": {"symbol": styles[family].symbol, "size": 9, "color": styles[family].colour},
            "customdata": [[place[id(row)]] for row, *_ in members],
            "hovertext": [_hover(row, x, cell, label) for row, x, cell in members],
            "hoverinfo": "text",
        })  # fmt: skip
    xs, ys = [x for _, x, _ in points], [cell.value or 0.0 for *_, cell in points]
    xaxis, yaxis = (
        log_axis("Operations per byte (op/B), log", min(xs), max(xs)),
        log_axis(f"{label}, log", min(ys), max(ys)),
    )
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend())}


def _hover(row: Row, across: float, cell: Cell, label: str) -> str:
    up = f"{significant(cell.value, 3)} {plain(label)}"
    return f"<b>{plain(row.name)}</b><br>{significant(across, 3)} op/B<br>{up}"
