"""Does a method beat the plain sampler with fewer steps? A line a method and score: its cost, and both scores at it.

Where a task scores several things, as the distance of pictures and the class that they show, each has its line, the one
that the task names first: a method may win one by losing the other. The plain sampler's score at a cost is read off
the curve of its rows (`reports.figures.companions`), once at the method's products and once at its time. A difference
below the spread of the plain sampler's seeds is none.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.metrics import METRICS
from bench.scores import RULES
from bench.store.record_parts import scored
from reports.content import Site
from reports.figures.companions import at, by_plain, curve, has_curve, is_companion, plain_of
from reports.rows import Row
from reports.scores import score_of, scores_of
from reports.sessions import cost_of

OUTSIDE = "outside the curve"


def table(site: Site) -> tuple[list[str], list[list[str]]]:
    """Head and lines of all plain samplers that have a curve of fewer steps and a method beside it."""
    head = ["case", "products", "time", "score", "fewer steps, as many products", "fewer steps, as much time"]
    lines = []
    for group in site.groups:
        rows = [row for row in site.in_group(group.index) if row.ranked]
        for own in by_plain(rows):
            if has_curve(own):
                lines += _of_sampler(own)
    return head, lines


def _of_sampler(rows: Sequence[Row]) -> list[list[str]]:
    plain = plain_of(rows)
    if plain is None:
        return []
    first = score_of(rows)
    scores = sorted(scores_of(rows), key=lambda name: name != first)
    others = sorted((row for row in rows if not is_companion(row)), key=lambda row: row.head_in_full)
    return [_line(row, plain, rows, name) for row in others for name in scores if row.value(name) is not None]


def _line(row: Row, plain: Row, rows: Sequence[Row], score: str) -> list[str]:
    shape = row.case.full_shape
    guided = f", guidance {shape['guidance']:g}" if shape.get("guidance") is not None else ""
    value = row.value(score)
    assert value is not None
    return [
        f"{row.name_in_full}{guided}",
        *(_share(cost_of(row, plain, cost), plain.value(cost)) for cost in ("macs", "latency_ms")),
        f"{METRICS[score].title} {value:.2f}",
        *(_beside(value, row, plain, curve(rows, cost, score), cost, score) for cost in ("macs", "latency_ms")),
    ]


def _share(own: float | None, plain: float | None) -> str:
    return "unavailable" if own is None or not plain else f"{100 * own / plain:.0f} %"


def _beside(
    value: float, row: Row, plain: Row, points: Sequence[tuple[float, float]], cost: str, score: str
) -> str:  # fmt: skip
    """`2.31: better`: the curve's score at the row's cost and what the row is beside it."""
    own = cost_of(row, plain, cost)
    if own is None or len(points) < 2:
        return "unavailable"
    known = at(points, own)
    return OUTSIDE if known is None else f"{known:.2f}: {verdict(value, known, score, spread_of(plain, score))}"


def spread_of(row: Row, score: str) -> float:
    """The difference that is none: the seeds' spread of the plain sampler, or what does not matter of this score."""
    details = (scored(row.record, score) or {}).get("details") or {}
    return float(details.get("spread", RULES[score].same))


def verdict(value: float, plain: float, score: str, spread: float) -> str:
    """What a score is beside the plain sampler's: better, worse, or no difference."""
    if abs(value - plain) <= spread:
        return "no difference"
    return "better" if (value > plain) == (METRICS[score].better == "higher") else "worse"
