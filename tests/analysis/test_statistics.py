import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from bench import statistics
from bench.statistics import Interval, log_mean_interval, ratio_interval_paired, ratio_interval_welch, verdict

POSITIVE = st.lists(st.floats(0.1, 1000), min_size=2, max_size=12)


def interval(low, value, high, n=5):
    return statistics.from_summary(value, low, high, n)


# ------------------------------------------------------------------------------------------------ means and ratios


def test_geometric_mean_and_t_interval_on_logs_by_hand():
    # logs 0, 1, 2: mean 1, sd 1, se 1/sqrt(3), t(2; 0.975) = 4.302653
    found = log_mean_interval([1.0, math.e, math.e**2])
    assert found.value == pytest.approx(math.e)
    assert math.log(found.high) == pytest.approx(1 + 4.302653 / math.sqrt(3), abs=1e-6)
    assert math.log(found.low) == pytest.approx(1 - 4.302653 / math.sqrt(3), abs=1e-6)
    assert (found.n, found.df) == (3, 2)


def test_one_process_gives_a_value_without_an_interval():
    assert log_mean_interval([4.0]) == Interval(pytest.approx(4.0), None, None, 1, 0.95, "geometric mean")


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, -2.0], [1.0, math.nan], [1.0, math.inf]])
def test_values_that_are_no_times_are_refused(values):
    with pytest.raises(ValueError, match=r"positive|at least one"):
        log_mean_interval(values)


def test_pairing_removes_what_the_process_adds_to_both():
    process = np.array([1.0, 1.3, 0.8, 1.1, 2.0])
    paired = ratio_interval_paired(10 * process * [1.01, 0.99, 1.0, 1.01, 0.99], 5 * process)
    assert paired.value == pytest.approx(2.0, rel=1e-3)
    assert paired.half_width < 0.02
    assert ratio_interval_welch(10 * process, 5 * process).half_width > 0.5


def test_paired_ratio_needs_pairs():
    with pytest.raises(ValueError, match="equal lengths"):
        ratio_interval_paired([1.0, 2.0], [1.0])


def test_welch_agrees_with_scipy_on_logs():
    a, b = [10.0, 11.0, 10.5, 9.8], [5.0, 5.6, 5.2]
    reference = scipy_stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
    low, high = reference.confidence_interval(0.95)
    found = ratio_interval_welch(a, b)
    assert (math.log(found.low), math.log(found.high)) == pytest.approx((low, high))
    assert found.df == pytest.approx(reference.df)
    assert statistics.equality_p(log_mean_interval(a), log_mean_interval(b)) == pytest.approx(reference.pvalue)


def test_ratio_of_summaries_is_welchs_ratio():
    a, b = [10.0, 11.0, 10.5, 9.8], [5.0, 5.6, 5.2]
    exact, found = ratio_interval_welch(a, b), statistics.ratio_of_summaries(log_mean_interval(a), log_mean_interval(b))
    assert (found.value, found.low, found.high) == pytest.approx((exact.value, exact.low, exact.high))
    assert statistics.ratio_of_summaries(log_mean_interval([2.0]), log_mean_interval(b)).low is None


def test_paired_p_value_agrees_with_scipy():
    a, b = [10.0, 11.0, 10.5, 9.8], [9.0, 10.6, 10.2, 9.9]
    reference = scipy_stats.ttest_rel(np.log(a), np.log(b))
    assert statistics.equality_p_of(ratio_interval_paired(a, b)) == pytest.approx(reference.pvalue)


@given(POSITIVE, st.floats(0.01, 100))
@settings(deadline=None)
def test_unit_of_time_changes_no_relative_width(values, factor):
    assume(len(set(values)) > 1)
    one, other = log_mean_interval(values), log_mean_interval([v * factor for v in values])
    assert other.value == pytest.approx(one.value * factor)
    assert other.half_width == pytest.approx(one.half_width, rel=1e-6)
    assert one.low <= one.value * (1 + 1e-12) and one.value <= one.high * (1 + 1e-12)


@given(POSITIVE, POSITIVE)
@settings(deadline=None)
def test_ratio_the_other_way_round_is_the_inverse(a, b):
    one, other = ratio_interval_welch(a, b), ratio_interval_welch(b, a)
    assert one.value * other.value == pytest.approx(1.0)
    assert one.low * other.high == pytest.approx(1.0)


def bounded(estimate, level):
    """The estimate with its t-interval on logs at a level, by scipy."""
    reach = math.exp(scipy_stats.t.ppf((1 + level) / 2, estimate.df) * estimate.se)
    return replace(estimate, low=estimate.value / reach, high=estimate.value * reach, level=level)


@given(POSITIVE)
@settings(deadline=None)
def test_interval_is_recovered_from_its_summary_and_at_other_levels(values):
    assume(np.ptp(values) > 1e-3)
    exact = log_mean_interval(values)
    recovered = statistics.from_summary(exact.value, exact.low, exact.high, exact.n)
    assert recovered.se == pytest.approx(exact.se, rel=1e-6)
    wide = bounded(recovered, 0.99)
    assert wide.high == pytest.approx(log_mean_interval(values, 0.99).high)


def test_geometric_summary_by_hand():
    members = {"a": interval(1.8, 2.0, 2.0 / 0.9), "b": interval(0.45, 0.5, 0.5 / 0.9)}
    found = statistics.geometric_summary(members)
    assert found.interval.value == pytest.approx(1.0)
    assert found.interval.se == pytest.approx(members["a"].se / math.sqrt(2))
    assert found.interval.df == pytest.approx(8.0)
    assert (found.smallest, found.largest) == (0.5, 2.0)


def test_geometric_summary_is_unavailable_if_a_member_failed():
    found = statistics.geometric_summary({"a": interval(1.8, 2.0, 2.2), "b": None})
    assert found.interval is None and found.reason == "no value for b"
    assert statistics.geometric_summary({"a": log_mean_interval([2.0])}).reason == "no interval for a"
    assert statistics.geometric_summary({}).interval is None


# ------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (1.03, 1.06, "FASTER"),
        (0.94, 0.97, "SLOWER"),
        (0.99, 1.01, "SAME"),
        (1.005, 1.045, "SAME"),
        (0.953, 1.049, "SAME"),
        (1.01, 1.08, "AMBIGUOUS"),
        (0.90, 1.02, "AMBIGUOUS"),
        (0.8, 1.2, "AMBIGUOUS"),
        (1.021, 1.04, "FASTER"),
        (1.5, 1.7, "FASTER"),
    ],
)
def test_verdict_follows_the_interval(low, high, kind):
    found = verdict(interval(low, math.sqrt(low * high), high))
    assert found.kind == kind
    assert (found.more_invocations is not None) == (kind == "AMBIGUOUS")


def test_ambiguous_says_how_many_more_invocations_would_tell():
    ratio = ratio_interval_paired([1.0, 1.06, 0.97, 1.02], [1.0] * 4)
    found = verdict(ratio)
    assert found.kind == "AMBIGUOUS" and f"about {found.more_invocations} more invocations would tell" in found.text
    decided = Interval(
        ratio.value,
        None,
        None,
        4,
        se=ratio.se * math.sqrt(4 / (4 + found.more_invocations)),
        df=3 + found.more_invocations,
    )
    assert verdict(bounded(decided, 0.95)).kind == "SAME"


def test_a_difference_that_only_so_many_comparisons_hide_asks_for_no_invocations():
    ratio = log_mean_interval([1.06, 1.07, 1.08, 1.07])
    assert verdict(ratio).kind == "FASTER"
    for factor in (1.0, 1 / ratio.value**2):
        found = verdict(bounded(replace(ratio, value=ratio.value * factor), 0.95), p_adjusted=0.2)
        assert found.kind == "AMBIGUOUS" and found.more_invocations is None
        assert found.text.endswith("beyond the margin by itself, but not among this many comparisons")


def test_a_summary_that_no_times_could_have_has_no_interval():
    assert statistics.from_summary(-1.0, 0.5, 1.0, 5).se is None


def test_one_invocation_or_a_stated_reason_is_invalid():
    assert verdict(log_mean_interval([2.0])).kind == "INVALID"
    assert verdict(interval(1.9, 2.0, 2.1), invalid="the baseline crashed").text == "the baseline crashed"


def test_difference_inside_the_noise_floor_is_never_faster():
    ratio = interval(1.03, 1.04, 1.05)
    assert verdict(ratio).kind == "FASTER"
    assert verdict(ratio, noise_floor=(0.95, 1.06)).kind == "SAME"
    assert verdict(interval(1.04, 1.055, 1.07), noise_floor=(0.95, 1.06)).kind == "AMBIGUOUS"


@given(st.floats(0.5, 2.0), st.floats(1.0005, 1.3), st.integers(2, 20))
@settings(deadline=None)
def test_p_value_and_interval_tell_the_same_difference(value, reach, n):
    ratio = interval(value / reach, value, value * reach, n)
    assume(min(abs(math.log(ratio.low / 1.02)), abs(math.log(ratio.high * 1.02))) > 1e-9)
    differs = verdict(ratio).kind in {"FASTER", "SLOWER"}
    assert differs == (statistics.difference_p(ratio) < 0.05)
    assert verdict(ratio, p_adjusted=statistics.difference_p(ratio)).kind == verdict(ratio).kind


def test_paired_p_values_of_all_pairs_are_those_of_each_pair():
    rng = np.random.default_rng(4)
    values = np.exp(rng.normal(size=(5, 4)))
    values[3] = values[1]
    found = statistics.paired_p_matrix(values)
    for i in range(5):
        for j in range(5):
            ratio = statistics.ratio_interval_paired(values[i], values[j])
            assert found[i, j] == pytest.approx(statistics.difference_p(ratio, margin=0.0), abs=1e-9)
    assert found[1, 3] == 1.0 and found[0, 1] < 1.0


def test_pairs_of_one_process_have_no_p_value():
    with pytest.raises(ValueError, match="one process"):
        statistics.paired_p_matrix(np.ones((3, 1)))


def test_holm_by_hand_with_a_row_that_cannot_be_tested():
    assert statistics.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert statistics.holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None, max_examples=15)
def test_holm_agrees_with_statsmodels(p_values):
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_extra_invocations_reach_the_goal_and_not_one_less():
    now = log_mean_interval([1.00, 1.05, 0.97, 1.02, 0.99])
    more = statistics.extra_invocations(now, 0.01)

    def half_width(n):
        return math.expm1(scipy_stats.t.ppf(0.975, n - 1) * now.se * math.sqrt(now.n / n))

    assert half_width(now.n + more) <= 0.01 < half_width(now.n + more - 1)
    assert statistics.extra_invocations(now, 0.5) == 0
    assert statistics.extra_invocations(now, 1e-6) is None


def test_of_one_session_whose_error_is_known_a_second_is_the_least_to_ask_for():
    """Two levels of a history may be a session each: Student's t has no quantile of 0 degrees of freedom."""
    one = Interval(1.05, None, None, 1, se=0.001, df=1.0)
    two = replace(one, n=2, se=0.001 / 2**0.5)
    assert statistics.extra_invocations(one, 0.5) == 1
    assert statistics.extra_invocations(one, 0.001) == statistics.extra_invocations(two, 0.001) + 1


# ------------------------------------------------------------------------------------------------ ranks


def test_ranks_are_intervals_and_ties_share_them():
    items = [interval(9.9, 10.0, 10.1), interval(10.0, 10.1, 10.2), interval(19.8, 20.0, 20.2), interval(15, 18, 21.6)]
    p = np.array([[statistics.equality_p(a, b) for b in items] for a in items])
    better = np.array([[a.value < b.value for b in items] for a in items])
    assert statistics.holm_ranks(p, better) == [(1, 2), (1, 2), (3, 4), (3, 4)]


def test_all_pairs_at_once_give_the_same_p_values():
    items = [
        interval(9.9, 10.0, 10.1, 3),
        interval(10.0, 10.1, 10.2),
        interval(5, 5, 5),
        interval(5, 5, 5),
        interval(4, 4, 4),
    ]
    one_by_one = np.array([[statistics.equality_p(a, b) for b in items] for a in items])
    assert statistics.equality_matrix(items) == pytest.approx(one_by_one)
    assert np.isnan(statistics.equality_matrix([items[0], log_mean_interval([5.0])])[0, 1])


@pytest.mark.filterwarnings("error")
def test_means_of_nothing_are_equal_to_each_other_and_far_from_any_other():
    nothing = replace(log_mean_interval([1.0, 1.1, 1.2]), value=0.0)
    matrix = statistics.equality_matrix([nothing, nothing, log_mean_interval([1.0, 1.1, 1.2])])
    assert matrix[0, 1] == 1.0 and matrix[0, 2] == 0.0


def test_item_without_an_interval_may_hold_any_rank():
    items = [interval(9.9, 10.0, 10.1), log_mean_interval([5.0]), interval(19.8, 20.0, 20.2)]
    p = np.array([[statistics.equality_p(a, b) for b in items] for a in items])
    better = np.array([[a.value < b.value for b in items] for a in items])
    assert statistics.holm_ranks(p, better) == [(1, 2), (1, 3), (2, 3)]


# ------------------------------------------------------------------------------------------------ quality


def test_functions_behind_the_distributions_give_what_scipy_and_statsmodels_give():
    t, df = np.meshgrid([-3.0, 0.0, 0.3, 2.0, 40.0, np.inf, np.nan], [0.5, 1.0, 7.3, 400.0, np.nan])
    assert statistics.t_tail(t, df) == pytest.approx(scipy_stats.t.sf(t, df), rel=1e-9, nan_ok=True)
    for n, q in ((1, 0.5), (12, 0.5), (64, 0.9), (999, 0.9), (999, 0.99)):
        rank = int(scipy_stats.binom.isf(0.01, n, q)) + 1
        assert statistics.percentile(list(range(1, n + 1)), q).upper == (rank if rank <= n else None)
    for right, n in ((0, 1), (1, 1), (0, 10), (10, 10), (7, 9), (41033, 50000)):
        assert statistics.wilson(right, n, 0.9) == pytest.approx(proportion_confint(right, n, 0.1, "wilson"), rel=1e-12)
    for lost, won in ((0, 0), (1, 0), (3, 3), (6, 2), (40, 90)):
        first, second = [True] * lost + [False] * won + [True], [False] * lost + [True] * won + [True]
        exact = mcnemar([[0, lost], [won, 0]], exact=True).pvalue if lost + won else 1.0
        assert statistics.paired_accuracy_difference(first, second).p == pytest.approx(exact, rel=1e-12)


def test_wilson_oracle():
    assert statistics.wilson(41033, 50000) == pytest.approx((0.81727, 0.82400), abs=5e-6)
    assert statistics.wilson(0, 10)[0] == 0.0
    with pytest.raises(ValueError, match="not a proportion"):
        statistics.wilson(3, 2)


def test_paired_accuracy_by_hand():
    first = [True] * 90 + [True] * 6 + [False] * 2 + [False] * 2
    second = [True] * 90 + [False] * 6 + [True] * 2 + [False] * 2
    found = statistics.paired_accuracy_difference(first, second)
    assert (found.value, found.only_first, found.only_second, found.n) == (-4.0, 6, 2, 100)
    # Bonett and Price: p12 = 7/102, p21 = 3/102, D = -4/102
    se = math.sqrt((10 / 102 - (4 / 102) ** 2) / 102)
    assert found.low == pytest.approx(100 * (-4 / 102 - 1.959964 * se), abs=1e-5)
    assert found.high == pytest.approx(100 * (-4 / 102 + 1.959964 * se), abs=1e-5)
    assert found.p == pytest.approx(2 * (1 + 8 + 28) / 256)


def test_paired_accuracy_is_sharper_than_two_wilson_intervals():
    rng = np.random.default_rng(1)
    first = rng.random(2000) < 0.9
    second = first.copy()
    second[np.flatnonzero(first)[:30]] = False
    found = statistics.paired_accuracy_difference(first, second)
    assert found.high < 0
    low, high = statistics.wilson(int(first.sum()), 2000), statistics.wilson(int(second.sum()), 2000)
    assert low[0] < high[1]


def test_paired_accuracy_needs_the_same_images():
    with pytest.raises(ValueError, match="same images"):
        statistics.paired_accuracy_difference([True], [True, False])


# ------------------------------------------------------------------------------------------------ samples


def test_percentiles_appear_exactly_where_mlperf_allows_them():
    assert statistics.samples_for_percentile(0.9) == 64
    assert statistics.samples_for_percentile(0.99) == 662
    assert statistics.percentile([1.0] * 63, 0.9).value is None
    assert statistics.percentile([1.0] * 63, 0.9).reason == "63 samples; 64 are needed"
    found = statistics.percentile(list(range(64)), 0.9)
    assert found.value == pytest.approx(56.7) and found.upper == 62
    assert statistics.percentile([3.0], 0.5).value == 3.0
    assert statistics.percentile([], 0.5).reason == "no samples"


def test_outliers_are_shared_by_tukeys_fences():
    assert statistics.outlier_share([*range(1, 20), 1000]) == pytest.approx(0.05)
    assert statistics.outlier_share([5.0] * 10) == 0.0


def test_spread_has_a_word():
    assert statistics.iqr_over_median([90, 95, 100, 105, 110]) == pytest.approx(0.1)
    assert [statistics.spread_class(x) for x in (0.05, 0.1, 0.25, 0.26)] == ["ok", "noisy", "noisy", "unstable"]


# ------------------------------------------------------------------------------------------------ simulated coverage


def coverage(make, k, sd, runs, rng):
    hits = sum(made.low <= truth <= made.high for made, truth in (make(k, sd, rng) for _ in range(runs)))
    return hits / runs


def simulate_mean(k, sd, rng):
    return log_mean_interval(10 * np.exp(rng.normal(0, sd, k))), 10.0


def simulate_paired(k, sd, rng):
    host = np.exp(rng.normal(0, 0.3, k))
    return ratio_interval_paired(10 * host, 8 * host * np.exp(rng.normal(0, sd, k))), 1.25


def simulate_welch(k, sd, rng):
    return ratio_interval_welch(10 * np.exp(rng.normal(0, sd, k)), 8 * np.exp(rng.normal(0, sd, k + 2))), 1.25


def simulate_medians(k, sd, rng):
    """Medians of 51 right-skewed samples in each of k processes that differ by sd: the whole pipeline."""
    skewed = np.median(np.exp(rng.exponential(0.05, (2, k, 51))), axis=2)
    host = np.exp(rng.normal(0, 0.1, k))
    return ratio_interval_paired(10 * host * skewed[0], 8 * host * skewed[1] * np.exp(rng.normal(0, sd, k))), 1.25


KINDS = [simulate_mean, simulate_paired, simulate_welch, simulate_medians]


@pytest.mark.parametrize("make", KINDS)
def test_nominal_95_percent_covers_quick(make):
    assert 0.92 <= coverage(make, 5, 0.016, 800, np.random.default_rng(5)) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("k", [3, 5, 10])
@pytest.mark.parametrize("sd", [0.0016, 0.016, 0.10, 0.58])
def test_nominal_95_percent_covers_93_to_97(make, k, sd):
    assert 0.93 <= coverage(make, k, sd, 6000, np.random.default_rng([k, int(1e4 * sd)])) <= 0.97


def false_difference_rate(difference, k, sd, runs, rng, kinds):
    found = 0
    for _ in range(runs):
        host = rng.normal(0, 0.1, k)
        base, case = np.exp(host), np.exp(host + rng.normal(0, sd, k)) * difference
        found += verdict(ratio_interval_paired(base, case)).kind in kinds
    return found / runs


def test_identical_networks_are_not_called_different_and_a_5_percent_slowdown_is_found():
    rng = np.random.default_rng(11)
    assert false_difference_rate(1.0, 5, 0.0016, 400, rng, {"SAME"}) == 1.0
    assert false_difference_rate(1.0, 5, 0.016, 400, rng, {"FASTER", "SLOWER"}) <= 0.05
    assert false_difference_rate(1.05, 5, 0.0016, 400, rng, {"SLOWER"}) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.0016, 0.016, 0.1, 0.58])
def test_false_differences_stay_below_5_percent_at_every_noise_level(sd):
    rng = np.random.default_rng(13)
    assert false_difference_rate(1.0, 5, sd, 4000, rng, {"FASTER", "SLOWER"}) <= 0.05
    assert false_difference_rate(1.02, 5, sd, 4000, rng, {"SLOWER"}) <= 0.035


def test_shares_have_the_t_interval_of_their_logits():
    from bench.statistics import logit_interval

    assert logit_interval([0.5, 0.5, 0.5], 0.5) == pytest.approx((0.5, 0.5))
    low, high = logit_interval([0.02, 0.05, 0.01], 0.027)
    assert 0 < low < 0.027 < high < 1 and high - 0.027 > 0.027 - low  # wider on the side that has room
    assert logit_interval([0.2], 0.2) == (None, None)
    with pytest.raises(ValueError, match="have a logit"):
        logit_interval([0.5, 1.0], 0.7)
