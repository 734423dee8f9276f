"""The page of a case without figures, processes and environment: what a build makes that has no time left for more.

A store of thousands has thousands of them, so that their templates only put texts into places.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from markupsafe import Markup

from reports.addresses import suite_page
from reports.content import Site
from reports.pages.page import Stencil, frame, place
from reports.rows import Row

_TEXTS = ("suite_page", "suite", "group", "heading", "state", "lines", "command")


class Fact(NamedTuple):
    """One quantity as text: value with interval, unit, provenance and note; `reason` where there is none."""

    title: str
    value: str
    provenance: str
    note: str
    reason: str
    definition: str


class BriefCases:
    """The brief pages of the cases of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @cached_property
    def _frame(self) -> Stencil:
        return frame(self._site, "cases/any.html")

    @cached_property
    def _bodies(self) -> tuple[Stencil, Stencil]:
        """Without and with the model behind the heading."""
        texts = {name: place(name) for name in _TEXTS}
        return Stencil.of("brief.html.j2", model="", **texts), Stencil.of("brief.html.j2", model=place("model"), **texts)

    @cached_property
    def _line(self) -> Stencil:
        return Stencil.of("brief_line.html.j2", **{name: place(name) for name in ("title", "value", "provenance", "note")})

    def page(self, row: Row, heading: tuple[str, str], facts: Sequence[Fact], command: str) -> str:
        """The page of a row.

        Args:
            row: the case.
            heading: the case, and the model that a method is on (else empty).
            facts: its main readings.
            command: that measures it again.
        """
        site = self._site
        lines = [
            self._line.filled({
                "title": fact.title,
                "value": fact.value,
                "provenance": fact.provenance or "unavailable",
                "note": fact.note or fact.reason,
            })
            for fact in facts
        ]
        body = self._bodies[bool(heading[1])].filled({
            "suite_page": f"../{suite_page(row.case.suite)}",
            "suite": row.case.suite if len(site.suites) > 1 else site.title,
            "group": site.groups[row.group].title,
            "heading": heading[0],
            "model": heading[1],
            "state": row.contaminated or row.reason or row.state,
            "lines": Markup("".join(lines)),
            "command": command,
        })
        return self._frame.filled({"title": f"{row.name} · Waterline", "body": body})
