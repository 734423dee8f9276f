"""Intervals, verdicts, ranks and summaries of repeated measurements: pure functions, each with its source.

The unit of replication is the fresh process: every function takes one value per process, never pooled iterations (see
T. Kalibera, R. Jones, "Rigorous benchmarking in reasonable time", ISMM 2013). Times and ratios are positive and their
noise is multiplicative, so means, standard errors and t-intervals are taken on logs and reported as factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from scipy import special  # whatever else of scipy, and statsmodels, is imported where it is used: it takes a second

from bench.sample_sizes import samples_for_percentile

LEVEL = 0.95
#: How a time is told of several processes: see `log_mean_interval`.
GEOMETRIC = "geometric mean over processes of the median, 95 % t-interval on logs"
#: A difference counts only where it is larger than this for certain.
MARGIN = 0.02
#: Two times are the same where their ratio lies within 1/1.05..1.05 for certain.
EQUIVALENCE = 1.05
#: Largest number of further invocations that is worth naming.
_MOST_INVOCATIONS = 10_000

Kind = Literal["FASTER", "SLOWER", "SAME", "AMBIGUOUS", "INVALID"]
Spread = Literal["ok", "noisy", "unstable"]


@dataclass(frozen=True)
class Interval:
    """A positive estimate with its confidence interval; `low` and `high` are `None` where one replicate allows none.

    `se` is the standard error of the log and `df` its degrees of freedom, from which other levels and tests follow.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    level: float = LEVEL
    method: str = ""
    se: float | None = None
    df: float | None = None

    @property
    def half_width(self) -> float | None:
        """The relative half-width: 0.01 where the interval reaches about 1 % to either side."""
        return None if self.low is None or self.high is None else math.sqrt(self.high / self.low) - 1.0


@dataclass(frozen=True)
class Verdict:
    """What a ratio of speeds says: the kind, a sentence, and for AMBIGUOUS how many more invocations would tell."""

    kind: Kind
    text: str
    more_invocations: int | None = None


# ---------------------------------------------------------------------------------------------- means and ratios


def log_mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The geometric mean of per-process values with a Student t-interval on logs.

    Args:
        values: one positive, finite value per process; one value gives no interval.
        level: confidence level.

    Raises:
        ValueError: no values, or one that is not positive and finite.

    Source: Student's t on log-transformed data, e.g. D. G. Altman, J. M. Bland, BMJ 1996;312:1079.
    """
    logs = positive_logs(values)
    if len(logs) == 1:
        return Interval(math.exp(logs[0]), None, None, 1, level, "geometric mean")
    se = float(np.std(logs, ddof=1) / math.sqrt(len(logs)))
    method = "geometric mean, t-interval on logs"
    return interval_on_logs(float(np.mean(logs)), se, len(logs) - 1.0, len(logs), level, method)


def ratio_interval_paired(numerators: Sequence[float], denominators: Sequence[float], level: float = LEVEL) -> Interval:
    """The geometric mean of numerator over denominator, pair by pair, with a paired t-interval on logs.

    Args:
        numerators: one positive value per process; for a speed-up the baseline's medians.
        denominators: the values of the same processes in the same order.
        level: confidence level.

    Raises:
        ValueError: the lengths differ, or a value is not positive and finite.
    """
    top, bottom = positive_logs(numerators), positive_logs(denominators)
    if len(top) != len(bottom):
        raise ValueError(f"pairs need equal lengths, got {len(top)} and {len(bottom)}")
    paired = log_mean_interval([math.exp(d) for d in top - bottom], level)
    return Interval(paired.value, paired.low, paired.high, paired.n, level, "paired on logs", paired.se, paired.df)


def ratio_interval_welch(numerators: Sequence[float], denominators: Sequence[float], level: float = LEVEL) -> Interval:
    """The ratio of two geometric means with Welch's t-interval on logs, for processes that are not paired.

    Args:
        numerators: one positive value per process.
        denominators: one positive value per process; the lengths may differ.
        level: confidence level.

    Raises:
        ValueError: a value is not positive and finite, or a side is empty.

    Source: B. L. Welch, Biometrika 34, 1947, 28-35.
    """
    top, bottom = positive_logs(numerators), positive_logs(denominators)
    n, centre = min(len(top), len(bottom)), float(np.mean(top) - np.mean(bottom))
    if n < 2:
        return Interval(math.exp(centre), None, None, n, level, "unpaired")
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (top, bottom)]
    df = welch_df(parts, [len(top) - 1, len(bottom) - 1])
    return interval_on_logs(centre, math.sqrt(sum(parts)), df, n, level, "unpaired, Welch on logs")


def ratio_of_summaries(numerator: Interval, denominator: Interval, level: float = LEVEL) -> Interval:
    """The ratio of two independent estimates from their standard errors (Welch); no interval if a side has none."""
    value, n = numerator.value / denominator.value, min(numerator.n, denominator.n)
    sides = (numerator, denominator)
    if numerator.se is None or denominator.se is None:
        return Interval(value, None, None, n, level, "unpaired")
    parts = [(side.se or 0.0) ** 2 for side in sides]
    df = welch_df(parts, [side.df or 1.0 for side in sides])
    return interval_on_logs(math.log(value), math.sqrt(sum(parts)), df, n, level, "unpaired, Welch on logs")


def welch_df(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent estimated variances (F. E. Satterthwaite, Biometrics 2, 1946)."""
    total = math.fsum(variances)
    if total == 0:
        return math.fsum(dfs)
    return 1.0 / math.fsum((part / total) ** 2 / df for part, df in zip(variances, dfs, strict=True))


def from_summary(value: float, low: float | None, high: float | None, n: int | None, level: float = LEVEL) -> Interval:
    """The interval of a table row with its standard error recovered; exact for t-intervals on logs of n processes."""
    if low is None or high is None or n is None or n < 2 or not 0 < low <= high or value <= 0:
        return Interval(value, None, None, n or 0, level, "no interval")
    se = math.log(high / low) / (2 * _t_quantile(n - 1, level))
    return Interval(value, low, high, n, level, "from the table", se, n - 1.0)


@cache
def _t_quantile(df: int, level: float) -> float:
    """How many standard errors an interval of this level reaches to either side."""
    return float(special.stdtrit(df, (1 + level) / 2))


@dataclass(frozen=True)
class Summary:
    """A geometric mean of ratios over models, or `interval=None` and the reason."""

    interval: Interval | None
    reason: str
    members: tuple[str, ...]
    smallest: float | None = None
    largest: float | None = None


def geometric_summary(ratios: Mapping[str, Interval | None], level: float = LEVEL) -> Summary:
    """The geometric mean of the members' ratios to one baseline, with the interval that their own errors give.

    The interval is for these members, not for models at large; `smallest` and `largest` show how they differ. It is not
    available if a member failed (`None`) or has no interval, because leaving it out would flatter the rest.

    Source: P. J. Fleming, J. J. Wallace, "How not to lie with statistics", CACM 29(3), 1986.
    """
    names = tuple(ratios)
    failed = [name for name, ratio in ratios.items() if ratio is None]
    if not names or failed:
        return Summary(None, f"no value for {', '.join(failed)}" if failed else "no members", names)
    members = [ratio for ratio in ratios.values() if ratio is not None]
    unsure = [name for name, ratio in ratios.items() if ratio is not None and (ratio.se is None or ratio.df is None)]
    if unsure:
        return Summary(None, f"no interval for {', '.join(unsure)}", names)
    centre = math.fsum(math.log(member.value) for member in members) / len(members)
    parts = [(member.se or 0.0) ** 2 / len(members) ** 2 for member in members]
    df = welch_df(parts, [member.df or 1.0 for member in members])
    method = f"geometric mean over {len(members)} models"
    interval = interval_on_logs(centre, math.sqrt(math.fsum(parts)), df, min(m.n for m in members), level, method)
    values = [member.value for member in members]
    return Summary(interval, "", names, min(values), max(values))


# ---------------------------------------------------------------------------------------------- verdicts


def verdict(
    ratio: Interval,
    *,
    margin: float = MARGIN,
    equivalence: float = EQUIVALENCE,
    noise_floor: tuple[float, float] | None = None,
    invalid: str | None = None,
    p_adjusted: float | None = None,
) -> Verdict:
    """FASTER, SLOWER, SAME, AMBIGUOUS or INVALID for a ratio of speeds (above 1: the second is faster).

    FASTER or SLOWER needs the whole interval beyond the margin, SAME the whole interval within
    1/equivalence..equivalence (two one-sided tests; the 95 % interval makes each at 2.5 %). The zones overlap on
    purpose (1.02..1.05): with enough invocations every ratio leaves AMBIGUOUS. A point inside the noise floor is never
    FASTER or SLOWER.

    Args:
        ratio: baseline time over case time, with its interval.
        margin: the smallest difference that counts.
        equivalence: the largest ratio that still counts as the same.
        noise_floor: interval of the A/A ratio of the group.
        invalid: why the measurement cannot be judged at all.
        p_adjusted: multiplicity-adjusted p-value of `difference_p`; overrides the interval for FASTER and SLOWER.

    Source: D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987 (two one-sided tests).
    """
    if invalid:
        return Verdict("INVALID", invalid)
    if ratio.low is None or ratio.high is None:
        return Verdict("INVALID", f"{ratio.n} invocation gives no interval; at least 2 are needed")
    inside_floor = noise_floor is not None and noise_floor[0] <= ratio.value <= noise_floor[1]
    certain = p_adjusted is None or p_adjusted < 1 - ratio.level
    span = f"{ratio.low:.3f} to {ratio.high:.3f}"
    faster, slower = ratio.low > 1 + margin, ratio.high < 1 / (1 + margin)
    if (faster or slower) and certain and not inside_floor:
        size = ratio.value if faster else 1 / ratio.value
        return Verdict(
            "FASTER" if faster else "SLOWER", f"{_percent(size)} {'faster' if faster else 'slower'} ({span})"
        )
    if ratio.low >= 1 / equivalence and ratio.high <= equivalence:
        return Verdict("SAME", f"the same within {100 * (equivalence - 1):.0f} % ({span})")
    if faster or slower:
        many = f"{span}: beyond the margin by itself, but not among this many comparisons"
        floor = f"inside the noise floor of identical twins ({span}): use a quieter host"
        return Verdict("AMBIGUOUS", floor if inside_floor else many)
    more = more_to_decide(ratio, margin=margin, equivalence=equivalence)
    return Verdict("AMBIGUOUS", f"{span}: {_more_text(more)}", more)


def t_tail(beyond: Any, df: Any) -> Any:
    """The chance that Student's t lies above a value, elementwise: what `scipy.stats.t.sf` gives.

    The functions behind scipy's distributions are taken here and below, because `scipy.stats` takes most of a second to
    import, which every start of the command line and every worker would wait for; tests hold both to be the same.
    """
    at = np.asarray(beyond, dtype=float)
    return np.where(np.isposinf(at) & (np.asarray(df) > 0), 0.0, special.stdtr(df, -at))


def difference_p(ratio: Interval, margin: float = MARGIN) -> float | None:
    """Two-sided p-value of the hypothesis that the ratio lies within 1/(1+margin)..1+margin; `None` without interval.

    Below 0.05 exactly where the 95 % interval lies beyond the margin.
    """
    if ratio.se is None or ratio.df is None:
        return None
    beyond = abs(math.log(ratio.value)) - math.log1p(margin)
    if ratio.se == 0:
        return 0.0 if beyond > 0 else 1.0
    return min(1.0, 2 * float(t_tail(beyond / ratio.se, ratio.df)))


def paired_p_matrix(values: np.ndarray) -> np.ndarray:
    """(k, k) p-values of `difference_p` with no margin for all pairs of rows that were timed in the same n processes.

    Args:
        values: (k, n) positive, finite values, one row per subject and one column per process, n at least 2.

    Raises:
        ValueError: a value is not positive and finite, or there is one process.
    """
    if values.shape[1] < 2:
        raise ValueError("pairs of one process have no interval")
    logs = positive_logs(values.ravel().tolist()).reshape(values.shape)
    rows, columns = np.triu_indices(len(values))
    differences = logs[rows] - logs[columns]
    means = np.abs(differences.mean(axis=1))
    errors = differences.std(axis=1, ddof=1) / math.sqrt(values.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.minimum(1.0, 2 * t_tail(means / errors, values.shape[1] - 1))
    return _mirrored(np.where(errors > 0, p, (means == 0).astype(float)), len(values))


def _mirrored(upper: np.ndarray, k: int) -> np.ndarray:
    """The symmetric (k, k) matrix of an upper triangle with its diagonal, row by row."""
    whole = np.empty((k, k))
    rows, columns = np.triu_indices(k)
    whole[rows, columns] = whole[columns, rows] = upper
    return whole


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p-values in the given order; `None` stays `None` and does not count as a test.

    Source: S. Holm, Scand. J. Statist. 6, 1979, 65-70. (statsmodels' `multipletests` gives the same, which a test
    checks, but collects garbage at every call, a quarter of a second in a large process.)
    """
    remaining = iter(_holm(np.array([p for p in p_values if p is not None], dtype=float)).tolist())
    return [None if p is None else next(remaining) for p in p_values]


def _holm(tested: np.ndarray) -> np.ndarray:
    """The adjusted p-values of tests that were all made."""
    order = np.argsort(tested, kind="stable")
    steps = np.maximum.accumulate(tested[order] * np.arange(len(tested), 0, -1))
    adjusted = np.empty_like(tested)
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted


def more_to_decide(ratio: Interval, *, margin: float = MARGIN, equivalence: float = EQUIVALENCE) -> int | None:
    """About how many more invocations would turn AMBIGUOUS into a verdict, if the estimate stays; `None`: too many."""
    distance = abs(math.log(ratio.value))
    target = max(distance - math.log1p(margin), math.log(equivalence) - distance)
    return extra_invocations(ratio, math.expm1(target))


def extra_invocations(interval: Interval, half_width: float) -> int | None:
    """How many more invocations bring the relative half-width down to the goal, at the present noise; `None`: too many.

    Args:
        interval: with a standard error; of one process or session, whose error is known otherwise, a second is the
            least that can be asked for.
        half_width: the goal, relative (0.01 for 1 %).
    """
    if interval.se is None or half_width <= 0:
        return None
    sd, goal = interval.se * math.sqrt(interval.n), math.log1p(half_width)

    def excess(n: float) -> float:
        return float(special.stdtrit(n - 1, (1 + interval.level) / 2)) * sd / math.sqrt(n) - goal

    least = max(interval.n, 2)  # Student's t has no quantile of 0 degrees of freedom
    if excess(least) <= 0:
        return least - interval.n
    if excess(_MOST_INVOCATIONS) > 0:
        return None
    from scipy import optimize

    return max(1, math.ceil(optimize.brentq(excess, least, _MOST_INVOCATIONS)) - interval.n)


# ---------------------------------------------------------------------------------------------- ranks


def holm_ranks(p_values: np.ndarray, better: np.ndarray, level: float = LEVEL) -> list[tuple[int, int]]:
    """The ranks each item may hold, best 1, after Holm's correction over all pairs: `(2, 4)` is "2-4".

    Args:
        p_values: (k, k) symmetric, p-value of "these two are equal"; NaN where a pair cannot be tested.
        better: (k, k) boolean, whether row i's estimate is better than column j's.
        level: family-wise confidence level.
    """
    k = len(better)
    rows, columns = np.triu_indices(k, 1)
    pairs = p_values[rows, columns]
    tested = ~np.isnan(pairs)
    apart = np.zeros(len(pairs), dtype=bool)
    apart[tested] = _holm(pairs[tested]) < 1 - level
    beats = np.zeros((k, k), dtype=bool)
    beats[rows, columns], beats[columns, rows] = apart & better[rows, columns], apart & better[columns, rows]
    ahead, behind = beats.sum(axis=0).tolist(), beats.sum(axis=1).tolist()
    return [(1 + above, k - below) for above, below in zip(ahead, behind, strict=True)]


def equality_p(a: Interval, b: Interval) -> float:
    """Welch's p-value that two geometric means are equal, from their summaries; NaN where one has no interval."""
    if a.se is None or b.se is None or a.df is None or b.df is None:
        return math.nan
    difference, parts = abs(math.log(a.value / b.value)), [a.se**2, b.se**2]
    if sum(parts) == 0:
        return 1.0 if difference == 0 else 0.0
    return 2 * float(t_tail(difference / math.sqrt(sum(parts)), welch_df(parts, [a.df, b.df])))


def equality_matrix(items: Sequence[Interval]) -> np.ndarray:
    """(k, k) p-values of `equality_p` for all pairs at once; NaN where an item has no interval.

    A mean of 0 (an output that does not differ) is infinitely far from any other and equal to another 0.
    """
    values = np.array([item.value for item in items])
    variance = np.array([math.nan if item.se is None else item.se**2 for item in items])
    df = np.array([math.nan if item.df is None else item.df for item in items])
    a, b = np.triu_indices(len(items))
    total = variance[a] + variance[b]
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.log(values)
        difference = np.where(values[a] == values[b], 0.0, np.abs(centre[a] - centre[b]))
        dfs = total**2 / (variance[a] ** 2 / df[a] + variance[b] ** 2 / df[b])
        p = 2 * t_tail(difference / np.sqrt(total), dfs)
    exact = total == 0
    p[exact] = (difference[exact] == 0).astype(float)
    return _mirrored(p, len(items))


def equality_p_of(ratio: Interval) -> float:
    """The t-test's p-value that a ratio is 1; NaN where it has no interval."""
    value = difference_p(ratio, margin=0.0)
    return math.nan if value is None else value


# ---------------------------------------------------------------------------------------------- quality


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion, as fractions (E. B. Wilson, JASA 22, 1927).

    Raises:
        ValueError: no trials, or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is not a proportion")
    share, z = successes / n, normal_reach(level)
    centre, width = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = (end / (1 + z**2 / n) for end in (centre - width, centre + width))
    return (low if successes else 0.0), (high if successes < n else 1.0)


@dataclass(frozen=True)
class Difference:
    """Accuracy of the second less the first in percentage points, with interval and exact McNemar p-value."""

    value: float
    low: float
    high: float
    n: int
    only_first: int
    only_second: int
    p: float


def paired_accuracy_difference(first: Sequence[bool], second: Sequence[bool], level: float = LEVEL) -> Difference:
    """The difference of two accuracies on the same images, in percentage points, with a paired interval.

    Args:
        first: whether each image was right under the first model.
        second: the same images in the same order under the second.
        level: confidence level.

    Raises:
        ValueError: the lengths differ or there are no images.

    Source: interval by D. G. Bonett, R. M. Price, Br. J. Math. Stat. Psychol. 65, 2012 (adjusted Wald); test by
    Q. McNemar, Psychometrika 12, 1947, exact binomial form.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"paired accuracies need the same images, got {a.size} and {b.size}")
    n, lost, won = int(a.size), int((a & ~b).sum()), int((~a & b).sum())
    share_lost, share_won = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    centre = share_won - share_lost
    se = math.sqrt((share_won + share_lost - centre**2) / (n + 2))
    reach = normal_reach(level) * se
    p = min(1.0, 2 * float(special.bdtr(min(lost, won), lost + won, 0.5)))
    low, high = max(-1.0, centre - reach), min(1.0, centre + reach)
    return Difference(100 * (won - lost) / n, 100 * low, 100 * high, n, lost, won, p)


@cache
def normal_reach(level: float = LEVEL) -> float:
    """How many standard errors a two-sided normal interval of that level reaches to each side."""
    return float(special.ndtri((1 + level) / 2))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float | None, float | None]:
    """The mean with the ends of Student's t-interval; one value has no interval.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    array = _finite_values(values)
    centre = float(array.mean())
    if array.size < 2:
        return centre, None, None
    reach = float(special.stdtrit(array.size - 1, (1 + level) / 2)) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return centre, centre - reach, centre + reach


def logit_interval(shares: Sequence[float], pooled: float, level: float = LEVEL) -> tuple[float | None, float | None]:
    """The ends of an interval around a pooled share, by t over replicates of log(share / (1 - share)).

    The share itself is of sums, so that shares of one whole add up; its interval stays between 0 and 1.

    Args:
        shares: one per independent replicate, each above 0 and below 1.
        pooled: of the sums over all replicates, above 0 and below 1.
        level: of confidence.

    Raises:
        ValueError: no shares, or one that is 0 or less or 1 or more.
    """
    array = _finite_values([*shares, pooled])
    if not bool(((array > 0) & (array < 1)).all()):
        raise ValueError(f"shares above 0 and below 1 have a logit, got {array.min():g} to {array.max():g}")
    centre, _, high = mean_interval(special.logit(array[:-1]), level)
    if high is None:
        return None, None
    at = float(special.logit(pooled))
    return float(special.expit(at - (high - centre))), float(special.expit(at + (high - centre)))


def paired_mean_difference(
    first: Sequence[float], second: Sequence[float], level: float = LEVEL
) -> tuple[float, float, float, float]:
    """Mean of the second less the first sample by sample, the ends of its t-interval, and the paired t-test's p-value.

    Differences that are all equal are certain: the interval is the difference itself, p is 1 where it is zero, else 0.

    Raises:
        ValueError: fewer than two pairs, other lengths, or a value that is not finite.

    Source: Student, Biometrika 6, 1908.
    """
    one, two = _finite_values(first), _finite_values(second)
    if one.shape != two.shape or one.size < 2:
        raise ValueError(f"paired means need two samples or more that are the same, got {one.size} and {two.size}")
    difference = two - one
    centre, se = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(difference.size)
    if se == 0:
        return centre, centre, centre, float(centre == 0)
    reach = float(special.stdtrit(difference.size - 1, (1 + level) / 2)) * se
    p = 2 * float(t_tail(abs(centre) / se, difference.size - 1))
    return centre, centre - reach, centre + reach, p


# ---------------------------------------------------------------------------------------------- one process's samples


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of ranks over `n` pairs with its interval; a part that there is none of has a reason."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""


def rank_correlation(xs: Sequence[float], ys: Sequence[float], level: float = LEVEL) -> RankCorrelation:
    """Spearman's correlation of two rankings of the same things, ties at their mean rank.

    The interval is Fisher's with the standard error sqrt((1 + r^2 / 2) / (n - 3)) on the scale of atanh; it needs four
    pairs, and there is none where all ranks agree or all are turned round. It takes the pairs for independent.

    Source: D. G. Bonett, T. A. Wright, Psychometrika 65, 2000.

    Raises:
        ValueError: unequal lengths, or a value that is not finite.
    """
    if len(xs) != len(ys):
        raise ValueError(f"{len(xs)} values cannot be paired with {len(ys)}")
    n = len(xs)
    if n < 2:
        return RankCorrelation(None, None, None, n, "a correlation of ranks needs two pairs at least")
    sides = [_finite_values(values) for values in (xs, ys)]
    if any(np.ptp(side) == 0 for side in sides):
        return RankCorrelation(None, None, None, n, "one side is all ties, so that it has no ranks")
    from scipy import stats

    value = float(stats.spearmanr(*sides).statistic)
    if n < 4:
        return RankCorrelation(value, None, None, n, "an interval needs four pairs at least")
    if abs(value) > 1 - 1e-9:
        return RankCorrelation(round(value), None, None, n, "where all ranks agree the interval has no width to tell")
    reach = normal_reach(level) * math.sqrt((1 + value**2 / 2) / (n - 3))
    middle = math.atanh(value)
    return RankCorrelation(value, math.tanh(middle - reach), math.tanh(middle + reach), n)


@dataclass(frozen=True)
class Percentile:
    """A percentile of raw samples with a one-sided 99 % upper bound; or no value and how many samples are needed."""

    value: float | None
    upper: float | None
    reason: str = ""


def percentile(samples: Sequence[float], q: float) -> Percentile:
    """The q-quantile (0..1) of one process's samples where they are enough; the median always."""
    n = len(samples)
    if n == 0:
        return Percentile(None, None, "no samples")
    needed = 1 if q == 0.5 else samples_for_percentile(q)
    if n < needed:
        return Percentile(None, None, f"{n} samples; {needed} are needed")
    value = float(np.quantile(samples, q))
    beyond = special.bdtrc(np.arange(n), n, q)  # that more than k of the samples lie below the quantile
    rank = int(np.count_nonzero(beyond > 0.01)) + 1
    upper = float(np.sort(samples)[rank - 1]) if rank <= n else None
    return Percentile(value, upper)


def outlier_share(samples: Sequence[float]) -> float:
    """The share of samples beyond Tukey's fences, quartiles -+ 1.5 IQR; none is ever dropped.

    Source: J. W. Tukey, Exploratory Data Analysis, 1977.
    """
    values = np.asarray(samples, dtype=float)
    lower, upper = np.quantile(values, [0.25, 0.75])
    reach = 1.5 * (upper - lower)
    return float(((values < lower - reach) | (values > upper + reach)).mean())


def iqr_over_median(samples: Sequence[float]) -> float:
    """The interquartile range as a share of the median."""
    lower, middle, upper = np.quantile(np.asarray(samples, dtype=float), [0.25, 0.5, 0.75])
    return float((upper - lower) / middle)


def spread_class(ratio: float) -> Spread:
    """The word for an IQR/median: below 10 % ok, to 25 % noisy, above unstable."""
    if ratio < 0.10:
        return "ok"
    return "noisy" if ratio <= 0.25 else "unstable"


# ---------------------------------------------------------------------------------------------- inside


def _finite_values(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("at least one value is needed, and every value must be finite")
    return array


def positive_logs(values: Sequence[float]) -> np.ndarray:
    """Logarithms of times or ratios, [values].

    Raises:
        ValueError: no values, or one that is not positive and finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError("at least one value is needed")
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError("times and ratios must be positive and finite")
    return np.log(array)


def interval_on_logs(centre: float, se: float, df: float, n: int, level: float, method: str) -> Interval:
    """An estimate on the log scale as factors, with Student's interval.

    Args:
        centre: the estimate's logarithm.
        se: its standard error.
        df: degrees of freedom of that.
        n: replicates.
        level: of confidence.
        method: in words.
    """
    reach = float(special.stdtrit(df, (1 + level) / 2)) * se
    return Interval(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach), n, level, method, se, df)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):.1f} %"


def _more_text(more: int | None) -> str:
    if more is None:
        return f"more than {_MOST_INVOCATIONS} further invocations would be needed: use a quieter host"
    return f"about {more} more invocation{'s' if more != 1 else ''} would tell"
