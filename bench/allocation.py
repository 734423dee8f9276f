"""How many processes and iterations an interval of a wanted width costs least, and what narrows it for nothing.

Pure functions over logarithms of times, each with its formula and source. Version 2 of the protocol uses those of
warm-ups, of the rounds of the others and of the twin; `perf.simulated` tries all in worlds whose components are known.

A process's median of m iterations differs from the truth with the variance B + W / m. B is *between* processes; W is
*within* them, per iteration: `within_variance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.statistics import LEVEL, Interval, interval_on_logs, positive_logs, ratio_interval_paired

#: How much more a median of normal numbers varies than their mean: the ratio of the variances.
MEDIAN = math.pi / 2
#: Fewest processes that an interval is made of.
LEAST_PROCESSES = 3
#: Fewest iterations that a process's median is taken of.
LEAST_ITERATIONS = 10
#: Sum of squares below which products do not differ: no clock tells a billionth.
NO_SPREAD = 1e-18
#: Iterations after which times may have stopped falling.
LOOKS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
#: Iterations of a warm-up below which nothing is told from it.
FEWEST_TO_TELL = 24
#: What a warm-up that falls until its end is made longer by.
STILL_FALLING = 1.5
#: Iterations of a block, and blocks that say how much they scatter: the last half of a warm-up has so many at least.
BLOCK, FEWEST_BLOCKS = 8, 4
#: The median moving range of normal numbers in standard deviations: sqrt(2) times the third quartile.
MOVING_RANGE = math.sqrt(2) * 0.674489750196082


# ---------------------------------------------------------------------------------------------- how many of each


@dataclass(frozen=True)
class Costs:
    """Seconds: of a process whatever it times (start, build, warm-up), and of one iteration of all its members."""

    process_s: float
    iteration_s: float


@dataclass(frozen=True)
class Plan:
    """What to take, what it costs, and the relative half-width to expect; `reached` says if that is what was wanted."""

    processes: int
    iterations: int
    seconds: float
    half_width: float
    reached: bool


def within_variance(iteration: float, wander: float, rounds: float = 10.0) -> float:
    """Variance of a process's median times its iterations: (pi / 2) iteration^2 + rounds wander^2.

    Args:
        iteration: standard deviation of neighbouring iterations' logarithms.
        wander: of slow changes, beyond that.
        rounds: over which a slow change lasts, so that there are m / rounds independent ones; ten is the block of the
            estimator that `wander` comes from.

    Source: the median's variance, e.g. M. Kendall, A. Stuart, The Advanced Theory of Statistics 1, 14.12; batch means.
    """
    return MEDIAN * iteration**2 + rounds * wander**2


def within_of(medians: np.ndarray) -> np.ndarray:
    """W from one process's own samples: `BLOCK` times the variance of the medians of its blocks, [...].

    Args:
        medians: `block_medians` of a member, or for a ratio the differences of two members' ones, [..., blocks], two or
            more.

    Source: batch means, e.g. C. Alexopoulos, A. Seila, in Handbook of Simulation, 1998, section 7.3.
    """
    return np.asarray(BLOCK * medians.var(axis=-1, ddof=1))


def block_medians(logs: np.ndarray, size: int = BLOCK) -> np.ndarray:
    """Medians of successive blocks of so many iterations, [..., blocks]; what fills no block is left out."""
    whole = logs.shape[-1] // size * size
    found: np.ndarray = np.median(logs[..., :whole].reshape(*logs.shape[:-1], -1, size), axis=-1)
    return found


def best_iterations(within: float, between: float, costs: Costs) -> float:
    """Iterations of a process that give the least variance for the seconds: sqrt(process_s / iteration_s * W / B).

    Infinite where processes do not differ. It does not depend on how narrow the interval is to be.

    Source: W. G. Cochran, Sampling Techniques, 3rd edition 1977, section 10.6 (two-stage sampling); for benchmarks
    T. Kalibera, R. Jones, "Rigorous benchmarking in reasonable time", ISMM 2013, section 8.
    """
    if between == 0:
        return math.inf
    return math.sqrt(costs.process_s / costs.iteration_s * within / between)


def expected_half_width(within: float, between: float, processes: int, iterations: int, level: float = LEVEL) -> float:
    """Relative half-width of Student's interval of n processes: exp(t sqrt((B + W / m) / n)) - 1; infinite for one."""
    if processes < 2:
        return math.inf
    quantile = float(special.stdtrit(processes - 1, (1 + level) / 2))
    return math.expm1(quantile * math.sqrt((between + within / iterations) / processes))


def cheapest(
    within: float,
    between: float,
    costs: Costs,
    half_width: float,
    *,
    least: int = LEAST_PROCESSES,
    most: int = 20,
    most_iterations: int = 1000,
    level: float = LEVEL,
) -> Plan:
    """The processes and iterations of least cost whose interval is to be expected as narrow as wanted.

    For each number of processes n the fewest iterations follow from n (log(1 + half_width) / t)^2 = B + W / m; of all n
    from `least` to `most` the cheapest is taken. Where none is enough, the plan is of `most` processes of the best
    iterations, and says that the goal is not reached.

    Args:
        within: W.
        between: B.
        costs: of a process and an iteration.
        half_width: the goal, relative.
        least: fewest processes, two or more.
        most: most processes.
        most_iterations: of one process.
        level: of confidence.

    Raises:
        ValueError: there is no range of processes, or the goal is not positive.
    """
    if not 2 <= least <= most or half_width <= 0:
        raise ValueError(f"no plan of {least} to {most} processes for a half-width of {half_width:g}")
    plans = []
    for n in range(least, most + 1):
        quantile = float(special.stdtrit(n - 1, (1 + level) / 2))
        room = n * (math.log1p(half_width) / quantile) ** 2 - between
        if room > 0:
            iterations = max(LEAST_ITERATIONS, math.ceil(within / room))
            if iterations <= most_iterations:
                plans.append(_plan(within, between, costs, n, iterations, level, True))
    if plans:
        return min(plans, key=lambda plan: plan.seconds)
    best = min(most_iterations, max(LEAST_ITERATIONS, best_iterations(within, between, costs)))
    return _plan(within, between, costs, most, round(best), level, False)


def _plan(
    within: float, between: float, costs: Costs, processes: int, iterations: int, level: float, reached: bool
) -> Plan:
    seconds = processes * (costs.process_s + iterations * costs.iteration_s)
    return Plan(
        processes, iterations, seconds, expected_half_width(within, between, processes, iterations, level), reached
    )


def more_iterations_help(within: float, between: float, iterations: int, share: float = 0.1) -> bool:
    """Whether iterations still make more than this share of a process's variance: W / m over B + W / m.

    Where they do not, even infinitely many more would narrow the interval only by about half of that share.
    """
    of_iterations = within / iterations
    return of_iterations > share * (between + of_iterations)


# --------------------------------------------------------------------------------------------- the rounds of the others


@dataclass(frozen=True)
class Bounds:
    """What is planned for the processes after the first, and what for: parameters of the protocol.

    Attributes:
        fewest: iterations.
        most: iterations.
        between: standard deviation of the logarithm of a ratio between processes.
        one_piece: standard errors by which a block may stand out.
    """

    fewest: int
    most: int
    between: float
    one_piece: float


def of_one_piece(logs: np.ndarray, limit: float) -> np.ndarray:
    """Whether no block of a process's iterations stands out, as in a burst or where there are two states, [...].

    It stands out if the mean of its `BLOCK` iterations is further than `limit` s / sqrt(BLOCK) from the median of the
    blocks' means. s is the standard deviation of an iteration by the median of moving ranges |x(i + 1) - x(i)|, which
    neither bursts nor states move. Slow changes may make a block stand out as well; then more iterations are taken than
    are needed, and no truth is lost.

    Args:
        logs: logarithms of times in the order taken, [..., iterations], two blocks or more.
        limit: in standard errors of a block.

    Source: a chart of averages with limits from moving ranges, W. A. Shewhart, Economic Control of Quality of
    Manufactured Product, 1931; D. C. Montgomery, Introduction to Statistical Quality Control, 6.4; of the median
    moving range for normal numbers 0.954 is the expectation.
    """
    spread = np.median(np.abs(np.diff(logs, axis=-1)), axis=-1) / MOVING_RANGE
    whole = logs.shape[-1] // BLOCK * BLOCK
    means = logs[..., :whole].reshape(*logs.shape[:-1], -1, BLOCK).mean(axis=-1)
    off = np.abs(means - np.median(means, axis=-1, keepdims=True)).max(axis=-1)
    return np.asarray(off <= limit * spread / math.sqrt(BLOCK))


def planned_iterations(
    baselines: np.ndarray, cases: np.ndarray, costs: Costs, bounds: Bounds, by_rounds: bool = False
) -> int:
    """Iterations for each process after the first: those of least cost for the ratios, by what the first showed.

    W is the mean over the ratios of `within_of`, B is what ratios are taken to differ by between processes, because one
    process says nothing of that. Where the first process is not `of_one_piece`, the others take no fewer than
    it: the median of few is another number there than that of many.

    Args:
        baselines: logarithms of the baseline's times, with its twin's where that is one, [one or two, iterations].
        cases: of what is compared with them, [cases, iterations].
        costs: of a further process and an iteration.
        bounds: of the protocol.
        by_rounds: whether a process's ratio is the median of its rounds' ratios, or the ratio of medians.

    Source: `best_iterations`.
    """
    if by_rounds:
        ratios = block_medians(baselines.mean(axis=0) - cases)
    else:
        ratios = block_medians(baselines).mean(axis=0) - block_medians(cases)
    within = float(np.mean(within_of(ratios)))
    best = best_iterations(within, bounds.between**2, costs)
    wanted = max(bounds.fewest, math.ceil(min(best, bounds.most)))
    if not bool(of_one_piece(np.concatenate([baselines, cases]), bounds.one_piece).all()):
        wanted = max(wanted, baselines.shape[-1])
    return wanted


# ---------------------------------------------------------------------------------------------- the end of a warm-up


def warm_up_needed(logs: np.ndarray, level: float = 0.99) -> np.ndarray:
    """Iterations that a warm-up takes, by a full one, [...]: more than that had where it was still falling at its end.

    Twice the first of `LOOKS` from which on no look sees a fall: what was seen to be level is spent. Where every look
    sees one, `STILL_FALLING` times all of them; where there are too few to tell, all of them. A look at L compares the
    median of the iterations from L to 2 L with that of the last quarter, in blocks of B = `BLOCK`, or fewer where there
    are fewer than 64 iterations: a fall is seen if it exceeds t s sqrt(B / L + B / q), with q the iterations of that
    quarter and s the standard deviation of the medians of the blocks in the last half about a straight line, so that a
    fall which goes on there does not hide itself; their number less two are t's degrees of freedom, and fewer than
    `FEWEST_TO_TELL` iterations say nothing. Blocks carry slow changes with them, so that these do not pass for a fall.
    A fall that is seen where there is none costs time and no truth; one that lasts much longer than the whole warm-up
    is not seen at all. So the first process of a session is to warm up in full, and later ones as it showed.

    Args:
        logs: logarithms of times since the first iteration of a full warm-up, [..., iterations].
        level: of each look's one-sided test.

    Source: an early part against a late one is J. Geweke's comparison (Bayesian Statistics 4, 1992), with Student's t
    over batches (e.g. C. Alexopoulos, A. Seila, in Handbook of Simulation, 1998, section 7.3).
    """
    n = logs.shape[-1]
    if n < FEWEST_TO_TELL:
        return np.full(logs.shape[:-1], n)
    size = min(BLOCK, n // (2 * FEWEST_BLOCKS))
    blocks = block_medians(logs[..., n // 2 :], size)
    needed = np.full(logs.shape[:-1], math.ceil(STILL_FALLING * n))
    spread = _about_a_line(blocks)
    quantile = float(special.stdtrit(blocks.shape[-1] - 2, level))
    last = logs[..., -(n // 4) :]
    settled = np.median(last, axis=-1)
    still = np.ones(logs.shape[:-1], dtype=bool)
    for look in reversed([look for look in LOOKS if 2 * look <= 3 * n // 4]):
        fall = np.median(logs[..., look : 2 * look], axis=-1) - settled
        still &= fall <= quantile * spread * math.sqrt(size / look + size / last.shape[-1])
        needed = np.where(still, 2 * look, needed)
    return needed


def common_warm_up(logs: np.ndarray, level: float = 0.99) -> np.ndarray:
    """Slices of time that all members of a process warm up, [...]: `warm_up_needed` of their mean, or of one alone.

    What starts slowly is most often the process or the host, so that the mean of the members shows it, with less noise
    than any of them. A member that starts slowly by itself is looked for at a level by Bonferroni, or with many members
    and a noisy host one would nearly always be found. All warm up alike: what is left of a start that all share cancels
    in their ratios only if they are equally far in it.

    Args:
        logs: of mean times in equal slices of the members' full warm-ups, [..., members, slices].
        level: of each look.
    """
    each = logs - np.median(logs[..., -(logs.shape[-1] // 4) :], axis=-1, keepdims=True)
    alone = warm_up_needed(each, 1 - (1 - level) / logs.shape[-2]).max(axis=-1)
    return np.maximum(warm_up_needed(each.mean(axis=-2), level), alone)


def _about_a_line(values: np.ndarray) -> np.ndarray:
    """Standard deviation about the straight line through equally spaced values, [..., values] to [...]."""
    k = values.shape[-1]
    x = np.arange(k) - (k - 1) / 2
    centred = values - values.mean(axis=-1, keepdims=True)
    on_the_line = (centred @ x) ** 2 / (x @ x)
    return np.asarray(np.sqrt(np.maximum(0.0, (centred**2).sum(axis=-1) - on_the_line) / (k - 2)))


# ---------------------------------------------------------------------------------------------- control variates


def ratio_by_rounds(baselines: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """Logarithm of a process's ratio of baseline over case: the median over rounds of each round's ratio, [...].

    Members of a round run within a fraction of a second of one another, so that what slows the host for longer than
    that slows them alike and cancels before the median is taken; a ratio of medians has it in both. Of two identical
    members each round's ratio is symmetric about 1, whatever the noise, so that its median has no bias.

    Args:
        baselines: logarithms of the baseline's times, with its twin's where that is a control, [members, ..., rounds].
        cases: of what is compared with them, in the same rounds, [..., rounds].

    Source: pairing within blocks, e.g. R. A. Fisher, The Design of Experiments, 1935, chapter 3; the median of paired
    differences, e.g. M. Hollander, D. A. Wolfe, Nonparametric Statistical Methods, section 3.4 (sign statistic).
    """
    return np.asarray(np.median(baselines.mean(axis=0) - cases, axis=-1))


def ratio_with_twin(
    baseline: Sequence[float], twin: Sequence[float], case: Sequence[float], level: float = LEVEL
) -> Interval:
    """The ratio of baseline over case with the twin as control: log b - (log b - log twin) / 2 - log c.

    What the twin differs by from its baseline has mean zero for certain, because both are the same, so that it may be
    taken off with any fixed slope without bias. One half is the best where both vary alike in their process. No degree
    of freedom is spent, and Student's interval stays exact. With own levels of equal variance in a process the variance
    goes from 2 to 3 / 2 of it: the interval is 13 % narrower. What no member shares with its twin alone is untouched.

    Args:
        baseline: one positive value per process.
        twin: of the same processes, in the same order.
        case: likewise.
        level: of confidence.

    Raises:
        ValueError: the lengths differ, or a value is not positive and finite.

    Source: S. S. Lavenberg, P. D. Welch, "A perspective on the use of control variables", Management Science 27, 1981.
    """
    if len(twin) != len(baseline):
        raise ValueError(f"{len(baseline)} baselines cannot be paired with {len(twin)} twins")
    middle = np.sqrt(np.asarray(baseline, dtype=float) * np.asarray(twin, dtype=float))
    found = ratio_interval_paired(middle.tolist(), case, level)
    method = f"{found.method}, twin as control"
    return Interval(found.value, found.low, found.high, found.n, level, method, found.se, found.df)


@dataclass(frozen=True)
class Slope:
    """By how much a case's logarithm moves with the product's: what was found before, and its standard deviation.

    `sd` is of the slope from case to case: 0 takes `value` as it is, infinity takes only what these processes say.
    """

    value: float
    sd: float = 0.0


def controlled(
    values: Sequence[float], products: Sequence[float], elsewhere: Sequence[float], slope: Slope, level: float = LEVEL
) -> Interval:
    """The geometric mean of times, moved to where the reference product is on average on this machine.

    With logarithms y of the values, x of the products beside them and u of products of other processes of the same
    session (double sampling: they cost little, or are there because other groups were timed), the estimate is
    mean(y) + b (mean(u) - mean(x)). Without `elsewhere` the product tells nothing: its own mean is what is unknown.

    b is the posterior mean of a normal slope of mean `slope.value` and standard deviation T: the least-squares slope
    and the earlier one, weighted by L = S T^2 / (S T^2 + s^2) and 1 - L, with S the sum of squares of x - mean(x) and
    s^2 the residual variance. The variance is s^2 / n + D^2 s^2 L / S + b^2 var(u) / k, D = mean(u) - mean(x) (the
    second part is the posterior variance of the slope), with `cochran_df`, n - 1 - L for what s^2 is in. T = 0 gives
    the fixed slope, which spends no degree of freedom: mean(y - b x) + b mean(u), whose interval is honest whatever b
    is; a b that fits badly only widens it. T = infinity is regression on a second sample.

    Args:
        values: one positive time per process, three or more.
        products: of the reference product in the same processes.
        elsewhere: of the product in other processes, two or more.
        slope: what is known of b beforehand.
        level: of confidence.

    Raises:
        ValueError: lengths differ, there are too few, or a value is not positive.

    Source: W. G. Cochran, Sampling Techniques, 3rd edition 1977, sections 7.4 and 12.7 (regression with double
    sampling); the weight is D. V. Lindley, A. F. M. Smith, J. R. Statist. Soc. B 34, 1972.
    """
    y, x, u = (positive_logs(side) for side in (values, products, elsewhere))
    n, k = len(y), len(u)
    if len(x) != n or n < LEAST_PROCESSES or k < 2:
        raise ValueError(f"{n} times, {len(x)} products beside them and {k} elsewhere: needs 3 pairs and 2 more")
    b, weight, residual = _slope(x, y, slope)
    squares = float(np.square(x - x.mean()).sum())
    away = float(u.mean() - x.mean())
    of_slope = away**2 * residual * weight / squares if weight else 0.0
    own = residual / n + of_slope
    other = b**2 * float(np.var(u, ddof=1)) / k
    centre, se = float(y.mean()) + b * away, math.sqrt(own + other)
    df = cochran_df([own, other], [n - 1 - weight, k - 1.0], level)
    return interval_on_logs(centre, se, df, n, level, "geometric mean, product as control")


def cochran_df(variances: Sequence[float], dfs: Sequence[float], level: float = LEVEL) -> float:
    """Degrees of freedom of a sum of independent estimated variances, for an interval of that level: never too many.

    Those at which Student's quantile is the mean of the parts' quantiles, weighted by their variances. Satterthwaite's
    are too many where the larger part has two degrees of freedom or fewer.

    Source: W. G. Cochran, "Approximate significance levels of the Behrens-Fisher test", Biometrics 20, 1964, 191-195.
    """
    total = math.fsum(variances)
    if total == 0:
        return min(dfs)
    p = (1 + level) / 2
    parts = (variance * float(special.stdtrit(df, p)) for variance, df in zip(variances, dfs, strict=True))
    return float(special.stdtridf(p, math.fsum(parts) / total))


def _slope(x: np.ndarray, y: np.ndarray, slope: Slope) -> tuple[float, float, float]:
    """The slope, the weight of the least-squares one in it, and the residual variance about it."""
    x, y = x - x.mean(), y - y.mean()
    squares = float(x @ x)
    if slope.sd == 0 or squares < NO_SPREAD:
        return slope.value, 0.0, float(np.square(y - slope.value * x).sum()) / (len(x) - 1)
    fitted = float(x @ y) / squares
    residual = float(np.square(y - fitted * x).sum()) / (len(x) - 2)
    weight = 1.0 if math.isinf(slope.sd) else _weight(squares * slope.sd**2, residual)
    b = weight * fitted + (1 - weight) * slope.value
    return b, weight, float(np.square(y - b * x).sum()) / (len(x) - 1 - weight)


def _weight(of_slope: float, residual: float) -> float:
    total = of_slope + residual
    return of_slope / total if total else 1.0
