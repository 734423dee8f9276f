"""From which batch a method pays: speed-ups of one case over several batches, and the smallest that is surely a gain.

Only measured batches are named and nothing is interpolated. A batch pays where the whole 95 % interval of the speed-up
is above 1, and a method pays *from* a batch if it pays there and at every larger batch that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.timings import FIELDS, paired
from bench.short_names import short_names
from bench.statistics import ratio_interval_paired
from reports.groups import AXES, conditions_of
from reports.rows import Cell, Row

#: How a speed-up was taken -> what it is called.
LATENCY, THROUGHPUT = "one run", "back to back"
MEASURES = (LATENCY, THROUGHPUT)

_BATCH = next(place for place, each in enumerate(AXES) if each.key == "batch")
_FIXED = AXES[:_BATCH] + AXES[_BATCH + 1 :]
#: Conditions that are said only where panels differ in them.
_NAMED = tuple(each for each in _FIXED if each.key != "machine")


@dataclass(frozen=True)
class Point:
    """The speed-up of one case at one batch over the side it is compared with; `gains` by measure."""

    batch: int
    row: Row
    promised: float | None
    gains: dict[str, Cell]


@dataclass(frozen=True)
class Course:
    """One method with its setting, or one model, against one other side: its points by rising batch.

    `failed` batches gave no speed-up; `method` is the family, whose colour it has.
    """

    name: str
    method: str
    points: tuple[Point, ...]
    failed: tuple[int, ...] = ()

    @property
    def promised(self) -> float | None:
        """The baseline's MACs over the method's; None where they are unknown or depend on the batch."""
        known = {round(point.promised, 6) for point in self.points if point.promised is not None}
        return known.pop() if len(known) == 1 else None


@dataclass(frozen=True)
class Panel:
    """All that is compared with one network under conditions that are equal but for the batch."""

    title: str
    courses: tuple[Course, ...]

    @property
    def batches(self) -> list[int]:
        """Every batch that was tried with any method, whether or not it gave a speed-up."""
        tried = {point.batch for course in self.courses for point in course.points}
        return sorted(tried.union(*(course.failed for course in self.courses)))


def panels(rows: Sequence[Row], measures: Sequence[str] = MEASURES) -> list[Panel]:
    """The networks on which a method was measured at two or more batches, in the order of `rows`.

    Args:
        rows: of one suite.
        measures: how speed-ups are taken; that by throughput is paired anew, which a table does not need.
    """
    members: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if not row.case.is_baseline:
            other = (row.side.model_label, row.side.method_label)
            shared = conditions_of(row)
            members.setdefault((*other, *shared[:_BATCH], *shared[_BATCH + 1 :]), []).append(row)
    bases = {(row.case_key, row.machine_key): row for row in rows if row.case.is_baseline}
    found = {key: courses for key, own in members.items() if (courses := _courses(own, bases, measures))}
    titles = _titles([members[key][0] for key in found])
    return [Panel(title, courses) for title, courses in zip(titles, found.values(), strict=True)]


def _titles(first: Sequence[Row]) -> list[str]:
    """Each panel's network, with the conditions in which panels differ."""
    machines = len({row.machine_key for row in first}) > 1
    varying = [axis for axis in _NAMED if len({axis.read(row) for row in first}) > 1]
    titles = []
    for row in first:
        model = f"against {row.against}" if row.against else row.model
        said = [axis.show(axis.read(row)) for axis in varying]
        titles.append(", ".join([model, *said, *([_FIXED[0].show(_FIXED[0].read(row))] if machines else [])]))
    return [title if titles.count(title) == 1 else f"{title} ({place})" for place, title in enumerate(titles, 1)]


def _courses(rows: Sequence[Row], bases: dict[tuple[str, str], Row], measures: Sequence[str]) -> tuple[Course, ...]:
    """The methods of one panel in the order of `rows`; none if no method has two batches."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name if row.by_model or row.against else row.head_in_full, []).append(row)
    names = short_names(list(by_name))
    made = [_course(names[label], own, bases, measures) for label, own in by_name.items()]
    useful = tuple(course for course in made if course.points)
    return useful if any(len(course.points) > 1 for course in useful) else ()


def _course(name: str, rows: Sequence[Row], bases: dict[tuple[str, str], Row], measures: Sequence[str]) -> Course:
    ordered = sorted(rows, key=lambda row: row.case.batch)
    points, failed = [], []
    for row in ordered:
        base = bases.get((str(row.record.get("baseline_key")), row.machine_key))
        gains = _gains(row, base if THROUGHPUT in measures else None) if row.ranked else {}
        if LATENCY in gains:
            points.append(Point(row.case.batch, row, row.value("mac_ratio"), gains))
        else:
            failed.append(row.case.batch)
    return Course(name, ordered[0].family, tuple(points), tuple(failed))


def _gains(row: Row, base: Row | None) -> dict[str, Cell]:
    """The speed-up by latency as it was recorded, and by throughput where the same processes timed both."""
    latency = row.cells.get("speedup")
    found = {LATENCY: latency} if latency is not None and latency.value else {}
    rates = [name for name in FIELDS if name != "latency_ms" and row.value(name) is not None]
    both = paired(base.record, row.record, rates[0]) if base is not None and rates else None
    if both:
        ratio = ratio_interval_paired(both[1], both[0])
        found[THROUGHPUT] = Cell(ratio.value, ratio.low, ratio.high, ratio.n, "measured")
    return found


def pays(cell: Cell | None) -> bool | None:
    """True where the whole interval is above 1, False where it is all below, None where it holds 1 or is not known."""
    if cell is None or cell.low is None or cell.high is None:
        return None
    return True if cell.low > 1 else False if cell.high < 1 else None


def pays_from(course: Course, measure: str = LATENCY) -> int | None:
    """The smallest measured batch at which the method pays, there and at every larger one; None if there is none."""
    first = None
    for point in reversed([p for p in course.points if measure in p.gains]):
        if not pays(point.gains[measure]):
            break
        first = point.batch
    return first


def in_words(course: Course, measure: str = LATENCY) -> str:
    """Where the method begins to pay, as a reader says it; never between two measured batches."""
    measured = [point for point in course.points if measure in point.gains]
    if not measured:
        return "not measured"
    first, batches = pays_from(course, measure), [point.batch for point in measured]
    if len(batches) == 1:
        return f"{'pays' if first else 'does not pay'} at {batches[0]}, the only batch measured"
    if first is None:
        before = [point.batch for point in measured if pays(point.gains[measure])]
        lost = f"; it does at {_listed(before)}" if before else ""
        return f"not up to {batches[-1]}{lost}"
    if first == batches[0]:
        return f"from the smallest measured batch ({first})"
    return f"from batch {first}"


def _listed(batches: Sequence[int]) -> str:
    return ", ".join(str(batch) for batch in batches)


@dataclass(frozen=True)
class Crossing:
    """One line of the table of crossings, as text."""

    network: str
    method: str
    promised: str
    gains: tuple[str, ...]
    verdict: str


def crossings(panel: Panel, measure: str = LATENCY) -> list[Crossing]:
    """The table of a panel: a method per line, a measured batch per column, and from where it pays."""
    return [
        Crossing(
            panel.title,
            course.name,
            "—" if course.promised is None else f"{course.promised:.2f}×",
            tuple(_at(course, batch, measure) for batch in panel.batches),
            in_words(course, measure),
        )
        for course in panel.courses
    ]


def _at(course: Course, batch: int, measure: str) -> str:
    cell = next((point.gains.get(measure) for point in course.points if point.batch == batch), None)
    if cell is None or cell.value is None:
        return "no valid time" if batch in course.failed else "—"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.2f}×"
    return f"{cell.value:.2f}× [{cell.low:.2f}, {cell.high:.2f}]"
