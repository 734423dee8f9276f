"""Networks whose cost depends on the input: products and time of an input in the mean, the score, and paths by lot.

Products and times are over the sample of inputs that the record has, one by one at batch 1; the score is over all
held-out samples. What choosing the cheapest or the dearest path by lot would score at the same mean cost is
`reports.figures.routing`'s line: a gate earns only what it has over that. Shares of inputs by what they cost are the
histogram of paths, where there are few. How a batch of such a network runs decides what arrives of the products that
its members save: the saved part of the time over the saved part of the products (`bench.analysis.shares`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.metrics import METRICS
from reports.content import Site
from reports.figures.figure import significant
from reports.figures.routing import COST, families
from reports.rows import Row
from reports.scores import score_of

#: Costs that a path has; where inputs have more, filters or pixels are chosen and not paths.
MOST_PATHS = 12


@dataclass(frozen=True)
class MeanCost:
    """One operating point: its row, the metric that it is scored by, and the score of paths by lot at its cost."""

    row: Row
    score: str | None
    by_lot: float | None


def operating_points(site: Site) -> list[MeanCost]:
    """The rows that have products over inputs, group by group, the cheapest of a model first."""
    found = []
    for group in site.groups:
        rows = [row for row in site.in_group(group.index) if row.ranked]
        lines = {id(row): family.by_lot(cost) for family in families(rows) for row, cost, _ in family.points}
        own = [MeanCost(row, score_of(rows), lines.get(id(row))) for row in rows if row.value(COST) is not None]
        found += sorted(own, key=_by_model_and_cost)
    return found


def _by_model_and_cost(point: MeanCost) -> tuple[str, float]:
    return point.row.model, point.row.value(COST) or 0.0


def shares_by_cost(values: Sequence[float]) -> list[float]:
    """Share of the inputs of each cost, cheapest first; none where there are more costs than paths have."""
    counts = Counter(round(value, 3) for value in values)
    if len(counts) > MOST_PATHS:
        return []
    return [counts[cost] / len(values) for cost in sorted(counts)]


def table(found: Sequence[MeanCost]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a row, an input's products and time, how many inputs cost what, and both scores."""
    head = ["case", "batch", "products (mean)", "least to most", "inputs by cost", "time of an input", "p90", "score",
            "by lot at that cost"]  # fmt: skip
    return head, [_line(point) for point in found]


def batches_table(site: Site) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a batch of such a network each, what it saves of the plain one's products and time, the share."""
    head = ["case", "batch", "products saved", "time saved", "arrived share"]
    rows = [row for row in site.rows if row.ranked and row.case.batch > 1 and row.value(COST) is not None]
    return head, [_batch_line(row) for row in rows]


def _batch_line(row: Row) -> list[str]:
    saved = [_saved(row.value(name)) for name in ("mac_ratio", "speedup")]
    share = row.cells.get("arrived_share")
    if share is None or share.value is None:
        return [row.name, f"{row.case.batch}", *saved, f"unavailable ({share.note})" if share else "unavailable"]
    ends = "" if share.low is None or share.high is None else f" [{share.low:.2f}, {share.high:.2f}]"
    return [row.name, f"{row.case.batch}", *saved, f"{share.value:.2f}{ends}"]


def _saved(ratio: float | None) -> str:
    """The part that is saved of a plain network's, by which factor it is less."""
    return "unavailable" if not ratio else f"{100 * (1 - 1 / ratio):.0f} %"


def _line(point: MeanCost) -> list[str]:
    row = point.row
    unit = "" if point.score is None else f" {METRICS[point.score].unit}"
    score = None if point.score is None else row.value(point.score)
    return [
        row.name,
        f"{row.case.batch}",
        _count(row.value(COST)),
        f"{_count(row.value('macs_min'))} to {_count(row.value('macs_max'))}",
        _paths(row),
        _time(row.value("input_ms")),
        _time(row.value("input_p90_ms")),
        "unavailable" if score is None else f"{score:.1f}{unit}",
        "" if point.by_lot is None else f"{point.by_lot:.1f}{unit}",
    ]


def _count(value: float | None) -> str:
    return "unavailable" if value is None else f"{value:,.0f}"


def _time(value: float | None) -> str:
    return "unavailable" if value is None else f"{significant(value, 3)} ms"


def _paths(row: Row) -> str:
    """`62 / 20 / 18 % of 64`, cheapest first."""
    curve = next((each for each in row.record.get("curves") or [] if each["metric"] == COST), None)
    values = [] if curve is None else [value for value in curve["values"] if value is not None]
    shares = shares_by_cost(values) if values else []
    if not shares:
        return ""
    return " / ".join(f"{100 * share:.0f}" for share in shares) + f" % of {len(values)}"
