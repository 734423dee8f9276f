"""From which length a method pays: speed-ups of one case over a number of its shape (context, length), by part of its
workload.

Only measured lengths are named and nothing is interpolated. A method pays *from* a length if the whole 95 % interval of
its speed-up is above 1 there and at every longer one that was measured. Beside the time stand the bytes of the cache,
where there is one, as a share of the other side's, and how much of the measured time the roofline explains: the rest is
overhead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.content import Site
from reports.groups import AXES
from reports.rows import Cell, Row, column_key

#: Numbers of a shape that are lengths, with the part whose time is asked for; empty for the whole run.
LENGTHS = {"context": "decode", "length": ""}
#: What is above 1 for certain, below 1 for certain, or neither.
GAIN, LOSS, UNSURE, UNKNOWN = "gain", "loss", "unsure", "unknown"


@dataclass(frozen=True)
class Point:
    """One case at one length: its speed-up, cache over the other side's, and the roofline's share of both times."""

    length: float
    row: Row
    speedup: Cell | None
    cache: float | None
    explained: float | None
    explained_other: float | None

    @property
    def verdict(self) -> str:
        """Whether it is a gain."""
        cell = self.speedup
        if cell is None or cell.value is None or cell.low is None or cell.high is None:
            return UNKNOWN
        if cell.low > 1:
            return GAIN
        return LOSS if cell.high < 1 else UNSURE


@dataclass(frozen=True)
class Course:
    """One case over rising lengths, everything else equal; `axis` names the length, `batch` is that of all points."""

    name: str
    family: str
    axis: str
    batch: int
    points: tuple[Point, ...]

    @property
    def pays_from(self) -> float | None:
        """The shortest measured length from which on every measured one is a gain; None where there is none."""
        found = None
        for point in reversed(self.points):
            if point.verdict != GAIN:
                break
            found = point.length
        return found


def courses(site: Site) -> list[Course]:
    """The cases that were measured against another side at two or more lengths, in the order of the site."""
    found = []
    for axis, part in LENGTHS.items():
        groups: dict[tuple[object, ...], list[Row]] = {}
        for row in site.rows:
            if row.ranked and not row.case.is_baseline and isinstance(row.case.full_shape.get(axis), int | float):
                groups.setdefault(_fixed(row, axis), []).append(row)
        varied = _varied(groups.values(), axis)
        for rows in groups.values():
            points = {float(row.case.full_shape[axis]): _point(site, row, axis, part) for row in rows}
            if len(points) > 1:
                first = rows[0]
                listed = tuple(points[length] for length in sorted(points))
                shape = first.case.full_shape
                sizes = (f"{each} {shape[each]:g}" for each in varied if shape.get(each) is not None)
                name = ", ".join([first.name, *sizes])
                found.append(Course(name, first.family, axis, first.case.batch, listed))
    return found


def _varied(groups: Iterable[Sequence[Row]], axis: str) -> list[str]:
    """Other numbers of the shape in which courses differ: without them two would bear one name."""
    shapes = [rows[0].case.full_shape for rows in groups]
    names = {name: None for shape in shapes for name, value in shape.items() if isinstance(value, int | float)}
    return [name for name in names if name not in (axis, "batch") and len({shape.get(name) for shape in shapes}) > 1]


def _fixed(row: Row, axis: str) -> tuple[object, ...]:
    """All conditions of a row but the length."""
    rest = tuple(sorted((name, repr(value)) for name, value in row.case.axes.items() if name != axis))
    return (axis, row.name, rest, *(each.read(row) for each in AXES if each.key not in (axis, "shape")))


def _point(site: Site, row: Row, axis: str, part: str) -> Point:
    base = site.baseline(row)
    own, other = row.value("cache_bytes"), base.value("cache_bytes") if base else None
    return Point(
        float(row.case.full_shape[axis]), row, row.cells.get(column_key("speedup", part)),
        own / other if own is not None and other else None, _explained(row, part), _explained(base, part),
    )  # fmt: skip


def _explained(row: Row | None, part: str) -> float | None:
    """Time that the roofline explains over the time that was measured."""
    if row is None:
        return None
    bound, took = row.value("attainable_ms", part), row.value("latency_ms", part)
    return bound / took if bound and took else None


def table(found: Sequence[Course]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a case and batch each, its points by length, and from which length it pays."""
    lengths = sorted({(course.axis, point.length) for course in found for point in course.points})
    head = ["case", "batch", *(f"{axis} {length:g}" for axis, length in lengths), "pays from"]
    lines = []
    for course in found:
        by = {(course.axis, point.length): point for point in course.points}
        cells = [_said(by.get(key)) for key in lengths]
        lines.append([course.name, str(course.batch), *cells, _verdict(course)])
    return head, lines


def _verdict(course: Course) -> str:
    """From which length on a case pays, or at which alone where it loses again further on."""
    if course.pays_from is not None:
        return f"{course.axis} {course.pays_from:g}"
    gains = [f"{point.length:g}" for point in course.points if point.verdict == GAIN]
    return f"at {course.axis} {', '.join(gains)} alone" if gains else "not at any length that was measured"


def _said(point: Point | None) -> str:
    """`1.31x [1.28, 1.34], cache 0.25, roofline 12 % (plain 15 %)`."""
    if point is None:
        return "-"
    cell = point.speedup
    if cell is None or cell.value is None:
        return f"unavailable ({cell.note})" if cell is not None and cell.note else "unavailable"
    said = [f"{cell.value:.2f}x"]
    if cell.low is not None and cell.high is not None:
        said[0] += f" [{cell.low:.2f}, {cell.high:.2f}]"
    if point.cache is not None:
        said.append(f"cache {point.cache:.2f}")
    if point.explained is not None:
        other = "" if point.explained_other is None else f" (other side {100 * point.explained_other:.0f} %)"
        said.append(f"roofline {100 * point.explained:.0f} %{other}")
    return ", ".join(said)
