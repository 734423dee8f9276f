"""Live tensor bytes over the operators of a run, and the layers that hold them at the peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.plan.case import Case
from bench.store.records import Record
from reports.figures.figure import Figure, no_picture, percent, rounded
from reports.figures.theme import Spec, axis, layout, legend, plain
from reports.labels import case_label
from reports.numbers import quantity, scale_for

ID = "live-bytes"
HOW_TO_READ = (
    "From left to right the operators of one run in the order in which they ran, each point the largest sum of live "
    "bytes of its stretch; weights and inputs lie below everything. The table names the layers whose operators made "
    "the bytes that are alive at the peak."
)
#: Layers that the table names; the others hold less.
MOST = 40
#: Categories that are there all the time.
STANDING = ("weights", "buffers")


def figure(record: Record, id: str = ID) -> Figure:
    """The live bytes of a case; with a reason instead where its memory was not followed.

    Args:
        record: of the case.
        id: a stable slug, unique on the page.
    """
    memory: Mapping[str, Any] = record.get("memory") or {}
    label = case_label(Case.from_dict(record["case"]))
    if not memory.get("course"):
        why = "live tensors were not followed in this case"
        return no_picture(id, f"{label}: who holds the memory is not known", HOW_TO_READ, why)
    table = layer_table(memory)
    return Figure(id, title(label, memory, table), HOW_TO_READ, table, {"": draw(memory)}, notes=notes(memory, table))


def layer_table(memory: Mapping[str, Any]) -> pd.DataFrame:
    """Layers by what they hold at the peak, the largest first; in bytes."""
    rows = sorted(memory.get("layers") or [], key=lambda row: -row["held_at_peak_bytes"])
    lines = [
        {
            "layer": row["module_path"] or "(outside every module)",
            "held at the peak (B)": row["held_at_peak_bytes"],
            "alive at most while it runs (B)": row["live_peak_bytes"],
            "kept for the backward (B)": row["saved_bytes"],
        }
        for row in rows[:MOST]
    ]
    table = pd.DataFrame(lines).astype(object)
    table = table.where(table.notna(), None)
    has_backward = any(row["saved_bytes"] is not None for row in rows)
    return table if has_backward or table.empty else table.drop(columns="kept for the backward (B)")


def title(label: str, memory: Mapping[str, Any], table: pd.DataFrame) -> str:
    """The finding: the peak, where it is reached, and the layer that holds most of what is not there all the time."""
    where = memory.get("peak_at")
    reached = f", reached in {where[1] or 'no named module'} ({where[0]})" if where else ", before the first operator"
    said = f"{label} needs {quantity(memory['peak_bytes'], 'B')} at once{reached}"
    movable = memory["peak_bytes"] - _standing(memory)
    top = None if table.empty else table.iloc[0]
    if top is None or not top["held at the peak (B)"] or movable <= 0:
        return said
    return f"{said}; {top['layer']} holds {percent(top['held at the peak (B)'] / movable)} of what comes and goes"


def notes(memory: Mapping[str, Any], table: pd.DataFrame) -> tuple[str, ...]:
    """What the peak is made of, how it was taken, and layers that are not named."""
    split = ", ".join(f"{name} {quantity(size, 'B')}" for name, size in memory["split"].items() if size)
    said = [f"at the peak: {split}"] if split else []
    if memory.get("method_note"):
        said.append(str(memory["method_note"]))
    more = len(memory.get("layers") or []) - len(table)
    if more > 0:
        said.append(f"{more} further layers hold less")
    return tuple(said)


def draw(memory: Mapping[str, Any]) -> Spec:
    """The course of the live bytes above those that are there all the time."""
    course = memory["course"]
    scale = scale_for(course["live_bytes"], "B")
    standing = _standing(memory)
    last = course["operators"][-1] + 1
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "live bytes",
        "x": [at + 1 for at in course["operators"]],
        "y": rounded([value / scale.factor for value in course["live_bytes"]]),
        "line": {"color": "@blue", "width": 1.8},
        "hovertext": _hover(course),
        "hoverinfo": "text",
        "customdata": [[None]] * len(course["operators"]),
    }
    floor = {
        "type": "scatter",
        "mode": "lines",
        "name": "weights and buffers",
        "x": [0, last],
        "y": rounded([standing / scale.factor] * 2),
        "line": {"color": "@grey", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
        "customdata": [[None], [None]],
    }
    return {
        "data": [floor, line],
        "layout": layout(
            xaxis=axis("operators of a run", range=[0, last]),
            yaxis=axis(f"live tensors ({scale.unit})", rangemode="tozero"),
            height=360,
            legend=legend(),
        ),
    }


def _hover(course: Mapping[str, Sequence[Any]]) -> list[str]:
    points = zip(course["operators"], course["live_bytes"], course["module_paths"], strict=True)
    return [
        f"<b>{plain(path or '(outside every module)')}</b><br>{quantity(value, 'B')}<br>operator {at + 1}"
        for at, value, path in points
    ]


def _standing(memory: Mapping[str, Any]) -> int:
    return sum(int(memory["split"].get(name, 0)) for name in STANDING)


__all__ = ["HOW_TO_READ", "ID", "draw", "figure", "layer_table", "notes", "title"]
