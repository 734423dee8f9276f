"""Lines through logarithms: a power by hand, scipy's intervals, and what is refused."""

import math

import pytest
from scipy import stats

from bench.line_fit import log_line

XS, YS = [1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 2.2, 3.7, 9.0, 15.0]


def test_a_power_law_is_found_exactly():
    found = log_line([1, 10, 100], [3, 3 * 10**0.5, 30])
    assert (found.power, found.scale, found.correlation) == (pytest.approx(0.5), pytest.approx(3), pytest.approx(1))
    assert (
        found.residual == pytest.approx(1) and found.at(10_000) == pytest.approx(300) and found.correlation_low is None
    )


def test_slope_and_intervals_are_scipys():
    found, logs = log_line(XS, YS), [[math.log(v) for v in side] for side in (XS, YS)]
    slope = stats.linregress(*logs)
    reach = stats.t.ppf(0.975, 3) * slope.stderr
    assert (found.power, found.power_low, found.power_high) == pytest.approx(
        (slope.slope, slope.slope - reach, slope.slope + reach)
    )
    r = stats.pearsonr(*logs)
    ends = r.confidence_interval(0.95)
    assert (found.correlation, found.correlation_low, found.correlation_high) == pytest.approx(
        (r.statistic, ends.low, ends.high)
    )
    assert found.determination == pytest.approx(r.statistic**2) and found.n == 5


@pytest.mark.parametrize(
    "xs, ys",
    [
        ([1, 2], [1, 2]),
        ([1, 2, 3], [1, 2]),
        ([1, 2, 0], [1, 2, 3]),
        ([2, 2, 2], [1, 2, 3]),
        ([1, 2, math.nan], [1, 2, 3]),
    ],
)
def test_what_is_no_line_is_refused(xs, ys):
    with pytest.raises(ValueError, match=r"three pairs|above 0|no line"):
        log_line(xs, ys)
