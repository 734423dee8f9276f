"""The pages of the site: this table is all there is; a new page is one module and one line here."""

from __future__ import annotations

from reports.needs import PageNeeds
from reports.pages.page import Page

PAGES: tuple[Page, ...] = (
    Page("Overview", "index.html", "reports.pages.index"),
    Page("Suite", "", "reports.pages.leaderboard"),
    Page("Claims", "claims.html", "reports.pages.claims", PageNeeds(claims=True)),
    Page("Compare", "compare.html", "reports.pages.compare", PageNeeds(compared=True)),
    Page("History", "history.html", "reports.pages.history", PageNeeds(history=True)),
    Page("Machines", "machines.html", "reports.pages.machines", PageNeeds(machines=True)),
    Page("How it was measured", "methods.html", "reports.pages.methods"),
    Page("Method", "", "reports.pages.method"),
    Page("Network", "", "reports.pages.model"),
    Page("Machine", "", "reports.pages.machine"),
    Page("Search", "", "reports.pages.search"),
    Page("Case", "", "reports.pages.case", per_row=True),
)
