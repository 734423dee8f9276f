"""The machines side by side: their classes, and whether what a method saves on one it saves on another."""

from __future__ import annotations

from collections.abc import Iterable

from reports.across import MOST_FLIPS, class_lines, flip_lines, headline, method_lines, pair_lines
from reports.addresses import MACHINES
from reports.content import Site
from reports.pages.page import Sheet, render


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `machines.html`."""
    yield Sheet(MACHINES, "", lambda: _page(site))


def _page(site: Site) -> str:
    found = site.across
    return render(
        "machines.html.j2",
        site,
        MACHINES,
        headline=headline(found),
        reason=found.reason,
        classes=class_lines(found),
        pairs=pair_lines(found),
        methods=method_lines(found, found.methods),
        flips=flip_lines(found.flips, found, site),
        left_out=max(0, len(found.flips) - MOST_FLIPS),
    )
