"""Quality against total bits through the sizes of a family: a line for each number format, with its law.

A family is what was scored by one metric in one workload on one task; its members are told apart by their parameters.
Total bits are those that the format promises, nominal bits x parameters, of the plain network those that are stored, so
that formats that run and formats that are imitated stand side by side: quality is claimed by both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.bits_law import Law, best_precision, best_precision_interval, fitted
from bench.metrics import METRICS
from bench.store.records import DISTURBED
from reports.content import Site
from reports.rows import Row
from reports.scores import score_of

#: Sizes that a law of three numbers needs at least, and budgets at which the best format is asked for.
SIZES, BUDGETS = 3, 4


@dataclass(frozen=True)
class Line:
    """One format through the sizes of a family: (total bits, score) by rising bits; its law where lower is better."""

    name: str
    points: tuple[tuple[float, float], ...]
    law: Law | None


@dataclass(frozen=True)
class Family:
    """Formats of one family, told apart by name; `metric` is the score."""

    name: str
    metric: str
    lines: tuple[Line, ...]

    def budgets(self) -> list[float]:
        """Total bits, evenly on a logarithmic axis, at which two lines or more have a measured size on either side."""
        inner = sorted(bits for line in self.lines for bits in (line.points[0][0], line.points[-1][0]))
        low, high = inner[1], inner[-2]
        if high <= low:
            return []
        return [low * (high / low) ** (place / (BUDGETS - 1)) for place in range(BUDGETS)]

    def best(self) -> list[tuple[float, str, float]]:
        """At each budget the format whose law is lowest of those that were measured around it, and its bootstrap share.

        The share says how often it stays best when residuals are drawn anew. Budgets with fewer than two such formats
        are left out.
        """
        found = []
        for budget in self.budgets():
            near = [x for x in self.lines if x.law is not None and x.points[0][0] <= budget <= x.points[-1][0]]
            laws = {line.name: line.law for line in near if line.law is not None}
            if len(laws) > 1:
                shares = best_precision_interval({line.name: line.points for line in near}, budget)
                name = best_precision(laws, budget)
                found.append((budget, name, shares[name]))
        return found


def families(site: Site) -> list[Family]:
    """Families of which two formats or more were scored at three sizes or more."""
    scored: dict[tuple[str, str, str], dict[str, dict[float, float]]] = {}
    for row in site.rows:
        if row.value("nominal_bits") is None and not row.case.is_baseline:
            continue  # a method that is no format: fewer steps, other weights
        metric, bits = score_of([row]), total_bits(row)
        if row.status not in ("ok", DISTURBED) or metric is None or bits is None:  # a busy machine changes no score
            continue
        value = row.value(metric)
        if value is not None and math.isfinite(value):
            key = (str(row.case.workload), str(row.case.task), metric)
            scored.setdefault(key, {}).setdefault(row.case.method_label, {})[bits] = value
    found = []
    for (workload, task, metric), formats in scored.items():
        lines = tuple(_line(name, sizes, metric) for name, sizes in formats.items() if len(sizes) >= SIZES)
        if len(lines) > 1:
            found.append(Family(f"{workload}, {task}", metric, lines))
    return found


def total_bits(row: Row) -> float | None:
    """Bits of all weights: nominal where the row declares them, else stored; None where neither is known."""
    each, count = row.value("nominal_bits") or row.value("effective_bits"), row.value("params")
    return each * count if each and count else None


def _line(name: str, sizes: dict[float, float], metric: str) -> Line:
    points = tuple(sorted(sizes.items()))
    lower = METRICS[metric].better == "lower"
    return Line(name, points, fitted(*zip(*points, strict=True)) if lower else None)


def table(found: Sequence[Family]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a format of a family, its sizes, total bits, scores and law."""
    head = ["family", "format", "sizes", "total bits", "scores", "floor a", "power c"]
    rows = []
    for family in found:
        for line in family.lines:
            bits, scores = zip(*line.points, strict=True)
            known = line.law if line.law and line.law.is_determined else None
            law = ["-", "-"] if known is None else [f"{known.floor:.4g}", f"{known.power:.3g}"]
            said = [f"{bits[0]:.3g} to {bits[-1]:.3g}", ", ".join(f"{score:.4g}" for score in scores)]
            rows.append([f"{family.name}: {family.metric}", line.name, str(len(bits)), *said, *law])
    return head, rows


def budgets(found: Sequence[Family]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: the format that is best at a budget, and how certain that is."""
    head = ["family", "total bits", "best format by its law", "still best with residuals drawn anew"]
    rows = [
        [f"{family.name}: {family.metric}", f"{budget:.3g}", name, f"{100 * share:.0f} %"]
        for family in found
        for budget, name, share in family.best()
    ]
    return head, rows
