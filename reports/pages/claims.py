"""Every claim of the suite's papers: what it says, what was found here, and the rows behind the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reports.pages.page import Sheet, render

if TYPE_CHECKING:
    from reports.site import Site


def wanted(site: Site) -> bool:
    """Whether there is any claim to show."""
    return bool(site.claims)


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `claims.html`."""
    yield Sheet("claims.html", "", lambda: render("claims.html.j2", site, "claims.html"))
