"""The first page: what of the promised efficiency arrives over everything here, then a line per suite."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.words import plural
from reports import atlas
from reports.addresses import INDEX, machine_page, method_page, model_page
from reports.atlas import Point, SuiteLine
from reports.content import Site
from reports.figure_sets import guarded
from reports.figures import flagship
from reports.findings import headline
from reports.groups import machine_line
from reports.pages.page import Sheet, render

ALL = "all suites"
#: Marks of a small picture; of more every so manieth is drawn.
MOST_DOTS = 90
WIDTH, HEIGHT = 92.0, 60.0


@dataclass(frozen=True)
class Small:
    """The flagship picture of one suite, small: dots with their class, the diagonal and the line of no gain."""

    dots: tuple[tuple[str, str, str], ...]
    diagonal: tuple[str, str, str, str]
    level: str
    label: str


@dataclass(frozen=True)
class Named:
    """A link to a page with the number of rows behind it."""

    name: str
    path: str
    rows: int


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `index.html`."""
    yield Sheet(INDEX, "", lambda: _page(site))


def _page(site: Site) -> str:
    found = atlas.typical(atlas.points(site.rows))
    lines = atlas.suite_lines(site)
    reach = _reach(found)
    said = atlas.headline(found) or headline(site.rows, site.groups)
    return render(
        "index.html.j2",
        site,
        INDEX,
        headline=said,
        title=plural(len(site.suites), "suite") if len(site.suites) > 3 else site.title,
        numbers=atlas.numbers(found, site.claims),
        drawing=guarded(flagship.ID, INDEX, site, lambda: _picture(found)) if found else None,
        lines=[(line, small(line.points, reach), atlas.state(line), atlas.counted(line)) for line in lines],
        methods=_methods(site),
        networks=_networks(site),
        machines=_machines(site),
        span=(WIDTH, HEIGHT),
        with_claims=bool(site.claims),
    )


def _picture(found: Sequence[Point]) -> flagship.Figure:
    suites = sorted({point.row.case.suite for point in found})
    views = {ALL: found} | {name: [p for p in found if p.row.case.suite == name] for name in suites}
    return flagship.figure(
        found,
        flagship.looks_by_suite(found),
        title="Promised against measured speed-up, one case for each method on each network",
        views=views if len(suites) > 1 else None,
        control="Suite",
        grey_legend=len(suites) > 1,
        facets_first=len(suites) > 1,
        notes=(
            "of the settings and batches of a method on a network the case in the middle is drawn, by the share that "
            "arrives; colours tell the methods of one suite apart and mean nothing from suite to suite",
        ),
    )


def _reach(found: Sequence[Point]) -> tuple[float, float]:
    """The common ends of all small pictures, so that they can be compared with each other."""
    values = [value for point in found for value in (point.promised, point.measured)]
    return min([0.7, *values]), max([2.0, *values])


def small(found: Sequence[Point], reach: tuple[float, float]) -> Small | None:
    """The small picture of a suite; None where it has no point."""
    if not found:
        return None
    low, high = (math.log(end) for end in reach)

    def across(value: float) -> float:
        return (math.log(value) - low) / (high - low)

    step = math.ceil(len(found) / MOST_DOTS)
    dots = tuple(
        (f"{WIDTH * across(point.promised):.1f}", f"{HEIGHT * (1 - across(point.measured)):.1f}", _kind(point))
        for point in found[::step]
    )
    return Small(
        dots=dots,
        diagonal=("0", f"{HEIGHT:g}", f"{WIDTH:g}", "0"),
        level=f"{HEIGHT * (1 - across(1.0)):.1f}",
        label=f"{len(found)} methods on networks, promised to the right, measured upwards",
    )


def _kind(point: Point) -> str:
    return "hollow" if point.row.disturbed else "faster" if point.faster else "slower" if point.slower else "open"


def _methods(site: Site) -> list[tuple[str, list[Named]]]:
    """The methods of each suite."""
    return [
        (
            site.of_suite(suite).title,
            [
                Named(name, method_page(name), count)
                for name, count in sorted(
                    Counter(
                        row.case.method
                        for row in site.of_suite(suite).rows
                        if not (row.case.is_baseline or row.by_model)
                    ).items()
                )
            ],
        )
        for suite in site.suites
    ]


def _networks(site: Site) -> list[tuple[str, list[Named]]]:
    return [
        (
            site.of_suite(suite).title,
            [
                Named(name, model_page(name), count)
                for name, count in sorted(Counter(row.case.model for row in site.of_suite(suite).rows).items())
            ],
        )
        for suite in site.suites
    ]


def _machines(site: Site) -> list[Named]:
    counts = Counter(row.machine_key for row in site.rows)
    first = {row.machine_key: row for row in reversed(site.rows)}
    return [Named(machine_line(first[key].record), machine_page(key), n) for key, n in counts.most_common()]


def suite_line_claims(line: SuiteLine) -> str:
    """How the claims of a suite stand, in a cell."""
    return " / ".join(map(str, line.claims)) if any(line.claims) else ""
