"""The first page: findings, the chooser, the leaderboard, figures, failures, and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from reports.batches import crossings, panels
from reports.content import Site
from reports.figure_sets import across, of_groups
from reports.figures.theme import styles_of
from reports.findings import findings, headline
from reports.leaderboard import MARKS, payload
from reports.methods import summary
from reports.over_models import describe, lines
from reports.pages.claims import KINDS, judged
from reports.pages.page import Sheet, render
from reports.rows import OF_BASELINE
from reports.safe import inert_json


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `index.html`."""
    yield Sheet("index.html", "", lambda: _page(site))


def _page(site: Site) -> str:
    styles = styles_of(site.rows)
    by_batch = panels(site.rows)
    return render(
        "leaderboard.html.j2",
        site,
        "index.html",
        headline=headline(site.rows, site.groups),
        findings=findings(site.rows, site.groups),
        data=inert_json(payload(site.rows, site.groups, site.columns)),
        figures=of_groups(site, styles),
        across=across(site, styles),
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
        marks=_marks(site),
        protocols=[summary(record) for record in _one_per_protocol(site)],
        environments=_environments(site),
    )


def _unavailable(site: Site) -> list[tuple[str, str, int]]:
    """Columns with missing values: title, reason, in how many rows that finished; most rows first."""
    counted: Counter[tuple[str, str]] = Counter()
    for row in site.rows:
        if row.status == "ok":
            for column in site.columns:
                cell = row.cells.get(column.key)
                if cell is not None and cell.value is None and cell.note != OF_BASELINE:
                    counted[column.title, cell.note] += 1
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
