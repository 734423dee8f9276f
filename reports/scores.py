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
    """The score of these rows: the one that their tasks name, or else that of most of them; None where none was scored.

    A task may score several things of an output, as a sampler's pictures by their distance and by the class that they
    show; the one that its record names is what its network was made for.
    """
    listed = list(rows)
    named = [(row.record.get("quality") or {}).get("metric") for row in listed]
    counts = {
        name: (
            sum(own == name and row.value(name) is not None for row, own in zip(listed, named, strict=True)),
            sum(row.value(name) is not None for row in listed),
        )
        for name in SCORES
    }
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best is not None and any(counts[best]) else None
