"""Cases as lines of the tables of methods and networks: only ratios, because conditions differ from line to line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.metrics import METRICS
from bench.words import plural
from reports.atlas import Point, quartiles, tally
from reports.content import Site
from reports.findings import changes, score_change
from reports.numbers import MISSING, pair, plain
from reports.rows import OF_BASELINE, Cell, Row

#: Lines of a table; the tables of suites have all.
MOST_LINES = 300


@dataclass(frozen=True)
class CaseLine:
    """One case as text; `share` is the measured part of the promised speed-up, `kind` that of the badge of `state`."""

    page: str
    name: str
    conditions: str
    promised: str
    measured: str
    share: str
    quality: str
    own: str
    state: str
    kind: str
    reason: str


def case_lines(rows: Iterable[Row], site: Site, *, by_network: bool) -> list[CaseLine]:
    """A line for each row that is compared with another one, in the order of groups; called by network or by method."""
    compared = [row for row in rows if not row.case.is_baseline]
    return [_line(row, site, by_network) for row in sorted(compared, key=lambda row: row.group)]


def _line(row: Row, site: Site, by_network: bool) -> CaseLine:
    kind, state = ("good", "ok") if row.ranked else ("care", "disturbed") if row.disturbed else ("bad", row.status)
    return CaseLine(
        page=row.page,
        name=row.name if by_network else row.head,
        conditions=site.groups[row.group].title,
        promised=_times(row.cells.get("mac_ratio")),
        measured=_times(row.cells.get("speedup")),
        share=_percent(row.cells.get("realised_gain"), 100.0),
        quality=quality_change(row),
        own=_percent(row.cells.get("own_share"), 1.0),
        state=state,
        kind=kind,
        reason=row.contaminated or row.reason,
    )


def _times(cell: Cell | None) -> str:
    if cell is None or cell.value is None:
        return MISSING
    return f"{pair(cell.value, cell.low, cell.high)}×"


def _percent(cell: Cell | None, factor: float) -> str:
    if cell is None or cell.value is None or cell.note == OF_BASELINE:
        return MISSING
    return f"{plain(cell.value * factor, 0)} %"


def quality_change(row: Row) -> str:
    """The change of the row's score in words: `−1.2 ± 0.8 points`; a dash where none is known."""
    found = score_change(row)
    if found is None:
        return MISSING
    metric, cell = found
    unit = "points" if METRICS[metric].unit == "%" else METRICS[metric].unit
    text = pair(cell.value or 0.0, cell.low, cell.high)
    return f"{'+' if (cell.value or 0) > 0 else ''}{text} {unit}".strip()


def sentence(name: str, found: Sequence[Point], noun: str) -> str:
    """What a page of a method or a network begins with: how many cases are faster, and how much arrives."""
    counts, known = tally(found), quartiles(found)
    if not counts.compared:
        busy = f"; {plural(counts.disturbed, 'case')} ran on a busy machine" if counts.disturbed else ""
        return f"{name}: nothing undisturbed was compared{busy}"
    said = f"{name}: of {plural(counts.compared, noun)} {changes(counts.faster, counts.slower)}"
    if known is None:
        return said
    return f"{said}; {plain(100 * known[1], 0)} % of the promise arrives in the median"
