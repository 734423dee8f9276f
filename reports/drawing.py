"""Figures made ready for a page: inert JSON of the views, the table as text, and nothing that the page must trust."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
from markupsafe import Markup

from reports.figures.figure import Figure
from reports.numbers import MISSING, plain, short
from reports.packing import packed
from reports.safe import inert_json, without_paths

#: Rows of a figure's table that stand in its page; scripts add the others from its data when the table is opened.
TABLE_ROWS = 20
#: What of a figure's data is its table.
_OF_TABLE = ("head", "rows", "fractions")


#: Types that JSON takes as they are.
_PLAIN = frozenset({str, int, bool})


@dataclass(frozen=True)
class Drawing:
    """What the template needs of one figure; its data stand in the page, or in the `file` that scripts load.

    Attributes:
        head, lines, total: the table's titles, its first rows as text, and how many rows it has.
        content: views, texts on hover, controls and the table, for the scripts.
        numbers_of: the figure of the same page whose table is this one's too; empty for one with a table of its own.
        file: where the data are; empty for the page itself.
        show_paths: keep paths of the machine.
    """

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
    content: dict[str, Any]
    numbers_of: str = ""
    file: str = ""
    show_paths: bool = False

    @cached_property
    def data(self) -> Markup:
        """The content as inert JSON, packed where it is long."""
        return packed(_compact(self.content, hide_paths=not self.show_paths))


def filed(drawings: Iterable[Drawing], file: str) -> tuple[list[Drawing], str]:
    """The drawings with their data in a file of the site, loaded when one of them comes near, and the file's text."""
    listed = list(drawings)
    return [replace(drawing, file=file) for drawing in listed], "".join(map(_script, listed))


def _script(drawing: Drawing) -> str:
    """What `2_figures.js` takes by name: the data of a figure."""
    return f"waterlineData({inert_json(f'figure:{drawing.id}')}, {drawing.data});\n"


def together(drawings: Iterable[Drawing]) -> list[Drawing]:
    """The drawings of one page; a table that an earlier one has, and its texts on hover, are told there alone."""
    made: list[Drawing] = []
    for drawing in drawings:
        earlier = next((one for one in made if not one.numbers_of and _same_table(one, drawing)), None)
        made.append(drawing if earlier is None else _beside(drawing, earlier))
    return made


def _same_table(one: Drawing, other: Drawing) -> bool:
    return one.total > 0 and all(one.content[part] == other.content[part] for part in _OF_TABLE)


def _beside(drawing: Drawing, earlier: Drawing) -> Drawing:
    """The drawing without what `earlier` has: of a text on hover its place there stands in its stead."""
    places = {text: place for place, text in enumerate(earlier.content["hover"])}
    content = {name: value for name, value in drawing.content.items() if name not in _OF_TABLE}
    content |= {"of": earlier.id, "hover": [places.get(text, text) for text in drawing.content["hover"]]}
    return replace(drawing, content=content, numbers_of=earlier.id, head=[], lines=[])


def draw(figure: Figure, *, show_paths: bool = False) -> Drawing:
    """The figure as the template shows it; its views, controls and table go into one inert JSON block."""
    table = figure.table
    hide: Callable[[Any], Any] = (lambda value: value) if show_paths else without_paths
    rows = [[_plain_json(value) for value in line] for line in table.to_numpy(dtype=object).tolist()]
    head, fractions = [str(name) for name in table.columns], _fractions(rows)
    content = {
        "views": dict(figure.views),
        "hover": list(figure.hover),
        "controls": [[control.label, list(control.options)] for control in figure.controls],
        "head": head,
        "rows": rows,
        "fractions": fractions,
    }
    if figure.links:
        content["links"] = list(figure.links)
    if figure.wide:
        content["wide"] = figure.wide
    return Drawing(
        id=figure.id,
        title=hide(figure.title),
        how_to_read=figure.how_to_read,
        caption=figure.caption,
        notes=tuple(hide(note) for note in figure.notes),
        reason=hide(figure.reason),
        height=(figure.spec or {}).get("layout", {}).get("height") if figure.views else None,
        head=head,
        lines=[[hide(shown(value, at in fractions)) for at, value in enumerate(line)] for line in rows[:TABLE_ROWS]],
        total=len(rows),
        content=content,
        show_paths=show_paths,
    )


def _plain_json(value: Any) -> Any:
    """A cell as JSON has it: None for what is not known, numbers with eight digits."""
    if type(value) in _PLAIN:
        return value
    if value is None or value is pd.NA:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return short(value) if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool)) else str(value)


def _fractions(rows: Sequence[Sequence[Any]]) -> list[int]:
    """The columns that have a number with a fraction: their numbers are shown with four digits, others whole."""
    return [at for at, column in enumerate(zip(*rows, strict=True)) if any(isinstance(cell, float) for cell in column)]


def shown(value: Any, fraction: bool) -> str:
    """A cell as text; `shownValue` in `2_figures.js` does the same."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if not fraction or value == 0:
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
