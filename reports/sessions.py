"""Times of rows that were measured in different sessions, brought to one: ratios travel, milliseconds do not.

A row that joins measured ones later is timed in a session of its own, together with its plain side again. Its speed-up
is of that session; its milliseconds may differ from what it would have taken in the others' by more than methods do.
"""

from __future__ import annotations

from typing import Any

from reports.rows import Cell, Row

#: Costs that are times.
TIMES = frozenset({"latency_ms", "time_per_image_ms"})


def session_of(row: Row) -> Any:
    """What the record names the session of its processes, or None."""
    return (row.record.get("timing") or {}).get("session")


def plain_latency(row: Row, plain: Row | None) -> Cell | None:
    """What the plain case took in the row's own session; without an interval where that is not the plain row's."""
    if plain is None:
        return None
    own, speedup = row.cells.get("latency_ms"), row.cells.get("speedup")
    known = own is not None and own.value is not None and speedup is not None and speedup.value is not None
    if session_of(row) == session_of(plain) or not known:
        return plain.cells.get("latency_ms")
    return Cell(own.value * speedup.value, provenance=own.provenance)  # type: ignore[operator,union-attr]


def cost_of(row: Row, plain: Row | None, cost: str) -> float | None:
    """A row's cost, a time of another session as what the plain case took in its own over the row's speed-up."""
    own = row.value(cost)
    if plain is None or cost not in TIMES or own is None or session_of(row) == session_of(plain):
        return own
    speedup, other = row.value("speedup"), plain.value(cost)
    return own if not speedup or other is None else other / speedup
