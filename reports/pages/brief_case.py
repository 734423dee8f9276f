"""The page of a case without figures, processes and environment: what a build makes that has no time left for more.

A store of thousands has thousands of them, so that their templates only put texts into places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from markupsafe import Markup

from reports.addresses import suite_page
from reports.case_line import case_line
from reports.content import Site
from reports.pages.page import Stencil, frame, place
from reports.rows import Row


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
        self._stencils: dict[tuple[str, tuple[str, ...]], Stencil] = {}

    @cached_property
    def _frame(self) -> Stencil:
        return frame(self._site, "cases/any.html")

    def _filled(self, template: str, texts: Mapping[str, str]) -> Markup:
        """A template with these texts; what it does where some are empty is done once for all pages alike."""
        kind = template, tuple(name for name, text in texts.items() if text)
        if kind not in self._stencils:
            self._stencils[kind] = Stencil.of(
                template, **{name: place(name) if text else "" for name, text in texts.items()}
            )
        return self._stencils[kind].filled(texts)

    def page(
        self,
        row: Row,
        heading: tuple[str, str],
        facts: Sequence[Fact],
        command: str,
        retry: str,
        around: Mapping[str, str],
    ) -> str:
        """The page of a row.

        Args:
            row: the case.
            heading: the case, and the model that a method is on (else empty).
            facts: its main readings.
            command: that measures it again.
            retry: that measures what was disturbed again, empty for others.
            around: the links of `places.html.j2`.
        """
        site = self._site
        body = self._filled(
            "brief.html.j2",
            {
                "suite_page": f"../{suite_page(row.case.suite)}",
                "suite": row.case.suite if len(site.suites) > 1 else site.title,
                "group": site.groups[row.group].title,
                "heading": heading[0],
                "model": heading[1],
                "places": self._filled("places.html.j2", around),
                "line": case_line(row),
                "state": row.contaminated or row.reason or row.state,
                "retry": retry,
                "lines": Markup("").join(self._line(fact) for fact in facts),
                "command": command,
            },
        )
        return self._frame.filled({"title": f"{row.name} · Waterline", "body": body})

    def _line(self, fact: Fact) -> Markup:
        """A reading as a line of the table."""
        texts = {
            "title": fact.title,
            "value": fact.value,
            "provenance": fact.provenance or "unavailable",
            "note": fact.note or fact.reason,
        }
        return self._filled("brief_line.html.j2", texts)
