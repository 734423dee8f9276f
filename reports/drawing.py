"""Figures made ready for a page: inert JSON of the views, the table as text, and nothing that the page must trust."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from reports.figures.figure import Figure
from reports.numbers import MISSING, plain
from reports.safe import inert_json, script_data, without_paths

#: Rows of a figure's table that a page shows; the CSV has all.
TABLE_ROWS = 250
#: Those of them that stand in the page itself where its figures' data stand in a file beside it.
ROWS_OF_FILED = 20


#: Types that JSON takes as they are.
_PLAIN = frozenset({str, int, bool})


@dataclass(frozen=True)
class Drawing:
    """What the template needs of one figure; its data stand in the page, or in the `file` that scripts load."""

    id: str
    title: str
    how_to_read: str
    caption: str
    notes: tuple[str, ...]
    reason: str
    height: int | None
    head: list[str]
    lines: list[list[str]]
    total: int
    data: Markup
    file: str = ""


def filed(drawings: Iterable[Drawing], file: str) -> tuple[list[Drawing], str]:
    """The drawings with their data in a file of the site, loaded when one of them comes near, and the file's text.

    Rows of long tables go along: a page begins with the first of them.
    """
    listed = list(drawings)
    text = "".join(_script(drawing) for drawing in listed)
    return [
        replace(drawing, lines=drawing.lines[:ROWS_OF_FILED], data=Markup(""), file=file) for drawing in listed
    ], text


def _script(drawing: Drawing) -> str:
    """What `2_figures.js` takes by name: the data of a figure, and the rows of its table that its page lacks."""
    more = drawing.lines[ROWS_OF_FILED:]
    figure = f"waterlineData({inert_json(f'figure:{drawing.id}')}, {drawing.data});\n"
    return figure + (script_data(f"rows:{drawing.id}", more) if more else "")


def draw(figure: Figure, *, show_paths: bool = False) -> Drawing:
    """The figure as the template shows it; its views, controls and table go into one inert JSON block."""
    table = figure.table
    hide: Callable[[Any], Any] = (lambda value: value) if show_paths else without_paths
    lines: list[list[Any]] = table.to_numpy(dtype=object).tolist()
    head = [str(name) for name in table.columns]
    data = {
        "views": dict(figure.views),
        "hover": list(figure.hover),
        "controls": [[control.label, list(control.options)] for control in figure.controls],
        "head": head,
        "rows": [[_plain_json(value) for value in line] for line in lines],
    }
    if figure.links:
        data["links"] = list(figure.links)
    return Drawing(
        id=figure.id,
        title=hide(figure.title),
        how_to_read=figure.how_to_read,
        caption=figure.caption,
        notes=tuple(hide(note) for note in figure.notes),
        reason=hide(figure.reason),
        height=(figure.spec or {}).get("layout", {}).get("height") if figure.views else None,
        head=head,
        lines=[[hide(_shown(value)) for value in line] for line in lines[:TABLE_ROWS]],
        total=len(table),
        data=_compact(data, hide_paths=not show_paths),
    )


def _plain_json(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return (
        value.item() if hasattr(value, "item") else value if isinstance(value, (str, int, float, bool)) else str(value)
    )


def _shown(value: Any) -> str:
    value = _plain_json(value)
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or value == 0:
        return plain(value, 0)
    places = 3 - math.floor(math.log10(abs(value)))
    return plain(value, min(max(places, 0), 9))


def _compact(data: dict[str, Any], *, hide_paths: bool) -> Markup:
    """Inert JSON; specs are plain already, and only one that is not is taken apart for NaN and numpy types."""
    try:
        return inert_json(data, hide_paths=hide_paths)
    except (TypeError, ValueError):
        return inert_json(_finite(data), hide_paths=hide_paths)


def _finite(value: Any) -> Any:
    """Plain JSON types throughout: numpy scalars and arrays unpacked, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
