"""Every claim of the suite's papers: what it says, what was found here, and the rows behind the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reports.content import Site
from reports.pages.page import Sheet, render
from reports.rows import Row
from reports.scores import SCORES

#: Verdict of a claim -> kind of its badge, in the order of the page.
KINDS = {"reproduced": "good", "not reproduced": "bad", "not comparable here": "care"}


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `claims.html`."""
    yield Sheet("claims.html", "", lambda: _page(site))


def judged(claims: Iterable[dict[str, Any]], most: int = 8) -> list[dict[str, Any]]:
    """The claims that the first page shows: those with a verdict, the contradicted ones first."""
    found = [claim for claim in claims if claim["verdict"] in ("reproduced", "not reproduced")]
    return sorted(found, key=lambda claim: claim["verdict"] == "reproduced")[:most]


def _page(site: Site) -> str:
    by_verdict = [
        (verdict, kind, [claim for claim in site.claims if claim["verdict"] == verdict])
        for verdict, kind in KINDS.items()
    ]
    return render("claims.html.j2", site, "claims.html", verdicts=by_verdict, rows=_rows(site), scores=SCORES)


def _rows(site: Site) -> dict[str, list[Row]]:
    """The rows behind each case key that a claim names."""
    named = {key for claim in site.claims for key in claim.get("case_keys") or []}
    return {key: [row for row in site.rows if row.case_key == key] for key in named}
