"""Two machines side by side: first how they differ, then what that does to every case that ran on both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reports.pages.page import Sheet, render

if TYPE_CHECKING:
    from reports.site import Site


def wanted(site: Site) -> bool:
    """Whether two machines were named or there are exactly two."""
    return site.compare is not None


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `compare.html`."""
    yield Sheet("compare.html", "", lambda: render("compare.html.j2", site, "compare.html"))
