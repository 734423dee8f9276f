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
    """The score of these rows: the one that their tasks name, or else that of most of them; None where none was scored.

    A task may score several things of an output, as a sampler's pictures by their distance and by the class that they
    show; the one that its record names is what its network was made for.
    """
    valued: Counter[str] = Counter()
    named: Counter[str] = Counter()
    for row in rows:
        scored, own = _scored(row), (row.record.get("quality") or {}).get("metric")
        valued.update(scored)
        named.update([own] if own in scored else [])
    return max(SCORES, key=lambda name: (named[name], valued[name])) if valued else None
