"""Time in system over the offered load: mean and percentiles of a pipeline in open loops, and where it is unstable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.store.records import DISTURBED
from reports.content import Site
from reports.rows import Cell, Row

#: What is drawn, by its name in a legend.
TIMES = {"p50": "sojourn_p50_ms", "p90": "sojourn_p90_ms", "p99": "sojourn_p99_ms", "mean": "sojourn_mean_ms"}
#: Axes of the shape that say how much is offered.
_OFFERED = ("rate", "load", "rising")


@dataclass(frozen=True)
class Point:
    """One offered rate: times in ms by name, where they are known, and whether the backlog stayed where it was.

    `disturbed` is one at which other work had the core: its times are shown and not drawn. `expected` is the mean by
    the closed form of a server of known service.
    """

    rate: float
    load: float | None
    times: dict[str, Cell]
    stable: bool
    reason: str
    disturbed: bool = False
    expected: float | None = None


@dataclass(frozen=True)
class Course:
    """One case over rising offered rates, everything else equal."""

    name: str
    points: tuple[Point, ...]

    @property
    def sound(self) -> list[Point]:
        """What is drawn: points that other work did not disturb."""
        return [point for point in self.points if not point.disturbed]

    @property
    def unstable(self) -> list[float]:
        """Offered rates at which the backlog grew."""
        return [point.rate for point in self.points if not point.stable]


def courses(site: Site) -> list[Course]:
    """The cases that were offered arrivals, in the order of the site."""
    found: dict[tuple[object, ...], list[Point]] = {}
    names: dict[tuple[object, ...], str] = {}
    for row in site.rows:
        points = [*_rising(row), *_at_its_rate(row)] if row.status in ("ok", DISTURBED, "unstable") else []
        if points:
            key = _fixed(row)
            names[key] = _name(row)
            found.setdefault(key, []).extend(points)
    return [Course(names[key], tuple(sorted(points, key=lambda each: each.rate))) for key, points in found.items()]


def _at_its_rate(row: Row) -> list[Point]:
    """The one rate that a row was offered, if it was."""
    rate = row.value("offered_rate")
    if rate is None:
        return []
    times = {name: row.cells[metric] for name, metric in TIMES.items() if row.value(metric) is not None}
    stable, disturbed = row.status != "unstable", row.status == DISTURBED
    expected = row.value("sojourn_expected_ms")
    return [Point(rate, row.value("offered_load"), times, stable, row.reason, disturbed, expected)]


def _rising(row: Row) -> list[Point]:
    """The rates that a row was offered one after another."""
    found = []
    for point in (row.record.get("workload") or {}).get("rising") or []:
        told = {name: point["times"][metric] for name, metric in TIMES.items() if metric in point["times"]}
        times = {name: Cell(ends[0], ends[1], ends[2], None, "measured") for name, ends in told.items()}
        load = 100 * point["load"]
        found.append(Point(point["rate"], load, times, point["stable"], point["reason"], row.status == DISTURBED))
    return found


def _fixed(row: Row) -> tuple[object, ...]:
    shape = {name: value for name, value in row.case.full_shape.items() if name not in _OFFERED}
    case = row.case
    return (
        row.name,
        row.machine_key,
        case.device,
        case.dtype,
        case.backend,
        case.task,
        tuple(sorted(shape.items(), key=repr)),
    )


def _name(row: Row) -> str:
    """The case with what of its shape is not as usual."""
    shape = row.case.full_shape
    further = [f"{name} {shape[name]:g}" for name in ("servers", "together", "window_ms") if shape.get(name, 1) > 1]
    arrivals = {0: ["evenly spaced"], 2: ["in bursts"]}.get(shape.get("arrivals", 1), [])
    return ", ".join([row.case.model_label, *further, *arrivals])


def table(found: Sequence[Course]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a case and an offered rate each, with its times or why there are none."""
    head = ["case", "offered (1/s)", "of its capacity", *(f"{name} (ms)" for name in TIMES)]
    knows = any(point.expected is not None for one in found for point in one.points)
    head += ["mean by its closed form (ms)"] if knows else []
    lines = []
    for one in found:
        for point in one.points:
            load = "unavailable" if point.load is None else f"{point.load:.0f} %"
            times = [_said(point, name) for name in TIMES]
            load += ", disturbed" if point.disturbed else ""
            known = ["-" if point.expected is None else f"{point.expected:.4g}"] if knows else []
            lines.append([one.name, f"{point.rate:.3g}", load, *times, *known])
    return head, lines


def _said(point: Point, name: str) -> str:
    cell = point.times.get(name)
    if cell is None or cell.value is None:
        return "-" if point.stable else "unstable"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.3g}"
    return f"{cell.value:.3g} [{cell.low:.3g}, {cell.high:.3g}]"
