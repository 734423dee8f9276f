"""Every claim of the suites' papers: what it says, what was found here, and the rows behind the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reports.addresses import method_page
from reports.content import Site
from reports.pages.page import Sheet, render
from reports.rows import Row
from reports.scores import SCORES

#: Verdict of a claim -> kind of its badge, in the order of the page.
KINDS = {"reproduced": "good", "not reproduced": "bad", "not comparable here": "care"}


#: Claims of one verdict beyond which their list is folded up at first.
MOST_OPEN = 40


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `claims.html`."""
    yield Sheet("claims.html", "", lambda: _page(site))


def judged(claims: Iterable[dict[str, Any]], most: int = 8) -> list[dict[str, Any]]:
    """The claims that the first page shows: those with a verdict, the contradicted ones first."""
    found = [claim for claim in claims if claim["verdict"] in ("reproduced", "not reproduced")]
    return sorted(found, key=lambda claim: claim["verdict"] == "reproduced")[:most]


def paper_of(claim: dict[str, Any]) -> str:
    """The paper of a claim as its source begins: `Chen et al. 2023`."""
    return str(claim["source"]).partition(",")[0].strip()


def _page(site: Site) -> str:
    numbered = list(enumerate(site.claims))
    by_verdict = [
        (verdict, kind, [(number, claim) for number, claim in numbered if claim["verdict"] == verdict])
        for verdict, kind in KINDS.items()
    ]
    several = len({claim.get("suite") for claim in site.claims}) > 1
    return render(
        "claims.html.j2",
        site,
        "claims.html",
        verdicts=by_verdict,
        rows=_rows(site),
        scores=SCORES,
        paper_of=paper_of,
        with_suite=several,
        most_open=MOST_OPEN,
        method_pages=_method_pages(site),
    )


def _method_pages(site: Site) -> dict[str, str]:
    """The page of every method that has one."""
    return {
        row.case.method: method_page(row.case.method) for row in site.rows if not (row.case.is_baseline or row.by_model)
    }


def _rows(site: Site) -> dict[str, list[Row]]:
    """The rows behind each case key that a claim names."""
    named = {key for claim in site.claims for key in claim.get("case_keys") or []}
    found: dict[str, list[Row]] = {key: [] for key in named}
    for row in site.rows:
        if row.case_key in found:
            found[row.case_key].append(row)
    return found
