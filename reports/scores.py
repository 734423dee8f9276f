"""The score of a group: whichever metric that tasks score its rows have. No page names one."""

from __future__ import annotations

from collections.abc import Iterable

from bench.scores import RULES
from reports.rows import Row

#: Every metric that a task may score, in the table's order.
SCORES = tuple(RULES)


def scores_of(rows: Iterable[Row]) -> list[str]:
    """The scores that any row has a value of."""
    listed = list(rows)
    return [name for name in SCORES if any(row.value(name) is not None for row in listed)]


def score_of(rows: Iterable[Row]) -> str | None:
    """The score of these rows: that of most of them, None where none was scored."""
    listed = list(rows)
    counts = {name: sum(row.value(name) is not None for row in listed) for name in SCORES}
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best is not None and counts[best] else None
