"""A straight line through logarithms: how one positive quantity grows with another over several subjects, and how well.

log y = a + b log x by least squares; b is the power that y grows with. The interval of b is Student's (residual
standard error, n - 2 degrees of freedom), that of Pearson's correlation Fisher's (atanh r has the standard error 1 /
sqrt(n - 3); R. A. Fisher, "On the 'probable error' of a coefficient of correlation", Metron 1, 1921). Both take the
subjects for a random sample of those that are meant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

LEVEL = 0.95


@dataclass(frozen=True)
class LineFit:
    """What a line through n pairs of logarithms says.

    Attributes:
        power: b, with `power_low` and `power_high`.
        scale: exp(a): y where x is 1.
        correlation: Pearson's r of the logarithms, with `correlation_low` and `correlation_high`; no ends for three
            pairs.
        determination: r squared, the share of the variance of log y that the line explains.
        residual: typical factor by which y is off the line: exp of the residual standard error.
        n: pairs.
    """

    power: float
    power_low: float
    power_high: float
    scale: float
    correlation: float
    correlation_low: float | None
    correlation_high: float | None
    determination: float
    residual: float
    n: int

    def at(self, x: float) -> float:
        """The line's y at an x."""
        return self.scale * float(x**self.power)


def log_line(xs: Sequence[float], ys: Sequence[float], level: float = LEVEL) -> LineFit:
    """The line of log y against log x, with intervals at this level.

    Args:
        xs: positive, as many as `ys`, not all alike.
        ys: positive.
        level: of both intervals.

    Raises:
        ValueError: fewer than three pairs, sequences of different lengths, values that are not above 0, or one x for
            all.
    """
    if len(xs) != len(ys) or len(xs) < 3:
        raise ValueError(f"a line needs three pairs or more, and as many of both: {len(xs)} and {len(ys)} were given")
    if not all(math.isfinite(value) and value > 0 for value in (*xs, *ys)):
        raise ValueError("a line through logarithms takes values above 0")
    logs = [[math.log(value) for value in side] for side in (xs, ys)]
    n, means = len(xs), [math.fsum(side) / len(xs) for side in logs]
    xx, yy, xy = (
        math.fsum((a - means[i]) * (b - means[j]) for a, b in zip(logs[i], logs[j], strict=True))
        for i, j in ((0, 0), (1, 1), (0, 1))
    )
    if xx <= 1e-18 * n:
        raise ValueError("every x is the same: there is no line")
    power = xy / xx
    left = max(0.0, yy - power * xy)
    error = math.sqrt(left / (n - 2))
    reach = float(special.stdtrit(n - 2, (1 + level) / 2)) * error / math.sqrt(xx)
    r = 0.0 if yy <= 0 else max(-1.0, min(1.0, xy / math.sqrt(xx * yy)))
    low, high = _fisher(r, n, level)
    return LineFit(
        power,
        power - reach,
        power + reach,
        math.exp(means[1] - power * means[0]),
        r,
        low,
        high,
        r * r,
        math.exp(error),
        n,
    )


def _fisher(r: float, n: int, level: float) -> tuple[float | None, float | None]:
    if n < 4:
        return None, None
    if abs(r) >= 1:
        return r, r
    reach = float(special.ndtri((1 + level) / 2)) / math.sqrt(n - 3)
    centre = math.atanh(r)
    return math.tanh(centre - reach), math.tanh(centre + reach)
