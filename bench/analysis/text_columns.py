"""Rows in columns for a terminal: prose is cut, then whole columns are left out; numbers are never cut.

Cells may be of foreign records: every one is spelt out before it is measured and shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from bench.foreign_text import escape_controls, shortened

#: Signs that a column of prose keeps before another is left out for it, and in any case.
ENOUGH, LEAST = 32, 8
_GAP = 2


def columns(foreign: Sequence[Sequence[str]], width: int | None = None, prose: Collection[int] = (0,)) -> str:
    """Rows in columns.

    Args:
        foreign: the rows, the head first.
        width: signs of a line; None for as many as it takes.
        prose: places of columns whose cells may be cut to keep within it.
    """
    rows = [[escape_controls(cell) for cell in row] for row in foreign]
    widths = _natural(rows)
    if width is not None:
        room = width - _GAP * (len(widths) - 1) - sum(own for i, own in enumerate(widths) if i not in prose)
        for left, place in enumerate(sorted(prose, key=lambda i: widths[i])):
            widths[place] = min(widths[place], max(LEAST, room // (len(prose) - left)))
            room -= widths[place]
        rows = [[shortened(cell, most) for cell, most in zip(row, widths, strict=True)] for row in rows]
        widths = _natural(rows)
    return "\n".join(
        (" " * _GAP).join(cell.ljust(own) for cell, own in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def fitted(
    table: Sequence[Sequence[str]], width: int | None, prose: Collection[str], spare: Sequence[Collection[str]]
) -> str:
    """Rows in the columns that there is room for, and which columns were left out.

    Args:
        table: the rows, the head first.
        width: signs of a line; None for as many as it takes.
        prose: names of columns whose cells may be cut.
        spare: names of columns that are left out together, in this order, while a line would be too long.
    """
    head = table[0]
    natural = dict(zip(head, _natural([[escape_controls(cell) for cell in row] for row in table]), strict=True))
    least = {name: min(own, ENOUGH) if name in prose else own for name, own in natural.items()}
    gone: list[str] = []
    for names in spare:
        if width is None or sum(least[name] + _GAP for name in head if name not in gone) - _GAP <= width:
            break
        gone += [name for name in head if name in names]
    kept = [i for i, name in enumerate(head) if name not in gone]
    places = [place for place, i in enumerate(kept) if head[i] in prose]
    shown = columns([[row[i] for i in kept] for row in table], width, places)
    said = f"left out to fit {width} signs a line: {', '.join(gone)}"
    return f"{shown}\n{wrapped(said, width)}" if gone else shown


def _natural(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, cells)) for cells in zip(*rows, strict=True)]


def wrapped(foreign: str, width: int | None) -> str:
    """A sentence on lines of so many signs."""
    text = escape_controls(foreign)
    if width is None:
        return text
    return "\n".join(textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False))
