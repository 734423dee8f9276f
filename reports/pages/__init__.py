"""The pages of the site: this table is all there is; a new page is one module and one line here."""

from __future__ import annotations

from reports.pages import case, claims, compare, leaderboard, methods
from reports.pages.page import Page

PAGES: tuple[Page, ...] = (
    Page("Leaderboard", "index.html", leaderboard.sheets),
    Page("Claims", "claims.html", claims.sheets, claims.wanted),
    Page("Compare", "compare.html", compare.sheets, compare.wanted),
    Page("How it was measured", "methods.html", methods.sheets),
    Page("Case", "", case.sheets),
)
