"""What a page or figure needs, declared beside it: where the rows lack it, it is left out, not drawn empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.rows import Row


@dataclass(frozen=True)
class Needs:
    """What rows must have; all of it.

    Attributes:
        columns: quantities by their column's key, each with a value in at least `rows` ranked rows.
        rows: how many ranked rows there must be.
        compared: a row that is compared with another one.
        further: a further condition in words of its own.
    """

    columns: tuple[str, ...] = ()
    rows: int = 1
    compared: bool = False
    further: Callable[[Sequence[Row]], bool] | None = None

    def met(self, rows: Sequence[Row]) -> bool:
        """Whether these rows have what is needed."""
        ranked = [row for row in rows if row.ranked]
        if len(ranked) < self.rows:
            return False
        if any(sum(row.value(key) is not None for row in ranked) < self.rows for key in self.columns):
            return False
        if self.compared and all(row.case.is_baseline for row in ranked):
            return False
        return self.further is None or self.further(ranked)
