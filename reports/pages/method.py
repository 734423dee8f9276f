"""The page of a method: whether it delivers, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from reports.across import MethodLine, method_lines
from reports.addresses import method_page, suite_page
from reports.atlas import Point, points
from reports.batches import LATENCY, Crossing, Panel, crossings, panels
from reports.case_table import MOST_LINES, case_lines, sentence
from reports.content import Site
from reports.figure_sets import guarded
from reports.figures import flagship
from reports.figures.promise_plane import Look, id_of
from reports.figures.theme import SERIES, SYMBOLS
from reports.manifest import digest_of
from reports.pages.claims import KINDS
from reports.pages.page import Sheet, render
from reports.rows import Row

#: Grey marks of the other methods; of more every so manieth is drawn.
MOST_BEHIND = 300


def sheets(site: Site) -> Iterable[Sheet]:
    """One sheet per method that a row has."""
    found: dict[str, list[Row]] = {}
    for row in site.rows:
        if not (row.case.is_baseline or row.by_model):
            found.setdefault(row.case.method, []).append(row)
    for name, rows in sorted(found.items()):
        page = partial(_page, site, name, rows)
        yield Sheet(method_page(name), _digest(site, name, rows), page, partial(page, whole=False))


def _digest(site: Site, name: str, rows: Sequence[Row]) -> str:
    suites = sorted({row.case.suite for row in rows})
    return digest_of(
        [site.mark_of(row) for suite in suites for row in site.of_suite(suite).rows],
        _claims(site, name),
        str(_over_machines(site, name)),
        str(site.card(name)),
        site.title,
        [link.path for link in site.navigation],
    )


def _claims(site: Site, name: str) -> list[dict[str, object]]:
    return [claim for claim in site.claims if claim["method"] == name]


def _page(site: Site, name: str, rows: Sequence[Row], *, whole: bool = True) -> str:
    """The page; without its figure and crossings where a build has no time left for them."""
    here = method_page(name)
    own = points(rows)
    suites = sorted({row.case.suite for row in rows})
    lines = case_lines(rows, site, by_network=True)
    return render(
        "method.html.j2",
        site,
        here,
        name=name,
        headline=sentence(name, own, "case"),
        card=site.card(name),
        suites=[(site.of_suite(suite).title, suite_page(suite)) for suite in suites],
        whole=whole,
        drawing=guarded(flagship.ID, here, site, lambda: _picture(site, name, own, suites)) if own and whole else None,
        pays=_pays(site, rows) if whole else [],
        lines=lines[:MOST_LINES],
        left_out=max(0, len(lines) - MOST_LINES),
        with_own=any(line.own != "—" for line in lines),
        machines=_over_machines(site, name),
        claims=_claims(site, name),
        claim_kinds=KINDS,
    )


def _over_machines(site: Site, name: str) -> list[MethodLine]:
    """What the method gives in each class of machines; nothing where all of its rows are of one."""
    if not site.has_several_places:
        return []
    return method_lines(site.across, [method for method in site.across.methods if method.method == name])


def _picture(site: Site, name: str, own: Sequence[Point], suites: Sequence[str]) -> flagship.Figure:
    """The points of the method before those of its suites."""
    mine = {id_of(point) for point in own}
    others = [p for suite in suites for p in points(site.of_suite(suite).rows) if id_of(p) not in mine]
    step = -(-len(others) // MOST_BEHIND) or 1
    return flagship.figure(
        own, by_network(own), title=f"{name} among the methods of its suite", behind=others[::step], notes=()
    )


def by_network(own: Sequence[Point]) -> Callable[[Point], Look]:
    """A colour and a mark per network."""
    return _look_by(own, lambda point: point.row.side.model_label)


def by_family(own: Sequence[Point]) -> Callable[[Point], Look]:
    """A colour and a mark per method."""
    return _look_by(own, lambda point: point.row.family)


def _look_by(own: Sequence[Point], name_of: Callable[[Point], str]) -> Callable[[Point], Look]:
    names = sorted({name_of(point) for point in own})
    looks = {
        name: Look(SERIES[i % len(SERIES)], ("circle", *SYMBOLS)[i % (1 + len(SYMBOLS))], name)
        for i, name in enumerate(names)
    }
    return lambda point: looks[name_of(point)]


def _pays(site: Site, rows: Sequence[Row]) -> list[tuple[Panel, list[Crossing]]]:
    """From which batch it pays, network by network."""
    bases = {base.page: base for row in rows if (base := site.baseline(row)) is not None}
    return [(panel, crossings(panel)) for panel in panels([*bases.values(), *rows], (LATENCY,))]
