"""The leaderboard as compact plain data for the page's script; Python decides digits, units, groups and ranks.

Every value is `[value, decimals, provenance, low, high, n, note, rank_low, rank_high]` (later parts are left off when
empty), or a number that points to the reason why there is none. Repeated text is stored once in `strings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.foreign_text import shortened
from bench.metrics import METRICS
from reports.groups import AXES, Group
from reports.numbers import Scale, decimals, half_width, scale_for
from reports.rows import MOST_LETTERS, Cell, Column, Row

MARKS = {"measured": "m", "counted": "c", "modelled": "~", "estimated": "~", "published": "p"}
PROVENANCES = tuple(MARKS)


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


def scales(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Scale]:
    """How each column is shown, from the values that it holds."""
    return {
        column.key: scale_for(
            [cell.value for row in rows if (cell := row.cells.get(column.key)) and cell.value is not None], column.unit
        )
        for column in columns
    }


def payload(rows: Sequence[Row], groups: Sequence[Group], columns: Sequence[Column]) -> dict[str, Any]:
    """What the page's script needs to show, sort, filter and export the leaderboard."""
    strings, by_column = Strings(), scales(rows, columns)
    floats = {column.key: by_column[column.key].factor for column in columns}
    return {
        "columns": [_column(column, by_column[column.key], rows) for column in columns],
        "groups": [_group(group) for group in groups],
        "axisTitles": [[axis.key, axis.title[0].upper() + axis.title[1:]] for axis in AXES],
        "provenances": [[name, MARKS[name]] for name in PROVENANCES],
        "rows": [_row(row, columns, floats, strings) for row in rows],
        "strings": strings.all,
    }


def _column(column: Column, scale: Scale, rows: Sequence[Row]) -> dict[str, Any]:
    filled = any(row.value(column.key) is not None for row in rows)
    return {
        "key": column.key, "title": column.title, "unit": scale.unit, "factor": scale.factor, "better": column.better,
        "section": column.section, "definition": column.definition, "show": column.default and filled,
        "raw": METRICS[column.key].unit if column.key in METRICS else column.unit, "filled": filled,
    }  # fmt: skip


def _group(group: Group) -> dict[str, Any]:
    return {
        "title": group.title, "differs": list(group.differs), "machine": group.machine,
        "floor": list(group.noise_floor) if group.noise_floor else None,
        "parts": [group.parts[axis.key] for axis in AXES],
    }  # fmt: skip


def _row(row: Row, columns: Sequence[Column], factors: dict[str, float], strings: Strings) -> list[Any]:
    case = row.case
    model = shortened(f"{case.model}({case.model_settings})" if case.model_settings else case.model, MOST_LETTERS)
    flags = [strings.index(str(flag.get("text") or flag.get("code"))) for flag in row.record.get("flags") or []]
    return [
        strings.index(model), strings.index(case.method), strings.index(case.setting), row.group,
        strings.index("contaminated" if row.contaminated and row.status == "ok" else row.status),
        strings.index(row.contaminated or row.reason), row.page,
        [_cell(row, column, factors[column.key], strings) for column in columns],
        flags, strings.index(row.pareto), strings.index(row.pareto_note), strings.index(row.shown or row.case.method_label),
    ]  # fmt: skip


def _cell(row: Row, column: Column, factor: float, strings: Strings) -> Any:
    cell = row.cells.get(column.key)
    if cell is None:
        cell = Cell(None, note="not taken for this case")
    if cell.value is None:
        return strings.index(cell.note or "no reason was given")
    width = half_width(cell.value, cell.low, cell.high)
    places = decimals(cell.value / factor, None if width is None else width / factor)
    exact = cell.provenance == "counted"
    full = [
        cell.value if exact else _short(cell.value), places, PROVENANCES.index(cell.provenance), _short(cell.low), _short(cell.high), cell.n,
        strings.index(cell.note) if cell.note else None, *row.rank.get(column.key, (None, None)),
    ]  # fmt: skip
    while full[-1] is None:
        full.pop()
    return full


def _short(value: float | None) -> float | int | None:
    """Eight significant digits: more than any interval allows, fewer bytes than a double's repr."""
    if value is None:
        return None
    short = float(f"{value:.8g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
