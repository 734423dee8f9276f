"""The pages of the site: this table is all there is; a new page is one module and one line here."""

from __future__ import annotations

from reports.needs import PageNeeds
from reports.pages.page import Page

PAGES: tuple[Page, ...] = (
    Page("Leaderboard", "index.html", "reports.pages.leaderboard"),
    Page("Claims", "claims.html", "reports.pages.claims", PageNeeds(claims=True)),
    Page("Compare", "compare.html", "reports.pages.compare", PageNeeds(sides=True)),
    Page("How it was measured", "methods.html", "reports.pages.methods"),
    Page("Case", "", "reports.pages.case"),
)
