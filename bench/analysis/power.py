"""Whether a gate has sessions enough: how often a change of a given size would be found, from the noise that is seen.

A row is found to be slower where the lower end of its interval lies beyond the margin, after Holm's correction. For a
true ratio of 1 + d and equal sides of n the statistic on logs is a noncentral t with 2n - 2 degrees of freedom and
noncentrality (log(1 + d) - log(1 + margin)) / (s sqrt(2 / n)); s is the standard deviation of the logs of what is
replicated, sessions or processes. Its bound is Student's with Welch's degrees of freedom, (n - 1) / (u^2 + (1 - u)^2),
where the share u of one side in the sum of the variances is Beta((n - 1) / 2, (n - 1) / 2) and independent of that sum:
the power is the mean over u. Sources: B. L. Welch, Biometrika 34, 1947, 28-35; J. Cohen, Statistical Power Analysis for
the Behavioral Sciences, 2nd edition 1988, section 2.5, here with the margin in the place of zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from bench.analysis.metric_rows import ComparisonRow
from bench.statistics import LEVEL

#: What a gate should find, and how often.
DIFFERENCE, POWER = 0.10, 0.9
#: More than this on a side is no advice.
MOST = 200
#: Steps of the mean over u, which is smooth.
_STEPS = 25


def power(noise: float, n: int, difference: float, margin: float, level: float = LEVEL, rows: int = 1) -> float:
    """How often a true relative difference is found with `n` replicates on each side.

    Args:
        noise: standard deviation of the natural logs of replicates of one side; 0.03 for about 3 %.
        n: replicates on each side.
        difference: the true one, relative: 0.1 for 10 % more time.
        margin: the relative difference from which one counts.
        level: confidence level.
        rows: how many rows are tested; the first step of Holm's correction divides by it.
    """
    if n < 2:
        return 0.0
    distance = math.log1p(difference) - math.log1p(margin)
    if noise == 0:
        return 1.0 if distance > 0 else 0.0
    from scipy import stats  # a second of import that only a comparison of sessions pays

    share = stats.beta.ppf((np.arange(_STEPS) + 0.5) / _STEPS, (n - 1) / 2, (n - 1) / 2)
    bounds = stats.t.isf((1 - level) / (2 * rows), (n - 1) / (share**2 + (1 - share) ** 2))
    return float(np.mean(stats.nct.sf(bounds, 2 * n - 2, distance / (noise * math.sqrt(2 / n)))))


def needed(
    noise: float, difference: float, margin: float, level: float = LEVEL, rows: int = 1, wanted: float = POWER
) -> int | None:
    """Fewest replicates on each side with which a true difference is found as often as wanted; None beyond `MOST`.

    Args:
        noise: as of `power`.
        difference: as of `power`.
        margin: as of `power`.
        level: as of `power`.
        rows: as of `power`.
        wanted: how often, from 0 to 1.
    """
    enough: Iterable[int] = (
        n for n in range(2, MOST + 1) if power(noise, n, difference, margin, level, rows) >= wanted
    )
    return next(iter(enough), None)


def noise_of(row: ComparisonRow) -> tuple[float, int] | None:
    """Standard deviation of the logs of a row's replicates, and how many there are on the smaller side.

    None where the sides are paired or there is no interval.
    """
    ratio = row.ratio
    if ratio is None or ratio.se is None or not row.pairing.startswith("unpaired") or ratio.n < 2:
        return None
    return ratio.se * math.sqrt(ratio.n / 2), ratio.n


def too_few(rows: Sequence[ComparisonRow], margin: float, level: float = LEVEL) -> Iterable[str]:
    """A note where the gate has too few sessions to find a tenth more time nine times in ten, with how many it needs.

    Args:
        rows: all rows of the comparison.
        margin: the relative difference from which one counts.
        level: confidence level.
    """
    tested = max(1, sum(row.p is not None for row in rows))
    worst: tuple[int | None, int, ComparisonRow] | None = None
    lacking = 0
    for row in rows:
        seen = noise_of(row) if row.metric == "latency_ms" and row.kind != "INVALID" else None
        if seen is None or power(seen[0], seen[1], DIFFERENCE, margin, level, tested) >= POWER:
            continue
        lacking += 1
        wanted = needed(seen[0], DIFFERENCE, margin, level, tested)
        if worst is None or (wanted or MOST + 1) > (worst[0] or MOST + 1):
            worst = wanted, seen[1], row
    if worst is not None:
        yield _in_words(*worst, lacking)


def _in_words(wanted: int | None, have: int, row: ComparisonRow, lacking: int) -> str:
    unit = "sessions" if "by session" in row.pairing else "timed processes"
    how_many = f"about {wanted}" if wanted is not None else f"more than {MOST}"
    unseen = (
        "" if unit == "sessions" else "; what sessions differ by is not seen in one and comes on top: alternate a and b"
    )
    return (
        f"too few {unit} to find {DIFFERENCE:.0%} more time nine times in ten in {lacking} "
        f"row{'s' if lacking > 1 else ''}: at this noise a side needs {how_many}, and has {have}{unseen}"
    )
