"""The Pareto column: where each row stands between latency and the group's score, and who beats it.

`bench.analysis.pareto` decides. In a large group two passes over the sorted rows come first, so that not every pair
need be looked at: rows that some other row beats beyond doubt are dominated, and of the rest only the `NEAREST` to the
front get a probability; rows further behind than those are plausible at most, without one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from bench.analysis import pareto
from bench.analysis.pareto import Estimate, Objective
from bench.metrics import METRICS
from reports.groups import Group
from reports.rows import Row
from reports.scores import SCORES, score_of

Objectives = tuple[Objective, Objective]

LATENCY = Objective("latency_ms", "lower")
DRAWS = 2000
#: Above this many rows the certainly dominated ones are sorted out before every pair is compared.
LARGE = 25
#: Of the rows that are left, so many beside the front itself get a probability.
NEAREST = 40

_WORDS = {"front": "front", "plausible": "plausible", "certified-dominated": "dominated", "excluded": ""}


def mark_fronts(rows: Sequence[Row], groups: Sequence[Group]) -> None:
    """Fill in `pareto` and `pareto_note` of every row."""
    members: dict[int, list[Row]] = {group.index: [] for group in groups}
    for row in rows:
        members[row.group].append(row)
    for group_rows in members.values():
        both = objectives_of(group_rows)
        for row in group_rows:
            row.pareto_note = _excluded(row, both)
        _place_group([row for row in group_rows if not row.pareto_note], both)


def objectives_of(rows: Sequence[Row]) -> tuple[Objective, Objective]:
    """Latency and the score of these rows, each with its direction; where none was scored, the first score there is."""
    score = score_of(rows) or SCORES[0]
    return LATENCY, Objective(score, "higher" if METRICS[score].better == "higher" else "lower")


def _excluded(row: Row, both: Objectives) -> str:
    if not row.ranked:
        return f"not ranked: {row.contaminated or row.status}"
    missing = [objective.name for objective in both if row.value(objective.name) is None]
    if not missing:
        return ""
    cell = row.cells.get(missing[0])
    return (cell.note if cell else "") or f"no value for {missing[0]}"


def _place_group(rows: list[Row], both: Objectives) -> None:
    beaten = _surely_beaten(rows, both) if len(rows) > LARGE else {}
    for index, by in beaten.items():
        rows[index].pareto, rows[index].pareto_note = "dominated", f"surely beaten by {rows[by].name}"
    left = _nearest([row for index, row in enumerate(rows) if index not in beaten], both)
    if not left:
        return
    names = {str(index): row.name for index, row in enumerate(left)}
    candidates = [pareto.Candidate(str(index), _estimates(row, both)) for index, row in enumerate(left)]
    for row, placed in zip(left, pareto.pareto(candidates, both, draws=DRAWS), strict=True):
        row.pareto = _WORDS[placed.standing]
        row.pareto_note = _note(placed, names)


def _goodness(row: Row, score: Objective) -> float:
    """The score, turned so that more is better."""
    value = row.value(score.name) or 0.0
    return value if score.better == "higher" else -value


def _nearest(rows: list[Row], both: Objectives) -> list[Row]:
    """The rows on the front and the `NEAREST` behind it; the others are marked as plausible here."""
    score = both[1]
    order = sorted(rows, key=lambda row: (row.value("latency_ms") or 0.0, -_goodness(row, score)))
    ahead: Row | None = None
    behind: list[tuple[float, Row, Row]] = []
    front = []
    for row in order:
        if ahead is None or _goodness(row, score) > _goodness(ahead, score):
            ahead = row
            front.append(row)
        else:
            behind.append((_goodness(ahead, score) - _goodness(row, score), row, ahead))
    behind.sort(key=lambda item: item[0])
    for _, row, by in behind[NEAREST:]:
        row.pareto, row.pareto_note = "plausible", f"beaten as a point by {by.name}, but not for certain"
    return front + [row for _, row, _ in behind[:NEAREST]]


def _note(placed: pareto.Placed, names: dict[str, str]) -> str:
    chance = "" if placed.p_front is None else f"on the front in {placed.p_front:.0%} of draws from the intervals"
    by = placed.certified_by or placed.dominated_by
    who = ", ".join(names[name] for name in by[:3]) + (f" and {len(by) - 3} more" if len(by) > 3 else "")
    words = ("surely beaten by " if placed.certified_by else "beaten as a point by ") + who if by else ""
    return "; ".join(filter(None, [chance, words, placed.note]))


def _estimates(row: Row, both: Objectives) -> tuple[Estimate, ...]:
    cells = [row.cells[objective.name] for objective in both]
    return tuple(
        Estimate(cell.value or 0.0, cell.low, cell.high, cell.n, exact=cell.provenance == "counted") for cell in cells
    )


def _surely_beaten(rows: Sequence[Row], both: Objectives) -> dict[int, int]:
    """Index of a row -> index of one that is better in both objectives with separated intervals."""
    up = both[1].better == "higher"
    ends = []
    for row in rows:
        time, score = (estimate.ends for estimate in _estimates(row, both))
        ends.append((time, score if up else (-score[1], -score[0])))
    certain = [all(estimate.certain for estimate in _estimates(row, both)) for row in rows]
    order = sorted((index for index in range(len(rows)) if certain[index]), key=lambda index: ends[index][0][1])
    times = [ends[index][0][1] for index in order]
    best: list[int] = []
    for index in order:
        best.append(index if not best or ends[index][1][0] > ends[best[-1]][1][0] else best[-1])
    beaten = {}
    for index, ((fastest, _), (_, accurate)) in enumerate(ends):
        before = bisect_left(times, fastest)
        if certain[index] and before and ends[best[before - 1]][1][0] > accurate:
            beaten[index] = best[before - 1]
    return beaten
