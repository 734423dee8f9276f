"""What is said over suites: only ratios, one typical case for each method on each network, never a rank or a front.

Of a method that ran at several settings and batches on a network the case in the middle stands for it, by the share of
the promise that arrives: of the cases that are not disturbed where there is one. A largest one of many would be luck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles

from bench.labels import NO_SPEED, label_of
from bench.words import plural
from reports.addresses import suite_page
from reports.content import Site, day_of
from reports.findings import FEWEST_FOR_QUARTILES, Finding, changes, loses, score_change
from reports.numbers import plain
from reports.rows import Cell, Row

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
#: Promises below this are no promise of speed, so that no share of them can arrive.
LEAST_PROMISE = 1.0


@dataclass(frozen=True)
class Point:
    """A case with the speed-up that its operations promise and the one that was measured."""

    row: Row
    promised: float
    speedup: Cell

    @property
    def measured(self) -> float:
        """The measured speed-up."""
        return self.speedup.value or 0.0

    @property
    def share(self) -> float:
        """The part of the promised speed-up that was measured; 1 is all of it."""
        return self.measured / self.promised

    @property
    def faster(self) -> bool:
        """Whether the whole 95 % interval is above 1."""
        return self.speedup.low is not None and self.speedup.low > 1.0

    @property
    def slower(self) -> bool:
        """Whether the whole 95 % interval is below 1."""
        return self.speedup.high is not None and self.speedup.high < 1.0

    @property
    def certain(self) -> bool:
        """Whether it is faster or slower beyond doubt."""
        return self.faster or self.slower


def points(rows: Iterable[Row]) -> list[Point]:
    """Every case with a promised and a measured speed-up that claims to be one, disturbed ones too."""
    found = []
    for row in rows:
        speedup, promised = row.cells.get("speedup"), row.value("mac_ratio")
        if row.case.is_baseline or speedup is None or not speedup.value or not promised:
            continue
        if (row.ranked or row.disturbed) and str(label_of(row.record, "execution")) not in NO_SPEED:
            found.append(Point(row, promised, speedup))
    return found


def typical(found: Iterable[Point]) -> list[Point]:
    """One of them for each method, network and machine: the one in the middle by the share that arrives."""
    members: dict[tuple[str, str, str, str], list[Point]] = {}
    for point in found:
        row = point.row
        members.setdefault((row.case.suite, row.family, row.side.model_label, row.machine_key), []).append(point)
    chosen = []
    for own in members.values():
        kept = [point for point in own if point.row.ranked] or own
        ordered = sorted(kept, key=lambda point: (point.share, point.row.page))
        chosen.append(ordered[(len(ordered) - 1) // 2])
    return chosen


def quartiles(found: Iterable[Point]) -> tuple[float, float, float] | None:
    """Quartiles of the share that arrives, of undisturbed points that promise a speed-up; None for too few."""
    shares = [point.share for point in found if point.row.ranked and point.promised > LEAST_PROMISE]
    if len(shares) < FEWEST_FOR_QUARTILES:
        return None
    low, middle, high = quantiles(shares, n=4, method="inclusive")
    return low, middle, high


def shown_quartiles(found: Iterable[Point]) -> str:
    """The share that arrives as a line of the table has it: `72 % (50 to 90)`; empty for too few."""
    known = quartiles(found)
    if known is None:
        return ""
    low, middle, high = (plain(100 * each, 0) for each in known)
    return f"{middle} % ({low} to {high})"


@dataclass(frozen=True)
class Tally:
    """How many points are faster or slower for certain, and at what quality.

    `kept` of the faster ones have a score that does not fall for certain, `unscored` none that could say so.
    """

    compared: int
    faster: int
    kept: int
    unscored: int
    slower: int
    disturbed: int


def tally(found: Sequence[Point]) -> Tally:
    """The counts of undisturbed points; how many are disturbed stands apart."""
    ranked = [point for point in found if point.row.ranked]
    faster = [point for point in ranked if point.faster]
    unscored = [point for point in faster if score_change(point.row) is None]
    losing = sum(loses(point.row) for point in faster)
    return Tally(
        compared=len(ranked),
        faster=len(faster),
        kept=len(faster) - len(unscored) - losing,
        unscored=len(unscored),
        slower=sum(point.slower for point in ranked),
        disturbed=len(found) - len(ranked),
    )


def headline(found: Sequence[Point]) -> str:
    """The typical in one sentence; empty where nothing undisturbed was compared."""
    counts = tally(found)
    if not counts.compared:
        return ""
    said = _said(counts)
    known = quartiles(found)
    if known is None:
        return said[0].upper() + said[1:]
    return f"{plain(100 * known[1], 0)} % of the promised speed-up arrives in the median; {said}"


def _said(counts: Tally) -> str:
    """How many methods on networks are faster and slower for certain."""
    if counts.compared == 1:
        change = "is faster" if counts.faster else "is slower" if counts.slower else "is neither faster nor slower"
        return f"one method on a network was compared, and it {change} for certain"
    return f"of {counts.compared} methods on networks {changes(counts.faster, counts.slower)}"


def numbers(found: Sequence[Point], claims: Iterable[dict[str, object]]) -> list[Finding]:
    """The four numbers beside the picture; those that nothing is known of are left out."""
    made, counts, known = [], tally(found), quartiles(found)
    if known is not None:
        low, middle, high = (plain(100 * each, 0) for each in known)
        what = f"of the promised speed-up arrives in the median; half of all lie between {low} and {high} %"
        made.append(Finding(f"{middle} %", what))
    if counts.compared:
        without = f"; {counts.unscored} more without a score to tell" if counts.unscored else ""
        made.append(
            Finding(
                f"{counts.kept} of {counts.compared}",
                f"methods on networks are faster for certain at no certain loss of quality{without}",
            )
        )
        made.append(Finding(f"{counts.slower} of {counts.compared}", "are slower for certain than the plain network"))
    verdicts = Counter(str(claim["verdict"]) for claim in claims)
    judged = verdicts[REPRODUCED] + verdicts[NOT_REPRODUCED]
    if judged:
        rest = sum(verdicts.values()) - judged
        more = f"; {rest} more cannot be judged here" if rest else ""
        made.append(Finding(f"{verdicts[REPRODUCED]} of {judged}", f"claims that could be judged are reproduced{more}"))
    return made


@dataclass(frozen=True)
class SuiteLine:
    """One suite in the index, as text; `claims` counts reproduced, not reproduced, and not judged here."""

    name: str
    title: str
    page: str
    rows: int
    methods: int
    networks: int
    share: str
    points: tuple[Point, ...]
    claims: tuple[int, int, int]
    ok: int
    disturbed: int
    failed: int
    newest: str


def suite_lines(site: Site) -> list[SuiteLine]:
    """A line for each suite, by name."""
    return [_line(site, name) for name in site.suites]


def _line(site: Site, name: str) -> SuiteLine:
    own = site.of_suite(name)
    verdicts = Counter(str(claim["verdict"]) for claim in own.claims)
    judged = verdicts[REPRODUCED] + verdicts[NOT_REPRODUCED]
    found = typical(points(own.rows))
    disturbed = sum(row.disturbed for row in own.rows)
    ok = sum(row.ranked for row in own.rows)
    return SuiteLine(
        name=own.title,
        title=site.suite_titles.get(name, ""),
        page=suite_page(name),
        rows=len(own.rows),
        methods=len({row.case.method for row in own.rows if not row.by_model and not row.case.is_baseline}),
        networks=len({row.case.model for row in own.rows}),
        share=shown_quartiles(found),
        points=tuple(found),
        claims=(verdicts[REPRODUCED], verdicts[NOT_REPRODUCED], sum(verdicts.values()) - judged),
        ok=ok,
        disturbed=disturbed,
        failed=len(own.rows) - ok - disturbed,
        newest=max(map(day_of, own.records), default=""),
    )


def state(line: SuiteLine) -> list[tuple[str, str]]:
    """Kinds of badge with their text: what is ok, disturbed, failed."""
    parts = (("good", line.ok, "ok"), ("care", line.disturbed, "disturbed"), ("bad", line.failed, "failed"))
    return [(kind, f"{count} {word}") for kind, count, word in parts if count]


def counted(line: SuiteLine) -> str:
    """What a suite holds: `26 rows, 4 methods, 3 networks`."""
    parts = [plural(line.rows, "row")]
    if line.methods:
        parts.append(plural(line.methods, "method"))
    return ", ".join([*parts, plural(line.networks, "network")])
