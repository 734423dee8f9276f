"""How time, memory and products of a network grow with the side of its picture: the exponents of power laws.

cost ~ side^e by least squares on logarithms over the sides that were measured; e is 2 for what is linear in pixels and
4 for what is quadratic in them. Times of small pictures hold calls that do not grow, so their exponent is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports.content import Site
from reports.figures.scaling import Curve, curves

ACROSS = "resolution"
METRICS = {"latency_ms": "time", "peak_memory_bytes": "peak memory", "macs": "products"}
#: Two points are a ratio; a law needs one more.
POINTS = 3


@dataclass(frozen=True)
class Growth:
    """One case over the sides at which it was measured, and the exponent of each of `METRICS` that it has."""

    name: str
    sides: tuple[float, ...]
    exponents: dict[str, float]


def exponent(sides: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log side."""
    x, y = [[math.log(value) for value in values] for values in (sides, costs)]
    middle = sum(x) / len(x)
    above = sum((a - middle) * b for a, b in zip(x, y, strict=True))
    return above / sum((a - middle) ** 2 for a in x)


def growths(site: Site) -> list[Growth]:
    """The cases that were measured at three sides or more."""
    return [_of(curve) for curve in curves(site.rows, ACROSS) if len(curve.points) >= POINTS]


def _of(curve: Curve) -> Growth:
    found = {}
    for metric in METRICS:
        known = [(side, row.value(metric)) for side, row in curve.points]
        pairs = [(side, value) for side, value in known if value]
        if len(pairs) >= POINTS:
            found[metric] = exponent(*zip(*pairs, strict=True))
    return Growth(curve.name, tuple(side for side, _ in curve.points), found)


def table(found: Sequence[Growth]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a network, its sides, and the exponent of each cost."""
    lines = []
    for one in found:
        said = [f"{one.exponents[name]:.2f}" if name in one.exponents else "unavailable" for name in METRICS]
        lines.append([one.name, ", ".join(f"{side:g}" for side in one.sides), *said])
    return ["network", "side (px)", *(f"exponent of {name}" for name in METRICS.values())], lines
