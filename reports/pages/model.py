"""The page of a network: what can be done to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from reports.addresses import model_page, suite_page
from reports.atlas import points
from reports.case_table import MOST_LINES, case_lines, sentence
from reports.content import Site
from reports.drawing import Drawing
from reports.figure_sets import guarded
from reports.figures import flagship, pareto, waterline
from reports.figures.theme import styles_of
from reports.manifest import digest_of
from reports.pages.method import by_family
from reports.pages.page import Sheet, render
from reports.rows import Row


def sheets(site: Site) -> Iterable[Sheet]:
    """One sheet per network that a row is of."""
    found: dict[str, list[Row]] = {}
    for row in site.rows:
        found.setdefault(row.case.model, []).append(row)
    for name, rows in sorted(found.items()):
        page = partial(_page, site, name, rows)
        yield Sheet(model_page(name), _digest(site, name, rows), page, partial(page, whole=False))


def _digest(site: Site, name: str, rows: Sequence[Row]) -> str:
    return digest_of(
        [(site.mark_of(row), row.pareto) for row in rows],
        str(site.card(name)),
        site.title,
        [link.path for link in site.navigation],
    )


def _page(site: Site, name: str, rows: Sequence[Row], *, whole: bool = True) -> str:
    """The page; without its figures where a build has no time left for them."""
    here = model_page(name)
    own = points(rows)
    lines = case_lines(rows, site, by_network=False)
    plain = _plain(rows)
    suites = sorted({row.case.suite for row in rows})
    compared = any(not row.case.is_baseline for row in rows)
    return render(
        "model.html.j2",
        site,
        here,
        name=name,
        headline=sentence(name, own, "case") if compared else f"{name}: measured as it is",
        card=site.card(name),
        suites=[(site.of_suite(suite).title, suite_page(suite)) for suite in suites],
        whole=whole,
        drawings=_drawings(site, name, rows, here) if whole else [],
        plain=plain,
        plain_group=site.groups[plain.group].title if plain else "",
        lines=lines[:MOST_LINES],
        left_out=max(0, len(lines) - MOST_LINES),
        baselines=[(row, site.groups[row.group].title) for row in rows if row.case.is_baseline],
    )


def _drawings(site: Site, name: str, rows: Sequence[Row], here: str) -> list[Drawing]:
    """Promise and machine, quality against latency where most rows share their conditions, the plain waterline."""
    made = []
    own = points(rows)
    if own:
        picture = partial(flagship.figure, own, by_family(own), title=f"What every method promises {name} and gives")
        made.append(guarded(flagship.ID, here, site, picture))
    fair = _largest_group([row for row in rows if row.ranked])
    if len(fair) > 1 and pareto.pairs(fair):
        made.append(guarded(pareto.ID, here, site, lambda: pareto.figure(fair, styles=styles_of(rows))))
    plain = _plain(rows)
    if plain is not None and plain.record.get("layers"):
        made.append(guarded(waterline.ID, here, site, lambda: waterline.figure(plain.record)))
    return made


def _largest_group(rows: Sequence[Row]) -> list[Row]:
    """The rows of the conditions that most of them share: nothing else may stand on one front."""
    members: dict[int, list[Row]] = {}
    for row in rows:
        members.setdefault(row.group, []).append(row)
    return max(members.values(), key=len, default=[])


def _plain(rows: Sequence[Row]) -> Row | None:
    """The row of the network as it is, with layers where one has them."""
    found = [row for row in rows if row.case.is_baseline or row.by_model]
    return min(found, key=lambda row: (not row.ranked, not row.record.get("layers"), row.group), default=None)
