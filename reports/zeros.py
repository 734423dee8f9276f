"""What share of the zeros becomes time: saved time over the share of products that are zero, by kernel and sparsity.

share = (1 - t / t_dense) / (1 - non-zero / dense), t_dense and the dense products those of the other side of the row:
1 is all of it, 0 none, below 0 slower than the dense network. The interval is that of the speed-up.

A line is of rows that differ in how much of them is zero and in nothing else: one kernel, one method or model, the same
other settings, the same dense side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.shares import Share, arrived_share
from bench.canonical import BASELINE_METHOD, parse_settings, settings_text
from bench.plan.case import spec_text
from reports.content import Site
from reports.rows import Row, column_key

#: Sparsities that the table has a column for; a row stands in that of the nearest.
MARKS = (0.5, 0.75, 0.9, 0.95)
#: Lists that say which weights go together; every other one is of widths or numbers that are left.
PATTERNS = ("block",)


@dataclass(frozen=True)
class Point:
    """One row: how much of the dense products is zero or gone, and the share of it that arrives."""

    sparsity: float
    row: Row
    share: Share


@dataclass(frozen=True)
class Line:
    """The rows of one kernel and one way to prune, in rising order of sparsity.

    Attributes:
        kernel: its label.
        where: what it is of: the dense side, the batch.
        points: one at least.
        way: method with the settings that all rows share, or those of the model; empty where there are none.
    """

    kernel: str
    where: str
    points: tuple[Point, ...]
    way: str = ""

    @property
    def name(self) -> str:
        """Kernel and way in one text."""
        return f"{self.kernel}: {self.way}" if self.way else self.kernel

    @property
    def is_course(self) -> bool:
        """Whether it was measured at two sparsities or more."""
        return len({round(point.sparsity, 3) for point in self.points}) > 1


def lines(site: Site) -> list[Line]:
    """Every kernel that was measured against a dense side that makes more products, in the order of the site."""
    found: dict[tuple[str, ...], list[Point]] = {}
    several = len({row.machine_key for row in site.rows}) > 1
    for row in site.rows:
        point = _point(site, row)
        if point is not None:
            kernel = str((row.record.get("labels") or {}).get("kernel"))
            machine = f", machine {row.machine_key[:6]}" if several else ""
            where = f"{row.side.label}, batch {row.case.batch}{machine}"
            found.setdefault((kernel, where, way_of(row.case)), []).append(point)
    return [
        Line(kernel, where, tuple(sorted(points, key=lambda point: point.sparsity)), way)
        for (kernel, where, way), points in found.items()
    ]


def way_of(case: Any) -> str:
    """Method with its settings, or the settings of the model where it has no method, but for how much goes."""
    by_method = case.method != BASELINE_METHOD
    settings = parse_settings(case.setting if by_method else case.model_settings)
    shared = {name: value for name, value in settings.items() if name != "kernel" and not _is_amount(name, value)}
    return spec_text(case.method, settings_text(shared)) if by_method else settings_text(shared)


def _is_amount(name: str, value: Any) -> bool:
    """Whether a setting says how much is zero or left: a share between 0 and 1, or numbers of what is left."""
    return (isinstance(value, float) and 0 < value < 1) or (isinstance(value, list) and name not in PATTERNS)


def _point(site: Site, row: Row) -> Point | None:
    kernel = (row.record.get("labels") or {}).get("kernel")
    other = site.baseline(row)
    if not row.ranked or row.case.is_baseline or kernel is None or other is None:
        return None
    nonzero = row.value("macs") if kernel == "slim" else row.value("macs_nonzero")
    dense = other.value("macs")
    cell = row.cells.get(column_key("speedup", ""))
    if not nonzero or not dense or cell is None or not cell.value or nonzero >= dense:
        return None
    share = arrived_share(cell.value, cell.low, cell.high, dense / nonzero)
    return Point(1 - nonzero / dense, row, share)


def table(found: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: what a kernel is of, the kernel, and its shares by how much is zero.

    Every row stands in the column of the nearest of `MARKS`, with what is zero of it: nothing is left out or moved.
    """
    at = [mark for mark in MARKS if any(_mark(point) == mark for line in found for point in line.points)]
    head = ["of", "kernel", *(f"about {100 * mark:.0f} % zero" for mark in at)]
    rows = []
    for line in found:
        cells = ["; ".join(_said(point) for point in line.points if _mark(point) == mark) or "-" for mark in at]
        rows.append([line.where, line.name, *cells])
    return head, rows


def _mark(point: Point) -> float:
    return min(MARKS, key=lambda mark: abs(mark - point.sparsity))


def _said(point: Point) -> str:
    """`0.42 [0.38, 0.46] at 88 %`."""
    share = point.share
    if share.value is None:
        return f"unavailable ({share.reason})"
    span = "" if share.low is None or share.high is None else f" [{share.low:.2f}, {share.high:.2f}]"
    return f"{share.value:.2f}{span} at {100 * point.sparsity:.0f} %"
