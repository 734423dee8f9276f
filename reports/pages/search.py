"""The index of the search box, as data of the scripts: all that has a page, papers, claims and cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.short_names import short_name
from reports.addresses import machine_page, method_page, model_page, suite_page
from reports.content import Site
from reports.groups import machine_line
from reports.manifest import digest_of
from reports.pages.page import Sheet
from reports.rows import Row
from reports.safe import script_data

PATH = "assets/search.js"
#: Kinds of entries in the order in which they are offered.
KINDS = ("suite", "method", "network", "paper", "machine", "page", "claim", "case")
#: What an entry holds, in order: the place of its kind, what it is called, what else it is found by, its address.
Entry = tuple[int, str, str, str]


def sheets(site: Site) -> Iterable[Sheet]:
    """The one file of the search."""
    found = list(entries(site))
    yield Sheet(PATH, digest_of(found), lambda: script_data("search", {"kinds": list(KINDS), "entries": found}))


def entries(site: Site) -> Iterator[Entry]:
    """Everything that can be found."""
    for link in site.navigation:
        yield _entry("page", link.title, "", link.path)
    for name in site.suites:
        own = site.of_suite(name)
        yield _entry("suite", own.title, site.suite_titles.get(name, name), suite_page(name))
    methods = {row.case.method: row for row in site.rows if not (row.case.is_baseline or row.by_model)}
    for name, row in sorted(methods.items()):
        card = site.card(name)
        yield _entry("method", name, f"{card.title} {card.summary}" if card else row.case.suite, method_page(name))
        if card is not None:
            yield _entry("paper", card.title, f"{card.name} {card.arxiv or ''} {card.year}", method_page(name))
    for name, row in sorted({row.case.model: row for row in site.rows}.items()):
        card = site.card(name)
        yield _entry("network", name, card.title if card else row.case.suite, model_page(name))
    for key, row in {row.machine_key: row for row in site.rows}.items():
        yield _entry("machine", machine_line(row.record), key, machine_page(key))
    for number, claim in enumerate(site.claims):
        text = f"{claim['source']} {claim['verdict']}"
        yield _entry("claim", short_name(str(claim["text"])), text, f"claims.html#claim-{number}")
    for row in site.rows:
        yield _entry("case", row.name, _told(row), row.page)


def _told(row: Row) -> str:
    case = row.case
    return f"{case.suite} batch {case.batch} {case.dtype} {row.case_key}"


def _entry(kind: str, title: str, more: str, path: str) -> Entry:
    return KINDS.index(kind), title, more, path
