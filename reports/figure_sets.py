"""Which figures stand where: on the first page per group of comparable rows, and on the page of a case.

A figure that cannot be made says why in its place and in the list of problems; it never takes the page with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import ResultsError
from bench.store.records import Record, read_json
from reports.batches import panels
from reports.content import Site
from reports.drawing import Drawing, draw
from reports.figures import (
    batch_gain,
    gap,
    layer_savings,
    noise,
    pareto,
    savings,
    scaling,
    source_map,
    time_split,
    tradeoff,
    waterline,
)
from reports.figures.figure import Figure, no_picture
from reports.figures.theme import Style
from reports.groups import Group
from reports.rows import Row

#: What a figure can stumble over in a malformed record; anything else is a defect and is not hidden.
_MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    ResultsError,
)

#: Rows of one group that are drawn, and rows of all groups together: the first page stays quick to make and to open.
ROWS, ALL_ROWS = 120, 360


#: The figures of a group in the order of the page.
GROUP_FIGURES: dict[str, Callable[..., Figure]] = {
    savings.ID: savings.figure, gap.ID: gap.figure, pareto.ID: pareto.figure, tradeoff.ID: tradeoff.figure,
}  # fmt: skip


@dataclass(frozen=True)
class GroupFigures:
    """The figures of one group of comparable rows; `left_out` rows are not drawn because there are too many."""

    group: Group
    drawings: tuple[Drawing, ...]
    left_out: int


def of_groups(site: Site, styles: Mapping[str, Style]) -> list[GroupFigures]:
    """The figures of the groups that have at least two ranked rows."""
    found, left = [], ALL_ROWS
    for group in site.groups:
        rows = [row for row in site.in_group(group.index) if row.ranked]
        if len(rows) < 2 or left <= 0:
            continue
        shown = _most_informative(rows)
        drawings = tuple(_of_group(name, shown, group, site, styles) for name in GROUP_FIGURES)
        found.append(GroupFigures(group, drawings, len(rows) - len(shown)))
        left -= len(shown)
    return found


def of_case(site: Site, row: Row) -> list[Drawing]:
    """The figures of one case."""
    if row.status != "ok" and not row.record.get("layers"):
        return []
    base = site.baseline(row)
    figures = [guarded("waterline", row.page, site, lambda: waterline.figure(row.record))]
    if base is not None:
        figures.append(guarded("time-split", row.page, site, lambda: time_split.figure(row.record, base.record)))
        figures.append(guarded("layers", row.page, site, lambda: layer_savings.figure(row.record, base.record)))
    if row.record.get("picture"):
        figures.append(guarded("source-map", row.page, site, lambda: source_map.figure(row.record)))
    figures.append(
        guarded("noise", row.page, site, lambda: noise.figure(row.record, samples_of(row.record, site.roots)))
    )
    return figures


def across(site: Site, styles: Mapping[str, Style]) -> list[Drawing]:
    """Figures that join rows of several groups, where any condition was varied: gain over batch, cost over batch or resolution."""
    rows = [row for row in site.rows if row.ranked]
    if not any(len({getattr(row.case, name) for row in rows}) > 1 for name in scaling.ACROSS):
        return []
    found = [guarded("scaling", "index.html", site, lambda: scaling.figure(_most_informative(rows), styles=styles))]
    if panels(site.rows):
        found.insert(0, guarded("batch-gain", "index.html", site, lambda: batch_gain.figure(site.rows, styles=styles)))
    return found


def samples_of(record: Record, roots: Sequence[Path]) -> dict[str, Any]:
    """The raw samples files that the record names, by name, from whichever results folder has them."""
    found = {}
    for run in (record.get("timing") or {}).get("invocations") or []:
        name = str(run.get("samples_file") or "")
        for root in roots:
            path = (root / name).resolve()
            if name and path.is_relative_to(root.resolve()) and path.is_file():
                found[name] = read_json(path)
                break
    return found


def guarded(id: str, where: str, site: Site, make: Callable[[], Figure]) -> Drawing:
    """The figure, or its place with the reason why it could not be made."""
    try:
        return draw(make(), show_paths=site.show_paths)
    except _MALFORMED as error:
        reason = f"the figure {id} could not be made from these records ({type(error).__name__}: {error})"
        site.problems.append(f"{where}: {reason}")
        return draw(no_picture(id, f"No {id} figure", "Nothing is drawn; the reason is given above.", reason))


def _of_group(name: str, rows: list[Row], group: Group, site: Site, styles: Mapping[str, Style]) -> Drawing:
    id = f"{name}-{group.index}" if group.index else name
    return guarded(id, "index.html", site, lambda: GROUP_FIGURES[name](rows, styles=styles, id=id))


def _most_informative(rows: list[Row]) -> list[Row]:
    """At most `ROWS` rows: those on or near the front first, then the others in the order of the table."""
    if len(rows) <= ROWS:
        return rows
    order = {"front": 0, "plausible": 1}
    kept = {id(row) for row in sorted(rows, key=lambda row: order.get(row.pareto, 2))[:ROWS]}
    return [row for row in rows if id(row) in kept]
