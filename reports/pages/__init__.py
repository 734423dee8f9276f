"""The pages of the site: this table is all there is; a new page is one module and one line here."""

from __future__ import annotations

from reports.needs import PageNeeds
from reports.pages import case, claims, compare, leaderboard, methods
from reports.pages.page import Page

PAGES: tuple[Page, ...] = (
    Page("Leaderboard", "index.html", leaderboard.sheets),
    Page("Claims", "claims.html", claims.sheets, PageNeeds(claims=True)),
    Page("Compare", "compare.html", compare.sheets, PageNeeds(sides=True)),
    Page("How it was measured", "methods.html", methods.sheets),
    Page("Case", "", case.sheets),
)
