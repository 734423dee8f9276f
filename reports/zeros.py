"""What share of the zeros becomes time: saved time over the share of products that are zero, by kernel and sparsity.

share = (1 - t / t_dense) / (1 - non-zero / dense), t_dense and the dense products those of the other side of the row:
1 is all of it, 0 none, below 0 slower than the dense network. The interval is that of the speed-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.shares import Share, arrived_share
from reports.content import Site
from reports.rows import Row, column_key


@dataclass(frozen=True)
class Point:
    """One row: how much of the dense products is zero or gone, and the share of it that arrives."""

    sparsity: float
    row: Row
    share: Share


@dataclass(frozen=True)
class Line:
    """The rows of one kernel over sparsity, in rising order; `where` says what it is of: the dense side, the batch."""

    kernel: str
    where: str
    points: tuple[Point, ...]


def lines(site: Site) -> list[Line]:
    """Kernels that were measured at two sparsities or more, against the same other side."""
    found: dict[tuple[str, str], list[Point]] = {}
    for row in site.rows:
        point = _point(site, row)
        if point is not None:
            kernel = str((row.record.get("labels") or {}).get("kernel"))
            where = f"{row.side.label}, batch {row.case.batch}"
            found.setdefault((kernel, where), []).append(point)
    return [
        Line(kernel, where, tuple(sorted(points, key=lambda point: point.sparsity)))
        for (kernel, where), points in found.items()
        if len({round(point.sparsity, 3) for point in points}) > 1
    ]


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
    """Head and lines: a kernel and what it is of, its shares by sparsity."""
    at = sorted({round(point.sparsity, 2) for line in found for point in line.points})
    head = ["kernel", "of", *(f"{100 * sparsity:.0f} % zero" for sparsity in at)]
    rows = []
    for line in found:
        by = {round(point.sparsity, 2): point.share for point in line.points}
        rows.append([line.kernel, line.where, *(_said(by.get(sparsity)) for sparsity in at)])
    return head, rows


def _said(share: Share | None) -> str:
    """`0.42 [0.38, 0.46]`."""
    if share is None or share.value is None:
        return "-"
    if share.low is None or share.high is None:
        return f"{share.value:.2f}"
    return f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"
