"""The score of a group: whichever metric that tasks score its rows have. No page names one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench.scores import RULES
from reports.rows import Row

#: Every metric that a task may score, in the table's order.
SCORES = tuple(RULES)
_NAMES = frozenset(SCORES)


def _scored(row: Row) -> list[str]:
    """The scores that a row has a value of, in no order."""
    return [name for name in _NAMES & row.cells.keys() if row.cells[name].value is not None]


def scores_of(rows: Iterable[Row]) -> list[str]:
    """The scores that any row has a value of."""
    found = {name for row in rows for name in _scored(row)}
    return [name for name in SCORES if name in found]


def score_of(rows: Iterable[Row]) -> str | None:
    """The score of these rows: that of most of them, None where none was scored."""
    counts = Counter(name for row in rows for name in _scored(row))
    return max(SCORES, key=lambda name: counts[name]) if counts else None
