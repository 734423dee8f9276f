"""Time in system over the offered load: mean and percentiles of a pipeline in open loops, and where it is unstable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.content import Site
from reports.rows import Cell, Row

#: What is drawn, by its name in a legend.
TIMES = {"p50": "sojourn_p50_ms", "p90": "sojourn_p90_ms", "p99": "sojourn_p99_ms", "mean": "sojourn_mean_ms"}
#: Axes of the shape that say how much is offered.
_OFFERED = ("rate", "load")


@dataclass(frozen=True)
class Point:
    """One offered rate: times in ms by name, where they are known, and whether the backlog stayed where it was."""

    rate: float
    load: float | None
    times: dict[str, Cell]
    stable: bool
    reason: str


@dataclass(frozen=True)
class Course:
    """One case over rising offered rates, everything else equal."""

    name: str
    points: tuple[Point, ...]

    @property
    def unstable(self) -> list[float]:
        """Offered rates at which the backlog grew."""
        return [point.rate for point in self.points if not point.stable]


def courses(site: Site) -> list[Course]:
    """The cases that were offered arrivals, in the order of the site."""
    found: dict[tuple[object, ...], list[Point]] = {}
    names: dict[tuple[object, ...], str] = {}
    for row in site.rows:
        rate = row.value("offered_rate")
        if rate is None or row.status not in ("ok", "unstable"):
            continue
        key = _fixed(row)
        names[key] = _name(row)
        times = {name: row.cells[metric] for name, metric in TIMES.items() if row.value(metric) is not None}
        point = Point(rate, row.value("offered_load"), times, row.status == "ok", row.reason)
        found.setdefault(key, []).append(point)
    return [Course(names[key], tuple(sorted(points, key=lambda each: each.rate))) for key, points in found.items()]


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
    return ", ".join([row.case.model_label, *further])


def table(found: Sequence[Course]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a case and an offered rate each, with its times or why there are none."""
    head = ["case", "offered (1/s)", "of its capacity", *(f"{name} (ms)" for name in TIMES)]
    lines = []
    for one in found:
        for point in one.points:
            load = "unavailable" if point.load is None else f"{point.load:.0f} %"
            times = [_said(point, name) for name in TIMES]
            lines.append([one.name, f"{point.rate:.3g}", load, *times])
    return head, lines


def _said(point: Point, name: str) -> str:
    cell = point.times.get(name)
    if cell is None or cell.value is None:
        return "-" if point.stable else "unstable"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.3g}"
    return f"{cell.value:.3g} [{cell.low:.3g}, {cell.high:.3g}]"
