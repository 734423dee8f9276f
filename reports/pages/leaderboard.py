"""The page of a suite: findings, the chooser, the leaderboard, figures, claims, failures, and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

from reports import commands
from reports.addresses import slug, suite_figures, suite_page, suite_rows
from reports.atlas import Point, points
from reports.batches import LATENCY, crossings, panels
from reports.content import Site
from reports.drawing import Drawing, filed
from reports.figure_sets import GroupFigures, across, guarded, of_groups
from reports.figures import flagship
from reports.figures.promise_plane import Look
from reports.figures.theme import Style, styles_of
from reports.findings import findings, headline
from reports.leaderboard import MARKS, payload
from reports.manifest import digest_of
from reports.methods import summary
from reports.over_models import describe, lines
from reports.pages.claims import KINDS, judged
from reports.pages.page import Beside, Sheet, render
from reports.rows import OF_BASELINE
from reports.safe import script_data


def sheets(site: Site) -> Iterator[Sheet]:
    """Two sheets per suite: its page, and its rows as data of the scripts."""
    for name in site.suites:
        own = site.of_suite(name)
        digest = _digest(site, own)
        figures = _Figures(own, suite_figures(name))
        yield Sheet(
            suite_page(name),
            digest,
            partial(_page, own, name, figures),
            partial(_page, own, name, None),
            figures.beside,
        )
        yield Sheet(suite_rows(name), digest, partial(_rows, own, name))


class _Figures:
    """The figures of a suite's page; their data go into files beside it, so that the page opens quickly.

    One file is of what stands in the open page, the other of the groups that are folded away at first.
    """

    def __init__(self, site: Site, files: tuple[str, str]) -> None:
        self._site, self._files = site, files

    @property
    def beside(self) -> tuple[Beside, ...]:
        """The two files; empty where the page has no figures."""
        return tuple(Beside(path, partial(self._text, place)) for place, path in enumerate(self._files))

    def _text(self, place: int, brief: bool) -> str:
        return "" if brief else self._made.texts[place]

    @property
    def flagship(self) -> Drawing | None:
        """What arrives of the promise."""
        return self._made.flagship

    @property
    def of_groups(self) -> list[GroupFigures]:
        """Those of each group of comparable rows."""
        return self._made.of_groups

    @property
    def across(self) -> list[Drawing]:
        """Those that join groups."""
        return self._made.across

    @cached_property
    def _made(self) -> _Made:
        site, styles = self._site, styles_of(self._site.rows)
        first, groups, joined = _flagship(site, styles), of_groups(site, styles), across(site, styles)
        open_ones = [*([first] if first else []), *(one for group in groups[:1] for one in group.drawings), *joined]
        shown, text = filed(open_ones, self._files[0])
        folded, more = filed((one for group in groups[1:] for one in group.drawings), self._files[1])
        left = iter(shown)
        flagship = next(left) if first else None
        in_groups = iter([*islice(left, len(groups[0].drawings) if groups else 0), *folded])
        return _Made(
            flagship,
            [replace(group, drawings=tuple(islice(in_groups, len(group.drawings)))) for group in groups],
            list(left),
            (text, more),
        )


@dataclass(frozen=True)
class _Made:
    """The figures without their data, and the texts of the files that have them."""

    flagship: Drawing | None
    of_groups: list[GroupFigures]
    across: list[Drawing]
    texts: tuple[str, str]


def _digest(site: Site, own: Site) -> str:
    return digest_of(
        [(site.mark_of(row), row.rank, row.pareto) for row in own.rows],
        own.claims,
        own.title,
        [link.path for link in site.navigation],
        [column.key for column in own.columns],
        site.suite_titles,
    )


def _rows(own: Site, name: str) -> str:
    return script_data("rows", {**payload(own.rows, own.groups, own.columns), "suite": name})


def _page(site: Site, name: str, figures: _Figures | None) -> str:
    """The page; without its figures where a build has no time left for them."""
    by_batch = panels(site.rows, (LATENCY,))
    return render(
        "leaderboard.html.j2",
        site,
        site.here,
        suite_slug=slug(name),
        suite_title=site.suite_titles.get(name, ""),
        rows_file=suite_rows(name).rpartition("/")[2],
        headline=headline(site.rows, site.groups),
        findings=findings(site.rows, site.groups),
        whole=figures is not None,
        flagship=figures.flagship if figures else None,
        figures=figures.of_groups if figures else [],
        across=figures.across if figures else [],
        over_models=lines(site.rows),
        summed=describe,
        pays=[(panel, crossings(panel)) for panel in by_batch],
        methods=any(not row.by_model for row in site.rows),
        claims=site.claims,
        judged_claims=judged(site.claims),
        claim_kinds=KINDS,
        verdicts=Counter(claim["verdict"] for claim in site.claims),
        failed=[row for row in site.rows if not row.ranked],
        unavailable=_unavailable(site),
        retry=commands.retry(site, name, site.rows),
        marks=_marks(site),
        protocols=[summary(record) for record in _one_per_protocol(site)],
        environments=_environments(site),
    )


#: Networks that have a view of their own in the flagship picture.
MOST_VIEWS = 30


def _flagship(site: Site, styles: dict[str, Style]) -> Drawing | None:
    """Every case of the suite in one picture, also network by network: ratios, so that conditions may differ."""
    found = points(site.rows)
    if not found:
        return None

    def look(point: Point) -> Look:
        style = styles[point.row.family]
        return Look(style.colour, style.symbol, point.row.legend)

    networks = list(dict.fromkeys(point.row.side.model_label for point in found))
    views: dict[str, Sequence[Point]] = {"all networks": found}
    views |= {name: [p for p in found if p.row.side.model_label == name] for name in networks}
    make = partial(
        flagship.figure,
        found,
        look,
        title=f"Promised against measured speed-up, all {len(found)} cases",
        views=views if 1 < len(networks) <= MOST_VIEWS else None,
        control="Network",
    )
    return guarded(flagship.ID, site.here, site, make)


def _unavailable(site: Site) -> list[tuple[str, str, int]]:
    """Columns with missing values: title, reason, in how many rows that finished; most rows first."""
    counted: Counter[tuple[str, str]] = Counter()
    titles = {column.key: column.title for column in site.columns}
    for row in site.rows:
        if row.status == "ok":
            for key, cell in row.cells.items():
                if cell.value is None and cell.note != OF_BASELINE and key in titles:
                    counted[titles[key], cell.note] += 1
    return [(title, note, count) for (title, note), count in counted.most_common(60)]


def _marks(site: Site) -> list[tuple[str, str]]:
    present = {cell.provenance for row in site.rows for cell in row.cells.values()}
    return [(mark, name) for name, mark in MARKS.items() if name in present]


def _one_per_protocol(site: Site) -> list[dict[str, Any]]:
    found = {(record.get("protocol") or {}).get("hash"): record for record in site.records}
    return list(found.values())


def _environments(site: Site) -> list[tuple[str, dict[str, Any], int]]:
    """Machines of the site: title line, environment, number of rows."""
    counts = Counter(row.machine_key for row in site.rows)
    first = {row.machine_key: row for row in reversed(site.rows)}
    lines = {group.index: group.machine for group in site.groups}
    return [(lines[first[key].group], first[key].record.get("environment") or {}, n) for key, n in counts.most_common()]
