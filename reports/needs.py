"""What a page or figure needs, declared beside it: where the rows lack it, it is left out, not drawn empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reports.content import Site
from reports.rows import Row, same_network


@dataclass(frozen=True)
class Needs:
    """What rows must have; all of it.

    Attributes:
        columns: quantities by their column's key, each with a value in at least `rows` ranked rows.
        rows: how many ranked rows there must be.
        compared: a row that is compared with another one.
        further: a further condition in words of its own.
    """

    columns: tuple[str, ...] = ()
    rows: int = 1
    compared: bool = False
    further: Callable[[Sequence[Row]], bool] | None = None

    def met(self, rows: Sequence[Row]) -> bool:
        """Whether these rows have what is needed."""
        ranked = [row for row in rows if row.ranked]
        if len(ranked) < self.rows:
            return False
        if any(sum(row.value(key) is not None for row in ranked) < self.rows for key in self.columns):
            return False
        if self.compared and all(row.case.is_baseline for row in ranked):
            return False
        return self.further is None or self.further(ranked)


@dataclass(frozen=True)
class PageNeeds:
    """What a site must have for a page to be in it.

    Attributes:
        claims: claims of papers that were judged.
        compared: two sides, or at least two rows that can be set side by side.
        history: a case that was measured in two sessions or more.
        machines: rows of two machines or devices at least.
        rows: what the rows of the site must have.
    """

    claims: bool = False
    compared: bool = False
    history: bool = False
    machines: bool = False
    rows: Needs | None = None

    def met(self, site: Site) -> bool:
        """Whether this site has what is needed."""
        if self.claims and not site.claims:
            return False
        if self.compared and site.sides is None and len(site.rows) < 2:
            return False
        if self.history and not site.history.courses:
            return False
        if self.machines and not site.has_several_places:
            return False
        return self.rows is None or self.rows.met(site.rows)


@dataclass(frozen=True)
class CaseNeeds:
    """What a case must have for a figure of it.

    Attributes:
        record: dotted path of a field of its record that must hold something.
        same_network: it is compared with a case of the same network, so that module paths mean the same on both sides.
    """

    record: str = ""
    same_network: bool = False

    def met(self, row: Row, base: Row | None) -> bool:
        """Whether the case and the one that it is compared with have what is needed."""
        if self.same_network and (base is None or not same_network(base, row)):
            return False
        found: Any = row.record
        for name in self.record.split(".") if self.record else ():
            found = (found or {}).get(name)
        return bool(found)


#: What has no needs is always there.
ANY_SITE, ANY_CASE = PageNeeds(), CaseNeeds()
