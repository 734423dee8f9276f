"""What a reader of an answer waits for over the context: the first token and every later one, the roofline beside each.

Only measured contexts are named. The roofline of the first token is that of the prompt, of a later one that of a decode
step; what lies between the two is overhead: Python, calls that are too small, and what a method does on the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.content import Site
from reports.rows import Cell, Row

#: The two waits, each with its metric and the part of the run whose roofline stands beside it.
WAITS = {
    "first token": ("time_to_first_token_ms", "prefill"),
    "later token": ("time_per_output_token_ms", "decode"),
}


@dataclass(frozen=True)
class Wait:
    """One case at one context: what was waited for, in ms, and what the roofline allows, None where it is unknown."""

    context: float
    took: Cell
    bound: float | None

    @property
    def explained(self) -> float | None:
        """Share of the time that the roofline explains."""
        return self.bound / self.took.value if self.bound and self.took.value else None


@dataclass(frozen=True)
class Waits:
    """One case over rising contexts, everything else equal."""

    kind: str
    name: str
    family: str
    batch: int
    points: tuple[Wait, ...]


def waits(rows: Sequence[Row]) -> list[Waits]:
    """The cases that generate and were timed at two or more contexts, plain ones included, kind by kind."""
    found = []
    for kind, (metric, part) in WAITS.items():
        groups: dict[tuple[object, ...], dict[float, tuple[Row, Wait]]] = {}
        for row in rows:
            cell, context = row.cells.get(metric), row.case.full_shape.get("context")
            if row.ranked and cell is not None and cell.value and isinstance(context, int | float):
                point = Wait(float(context), cell, row.value("attainable_ms", part))
                groups.setdefault(_fixed(row), {})[float(context)] = (row, point)
        for points in groups.values():
            if len(points) > 1:
                row = next(iter(points.values()))[0]
                in_order = tuple(points[context][1] for context in sorted(points))
                found.append(Waits(kind, row.name, row.family, row.case.batch, in_order))
    return found


def _fixed(row: Row) -> tuple[object, ...]:
    """All conditions of a row but the context; a plain row is one whatever it is the other side of."""
    rest = tuple(sorted((name, repr(value)) for name, value in row.case.axes.items() if name != "context"))
    case = row.case
    return (row.name, row.machine_key, case.device, case.dtype, case.backend, case.task, case.batch, rest)


def of_site(site: Site) -> list[Waits]:
    """Those of a site."""
    return waits(site.rows)


def table(found: Sequence[Waits]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a case, batch and kind each, its waits by context with the share that the roofline explains."""
    contexts = sorted({point.context for one in found for point in one.points})
    head = ["waited for", "case", "batch", *(f"context {context:g} (ms)" for context in contexts)]
    lines = []
    for one in found:
        by = {point.context: point for point in one.points}
        lines.append([one.kind, one.name, str(one.batch), *(_said(by.get(context)) for context in contexts)])
    return head, lines


def _said(point: Wait | None) -> str:
    """`4.1, roofline 12 %`."""
    if point is None or point.took.value is None:
        return "-"
    share = "" if point.explained is None else f", roofline {100 * point.explained:.0f} %"
    return f"{point.took.value:.3g}{share}"
