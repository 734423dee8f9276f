"""How much of a scan network's time is the scan: the whole network beside the one whose recurrence is taken away.

share = 1 - t(identity) / t(whole), the most that a better scan could win; beside it stands the scan's share of the
products, macs_scan / macs of the whole. The interval is that of the speed-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.content import Site
from reports.rows import Row, column_key


@dataclass(frozen=True)
class ScanShare:
    """One network in one shape: shares of its time and of its products that are the scan's."""

    name: str
    row: Row
    time: float
    low: float | None
    high: float | None
    products: float


def scan_shares(site: Site) -> list[ScanShare]:
    """The controls that were timed against their whole network, by share of time, largest first."""
    found = []
    for row in site.rows:
        whole = site.baseline(row)
        cell = row.cells.get(column_key("speedup", ""))
        if whole is None or row.case.is_baseline or row.value("macs_scan") != 0 or cell is None or not cell.value:
            continue
        states, macs = whole.value("macs_scan"), whole.value("macs")
        if not states or not macs:
            continue
        low, high = (None if not end else 1 - 1 / end for end in (cell.low, cell.high))
        name = f"{row.side.label}, {_shape(row)}"
        found.append(ScanShare(name, row, 1 - 1 / cell.value, low, high, states / macs))
    return sorted(found, key=lambda share: -share.time)


def _shape(row: Row) -> str:
    shape = {name: value for name, value in row.case.full_shape.items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in shape.items())


def table(found: Sequence[ScanShare]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a network, and the scan's share of its products and of its time."""
    head = ["network", "scan's share of the products", "scan's share of the time"]
    return head, [[one.name, f"{100 * one.products:.2f} %", _said(one)] for one in found]


def _said(one: ScanShare) -> str:
    """`42 % [38, 46]`."""
    if one.low is None or one.high is None:
        return f"{100 * one.time:.0f} %"
    return f"{100 * one.time:.0f} % [{100 * one.low:.0f}, {100 * one.high:.0f}]"
