"""What the page of a case says below its name: where the saving went, from the numbers of its row."""

from __future__ import annotations

from reports.findings import of_one
from reports.numbers import pair
from reports.rows import Cell, Row


def case_line(row: Row) -> str:
    """One sentence: speed-up, price, promise, time in the operators that a method adds; empty for a baseline."""
    promised = row.value("mac_ratio")
    if row.value("speedup") is not None:
        return f"{of_one(row)}{_added(row.cells.get('own_share'))}."
    if promised is None:
        return ""
    return f"Its operations promise {pair(promised, None, None)} times; no time was compared."


def _added(share: Cell | None) -> str:
    """How much of the time the method's own operators take, where it has any."""
    if share is None or not share.value:
        return ""
    return f"; the operators that it adds take {pair(share.value, share.low, share.high)} % of the time"
