"""Bits of a cached number: what the method's paper calls them, and what is stored of each in the long run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from reports.figures.figure import Figure, no_picture, significant
from reports.figures.lines import Line, draw
from reports.figures.theme import Style, plain, styles_of
from reports.rows import Row

ID = "cache-bits"
HOW = (
    "Hollow: bits of one cached number as the method's paper counts them. Solid: bits that are stored of it in the "
    "long run, scales, indices and padding included. A level pair keeps its name."
)


def cases(rows: Sequence[Row]) -> list[Row]:
    """Ranked cases that say both, and whose cache is another than the plain one."""
    said = [row for row in rows if row.ranked and row.value("kv_bits_nominal") and row.value("kv_bits_stored")]
    plain = {row.value("kv_bits_stored") for row in said if row.case.is_baseline}
    return [row for row in said if row.value("kv_bits_stored") not in plain]


def wanted(rows: Sequence[Row]) -> bool:
    """Whether there is one."""
    return bool(cases(rows))


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows that may be compared (one `reports.groups.Group`)."""
    found, styles = sorted(cases(rows), key=_stored), styles or styles_of(rows)
    table = pd.DataFrame(
        [[row.name, row.value("kv_bits_nominal"), _stored(row), row.value("cache_bytes")] for row in found],
        columns=["case", "nominal bits", "stored bits", "cache of this run (B)"],
    ).astype(object)
    if not found:
        return no_picture(id, "No other cache", HOW, "every case keeps the plain cache", table)
    lines = [
        Line(row.name, styles[row.family], place, row.value("kv_bits_nominal"), _stored(row))
        for place, row in enumerate(found)
    ]
    spec = draw(lines, x_title="bits per number of the plain cache, log", start="nominal", end="stored")
    most = max(found, key=lambda row: _stored(row) / (row.value("kv_bits_nominal") or 1.0))
    title = (
        f"{most.name}: {significant(most.value('kv_bits_nominal') or 0.0)} nominal bits are stored as "
        f"{significant(_stored(most))}"
    )
    hover = [
        f"<b>{plain(row.name)}</b><br>{significant(row.value('kv_bits_nominal') or 0.0)} bits by name · "
        f"{significant(_stored(row))} stored"
        for row in found
    ]
    return Figure(id, title, HOW, table, {"": spec}, hover=tuple(hover))


def _stored(row: Row) -> float:
    return row.value("kv_bits_stored") or 0.0
