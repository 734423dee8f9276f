"""How far predicted costs are from measured ones: errors, ranks and the price of a choice, with bootstrap intervals.

Pure. The unit is the network: intervals are percentiles of resampled networks. A number that is not defined (an error
relative to a cost of zero, a rank of costs that are all equal) is None, never a large or a small one.

Sources: SMAPE without an offset, as in wa-hls4ml (arXiv 2511.05615), whose 200.0 % of a target that is zero
everywhere fixes the definition; R2 = 1 - SSE / SST; ranks as C. Spearman 1904 and M. Kendall 1938 (tau-b, with
ties); percentile bootstrap as B. Efron, Ann. Statist. 7, 1979.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = Sequence[float] | np.ndarray
Measure = Callable[[Values, Values], float | None]

#: Resampled sets of networks behind an interval.
RESAMPLES = 1000
#: Networks below which an interval says nothing.
LEAST = 3
#: An entry whose processes vary by more (`repeatability`) is not published, and nothing is predicted with it.
REPEATS_WITHIN = 0.10


@dataclass(frozen=True)
class Estimate:
    """A number over networks with the ends of its 95 % interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def mape(measured: Values, predicted: Values) -> float | None:
    """Mean absolute error relative to what was measured, per cent; None where a measured cost is zero."""
    y, p = _pair(measured, predicted)
    return None if (y == 0).any() else float(100 * np.mean(np.abs(p - y) / np.abs(y)))


def smape(measured: Values, predicted: Values) -> float | None:
    """Mean of 200 |y - p| / (|y| + |p|), per cent, a pair of zeros counting zero; at most 200."""
    y, p = _pair(measured, predicted)
    whole = np.abs(y) + np.abs(p)
    return float(np.mean(np.where(whole == 0, 0.0, 200 * np.abs(y - p) / np.where(whole == 0, 1.0, whole))))


def rmse(measured: Values, predicted: Values) -> float | None:
    """Root of the mean squared error, in the unit of the cost."""
    y, p = _pair(measured, predicted)
    return float(np.sqrt(np.mean((y - p) ** 2)))


def r2(measured: Values, predicted: Values) -> float | None:
    """1 - SSE / SST; may be far below zero; None where all measured costs are equal."""
    y, p = _pair(measured, predicted)
    total = float(np.sum((y - y.mean()) ** 2))
    return None if total == 0 else float(1 - np.sum((y - p) ** 2) / total)


def r2_log(measured: Values, predicted: Values) -> float | None:
    """R2 of the logarithms, in which one large network decides nothing; None where a cost is not positive."""
    y, p = _pair(measured, predicted)
    return r2(list(np.log(y)), list(np.log(p))) if (y > 0).all() and (p > 0).all() else None


def spearman(measured: Values, predicted: Values) -> float | None:
    """Rank correlation; None where one side is all equal."""
    from scipy.stats import spearmanr

    return _ranked(spearmanr, measured, predicted)


def kendall(measured: Values, predicted: Values) -> float | None:
    """Kendall's tau-b; None where one side is all equal."""
    from scipy.stats import kendalltau

    return _ranked(kendalltau, measured, predicted)


def p75_abs_rel_error(measured: Values, predicted: Values) -> float | None:
    """The relative error, per cent, that three quarters of the networks stay below; None where a cost is zero."""
    y, p = _pair(measured, predicted)
    return None if (y == 0).any() else float(100 * np.quantile(np.abs(p - y) / np.abs(y), 0.75))


def top1_regret(measured: Values, predicted: Values) -> float | None:
    """Measured cost of the network with the least predicted one, over the least measured; 1 is the best choice.

    Of several that are predicted alike the mean is meant, for nothing chooses among them.
    """
    y, p = _pair(measured, predicted)
    return None if y.min() <= 0 else float(y[p == p.min()].mean() / y.min())


def bias_percent(measured: Values, predicted: Values) -> float | None:
    """By how much predictions are high (positive) or low as a whole: the geometric mean of their ratios, less one."""
    ratios = _log_ratios(measured, predicted)
    return None if ratios is None else float(100 * math.expm1(ratios.mean()))


def spread_percent(measured: Values, predicted: Values) -> float | None:
    """What is left once the bias is taken off: the standard deviation of log ratios as a factor, less one."""
    ratios = _log_ratios(measured, predicted)
    return None if ratios is None or len(ratios) < 2 else float(100 * math.expm1(ratios.std(ddof=1)))


MEASURES: Mapping[str, Measure] = {
    "mape": mape,
    "smape": smape,
    "rmse": rmse,
    "r2": r2,
    "r2_log": r2_log,
    "spearman": spearman,
    "kendall": kendall,
    "p75_abs_rel_error": p75_abs_rel_error,
    "top1_regret": top1_regret,
    "bias_percent": bias_percent,
    "spread_percent": spread_percent,
}


def right_side(measured: Values, predicted: Values, budget: float) -> list[bool]:
    """Of each network, whether it is predicted to lie on the side of a budget on which it lies."""
    y, p = _pair(measured, predicted)
    return [bool(right) for right in (y <= budget) == (p <= budget)]


def estimates(
    measured: Values, predicted: Values, seed: int = 0, names: Sequence[str] = tuple(MEASURES)
) -> dict[str, Estimate]:
    """Every measure by its name with its interval over networks.

    Args:
        measured: one positive cost a network.
        predicted: of the same networks.
        seed: of the resampling, so that equal numbers have equal intervals.
        names: of the measures.

    Raises:
        ValueError: no networks, other lengths, or a value that is not finite.
    """
    y, p = _pair(measured, predicted)
    draws: Any = np.random.default_rng(seed).integers(len(y), size=(RESAMPLES, len(y))) if len(y) >= LEAST else []
    found = {}
    for name in names:
        value = MEASURES[name](y, p)
        again = [] if value is None else [MEASURES[name](y[draw], p[draw]) for draw in draws]
        known = [one for one in again if one is not None]
        # a resample of one network many times has no rank: what is left has to be nearly all of them
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) > 0.9 * RESAMPLES else (None, None)
        found[name] = Estimate(value, _or_none(low), _or_none(high), len(y))
    return found


def repeatability(values: Values) -> float | None:
    """Standard deviation of the processes' values over their mean (ISO 5725's, relative); None of a single one."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.mean(values))


def ceiling(repeats: Sequence[Values]) -> float | None:
    """The MAPE of measuring again as often, per cent, which a perfect predictor would hardly be below.

    Each process is set against the geometric mean of the P - 1 others, whose difference has the variance of a process
    times P / (P - 1); that of two means of P processes has 2 / P of it. So the error of the first is taken times
    sqrt(2 (P - 1)) / P.

    Args:
        repeats: per network, its cost in every process.

    Returns:
        The mean over networks and processes; None where no network was measured twice.
    """
    errors = []
    for values in repeats:
        logs = [math.log(value) for value in values]
        count = len(logs)
        for place in range(count if count > 1 else 0):
            others = logs[:place] + logs[place + 1 :]
            apart = (sum(others) / len(others) - logs[place]) * math.sqrt(2 * (count - 1)) / count
            errors.append(abs(math.expm1(apart)))
    return 100 * sum(errors) / len(errors) if errors else None


def _pair(measured: Values, predicted: Values) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    if y.ndim != 1 or y.shape != p.shape or not len(y):
        raise ValueError(f"errors are over networks that both sides have: {y.shape} measured, {p.shape} predicted")
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        raise ValueError("a measured or a predicted cost is not finite")
    return y, p


def _ranked(correlation: Callable[..., object], measured: Values, predicted: Values) -> float | None:
    y, p = _pair(measured, predicted)
    if len(set(y.tolist())) < 2 or len(set(p.tolist())) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _or_none(correlation(y, p).statistic)  # type: ignore[attr-defined]


def _log_ratios(measured: Values, predicted: Values) -> np.ndarray | None:
    y, p = _pair(measured, predicted)
    return np.log(p / y) if (y > 0).all() and (p > 0).all() else None


def _or_none(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
