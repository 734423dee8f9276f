"""What a figure's table says of the side that a row is compared with."""

from __future__ import annotations

from reports.rows import Row


def beside(row: Row) -> dict[str, str]:
    """Columns for the conditions in which a row differs from its other side, and for a named side."""
    found = {"differs in": row.apart, "against": row.against}
    return {name: text for name, text in found.items() if text}
