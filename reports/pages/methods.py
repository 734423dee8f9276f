"""The methods card in prose, made from the protocol actually used, and BibTeX of what it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reports.bibliography import entries_for
from reports.content import Site
from reports.methods import card
from reports.pages.page import Sheet, render


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `methods.html`."""
    yield Sheet("methods.html", "", lambda: _page(site))


def _page(site: Site) -> str:
    shared: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in site.records:
        key = (str((record.get("protocol") or {}).get("hash")), record["machine_key"])
        shared.setdefault(key, []).append(record)
    names = {name for row in site.rows for name in (row.case.method, row.case.model)}
    return render(
        "methods.html.j2",
        site,
        "methods.html",
        cards=[card(records) for records in shared.values()],
        protocols={key[0]: records[0].get("protocol") or {} for key, records in shared.items()},
        references=entries_for(names, site.references),
        columns=site.columns,
    )
