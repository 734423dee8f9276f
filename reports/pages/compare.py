"""What changed between two machines or runs, if there are two; and two to four pinned rows side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.analysis import compare as comparing
from bench.foreign_text import escape_controls
from bench.metrics import METRICS
from reports.content import Site
from reports.numbers import MISSING, pair, quantity
from reports.pages.page import Sheet, render

#: Verdict -> kind of its badge.
KINDS = {"FASTER": "good", "BETTER": "good", "SLOWER": "bad", "WORSE": "bad", "SAME": "water"}


@dataclass(frozen=True)
class Line:
    """One metric of one case on both sides, as text."""

    case: str
    metric: str
    a: str
    b: str
    ratio: str
    pairing: str
    verdict: str
    kind: str
    text: str


def sheets(site: Site) -> Iterable[Sheet]:
    """The one sheet `compare.html`."""
    yield Sheet("compare.html", "", lambda: _page(site))


def lines(found: comparing.Comparison) -> list[Line]:
    """The rows of a comparison as text."""
    return [
        Line(
            escape_controls(row.label),
            METRICS[row.metric].title + (f" of {row.part}" if row.part else ""),
            _side(row.a, row.unit),
            _side(row.b, row.unit),
            MISSING if row.ratio is None else pair(row.ratio.value, row.ratio.low, row.ratio.high),
            row.pairing,
            row.kind.lower(),
            KINDS.get(row.kind, "care" if row.kind == "INVALID" else ""),
            escape_controls("; ".join([row.text, *row.notes])),
        )
        for row in found.rows
    ]


def _side(value: float | None, unit: str) -> str:
    return MISSING if value is None else quantity(value, unit)


def escaped(found: comparing.Comparison) -> comparing.Comparison:
    """The comparison with the names of foreign records as text that turns no direction."""
    around = tuple((escape_controls(what), escape_controls(a), escape_controls(b)) for what, a, b in found.environment)
    only_a, only_b, notes = (tuple(map(escape_controls, part)) for part in (found.only_a, found.only_b, found.notes))
    return replace(found, environment=around, only_a=only_a, only_b=only_b, notes=notes)


def _page(site: Site) -> str:
    if site.sides is None:
        return render("compare.html.j2", site, "compare.html", found=None, lines=[], verdicts={})
    (name_a, a), (name_b, b) = site.sides
    found = escaped(comparing.compare(a, b, label_a=name_a, label_b=name_b))
    verdicts = Counter(row.kind.lower() for row in found.rows)
    return render("compare.html.j2", site, "compare.html", found=found, lines=lines(found), verdicts=verdicts)
