"""The leaderboard as compact plain data for the page's script; Python decides digits, units, groups and ranks.

What stands at which place of a row and of a value is told by `rowFields` and `cellFields`, which the script reads its
places from (later parts of a value are left off when empty); a value can also be a number, which points to the reason
why there is none. Repeated text is stored once in `strings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.metrics import METRICS
from reports.columns import Column
from reports.groups import AXES, Group
from reports.numbers import Scale, decimals, half_width, scale_for, short
from reports.rows import Cell, Row
from reports.scores import score_of
from reports.words import run_noun

MARKS = {"measured": "m", "counted": "c", "modelled": "~", "estimated": "~", "published": "p"}
PROVENANCES = tuple(MARKS)
_PLACES = {name: place for place, name in enumerate(PROVENANCES)}
_NOT_TAKEN = "not taken for this case"
_NO_RANK = (None, None)


#: What a row of the payload holds, in order.
ROW_FIELDS = (
    "model", "method", "setting", "group", "status", "reason", "page", "cells", "flags", "pareto", "paretoNote",
    "head", "full", "under", "kind", "against",
)  # fmt: skip


class Value(NamedTuple):
    """What a value of the payload holds, in order."""

    value: float | int | None
    places: int
    provenance: int
    low: float | int | None
    high: float | int | None
    count: int | None  # type: ignore[assignment]  # the name of a column, and of a method of tuples
    note: int | None
    rankLow: int | None
    rankHigh: int | None


CELL_FIELDS = Value._fields


class Strings:
    """Text that repeats, stored once; `index(text)` gives its place."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._places: dict[str, int] = {}

    def index(self, text: str) -> int:
        """Where `text` stands in `all`."""
        if text not in self._places:
            self._places[text] = len(self.all)
            self.all.append(text)
        return self._places[text]


def _values(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, list[float]]:
    """The values that each column holds."""
    held: dict[str, list[float]] = {column.key: [] for column in columns}
    for row in rows:
        for key, cell in row.cells.items():
            if cell.value is not None and key in held:
                held[key].append(cell.value)
    return held


def payload(rows: Sequence[Row], groups: Sequence[Group], columns: Sequence[Column]) -> dict[str, Any]:
    """What the page's script needs to show, sort, filter and export the leaderboard."""
    strings, values = Strings(), _values(rows, columns)
    by_column = {column.key: scale_for(values[column.key], column.unit) for column in columns}
    floats = {column.key: by_column[column.key].factor for column in columns}
    places = {group.index: place for place, group in enumerate(groups)}
    members: dict[int, list[Row]] = {group.index: [] for group in groups}
    for row in rows:
        members[row.group].append(row)
    return {
        "columns": [_column(column, by_column[column.key], len(values[column.key]), len(rows)) for column in columns],
        "groups": [_group(group, members[group.index]) for group in groups],
        "axisTitles": [[axis.key, axis.title[0].upper() + axis.title[1:]] for axis in AXES],
        "provenances": [[name, MARKS[name]] for name in PROVENANCES],
        "rows": [_row(row, places[row.group], floats, strings) for row in rows],
        "rowFields": list(ROW_FIELDS),
        "cellFields": list(CELL_FIELDS),
        "strings": strings.all,
    }


def _column(column: Column, scale: Scale, known: int, rows: int) -> dict[str, Any]:
    """A column of so many rows, of which `known` have a value."""
    filled = known > 0
    usual = filled and (not column.part or 2 * known >= rows)  # of a part that few rows have, dashes fill the view
    return {
        "key": column.key,
        "title": column.title,
        "unit": scale.unit,
        "factor": scale.factor,
        "better": column.better,
        "section": column.section,
        "definition": column.definition,
        "show": column.default and usual,
        "raw": column.unit,
        "filled": filled,
    }


def _group(group: Group, rows: Sequence[Row]) -> dict[str, Any]:
    score = score_of(rows)
    return {
        "score": None
        if score is None
        else {"key": score, "title": _spoken(METRICS[score].title), "better": METRICS[score].better},
        "run": run_noun(rows),
        "title": group.title,
        "differs": list(group.differs),
        "machine": group.machine,
        "floor": list(group.noise_floor) if group.noise_floor else None,
        "parts": [group.parts[axis.key] for axis in AXES],
    }


def _spoken(title: str) -> str:
    """A title inside a sentence: lower case unless it begins with an abbreviation."""
    return title if title[1:2].isupper() else title[0].lower() + title[1:]


def _kind(row: Row) -> str:
    """What a row is to the others: `plain` (the model without a method), `other side` (named) or empty."""
    if row.is_other_side and row.by_model:
        return "other side"
    return "plain" if row.case.is_baseline and not row.by_model else ""


def _under(row: Row) -> str:
    """What stands below a row's name: its model, where that is not the name, and the side that it is compared with."""
    model = "" if row.by_model else row.model
    against = f"against {row.against}" if row.against else "baseline" if row.is_other_side and row.by_model else ""
    return " · ".join(filter(None, [model, against]))


def _row(row: Row, group: int, factors: dict[str, float], strings: Strings) -> list[Any]:
    """A row of the payload; `factors` are those of the columns, in their order."""
    case = row.case
    flags = [strings.index(str(flag.get("text") or flag.get("code"))) for flag in row.record.get("flags") or []]
    not_taken, cells, ranks = strings.index(_NOT_TAKEN), row.cells, row.rank
    fields = {
        "model": strings.index(row.model),
        "method": strings.index(case.method),
        "setting": strings.index(case.setting),
        "group": group,
        "page": row.page,
        "flags": flags,
        "status": strings.index(row.state),
        "reason": strings.index(row.contaminated or row.reason),
        "cells": [  # most rows lack most columns
            _cell(cells[key], factor, ranks.get(key, _NO_RANK), strings) if key in cells else not_taken
            for key, factor in factors.items()
        ],
        "pareto": strings.index(row.pareto),
        "paretoNote": strings.index(row.pareto_note),
        "head": strings.index(row.head),
        "full": strings.index(row.head_in_full),
        "under": strings.index(_under(row)),
        "kind": strings.index(_kind(row)),
        "against": strings.index(row.against),
    }
    return [fields[name] for name in ROW_FIELDS]


def _cell(cell: Cell, factor: float, rank: tuple[int | None, int | None], strings: Strings) -> Any:
    value, low, high, n, provenance, note = cell
    if value is None:
        return strings.index(note or "no reason was given")
    width = half_width(value, low, high)
    places = decimals(value / factor, None if width is None else width / factor)
    fields = list(
        Value(
            value if provenance == "counted" else short(value),
            places,
            _PLACES[provenance],
            short(low),
            short(high),
            n,
            strings.index(note) if note else None,
            *rank,
        )
    )
    while fields[-1] is None:
        fields.pop()
    return fields
