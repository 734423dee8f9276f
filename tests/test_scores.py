"""A score knows how it is compared: every kind is held to an independent reference."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench import scores
from bench.metrics import METRICS
from bench.statistics import mean_interval, paired_mean_difference
from bench.store.record_parts import score_of, scored


def test_the_rules_are_those_of_the_metrics_that_are_compared_as_scores():
    assert set(scores.RULES) == {name for name, row in METRICS.items() if row.compared == "score"}
    assert all(METRICS[name].better in ("lower", "higher") for name in scores.RULES)


def test_a_mean_has_the_t_interval_of_scipy():
    values = [2.0, 3.5, 4.0, 7.5, 1.0]
    found = scores.mean("bits_per_byte", values, "d")
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx((3.6, low, high))
    assert found.reading().unit == "bit/B" and found.as_dict()["per_sample"] == values
    alone = scores.mean("psnr_db", [30.0], "d")
    assert (alone.low, alone.high) == (None, None) and "one sample" in alone.interval


def test_paired_means_agree_with_scipy():
    rng = np.random.default_rng(0)
    one = rng.normal(3, 1, 40)
    two = one + rng.normal(0.1, 0.2, 40)
    value, low, high, p = paired_mean_difference(one, two)
    wanted = stats.ttest_rel(two, one)
    assert (low, high) == pytest.approx(tuple(wanted.confidence_interval()))
    assert (value, p) == pytest.approx((float((two - one).mean()), wanted.pvalue))
    assert paired_mean_difference([1, 2], [1, 2]) == (0.0, 0.0, 0.0, 1.0)
    assert paired_mean_difference([1, 2], [2, 3]) == (1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [[1.0]]])
def test_a_mean_of_nothing_or_of_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="every value must be finite"):
        mean_interval(bad)


def side(values, digest="d"):
    return scores.mean("bits_per_byte", values, digest).as_dict()


def test_two_scores_are_paired_on_the_same_samples_and_apart_on_others():
    one, two = [3.0, 2.0, 5.0, 4.0], [3.2, 2.1, 5.3, 4.2]
    paired = scores.change("bits_per_byte", side(one), side(two))
    assert (paired.pairing, paired.better) == ("paired by sample", False)
    assert paired.p == pytest.approx(stats.ttest_rel(two, one).pvalue)
    apart = scores.change("bits_per_byte", side(one), side(two, "other"))
    assert (apart.pairing, apart.better, apart.same) == ("unpaired", None, False)
    half = [(stats.ttest_1samp(v, 0).confidence_interval().high - np.mean(v)) for v in (one, two)]
    assert apart.high - apart.value == pytest.approx(math.hypot(*half))


def test_a_difference_that_nobody_need_mind_is_the_same():
    one = [3.0, 2.0, 5.0, 4.0]
    found = scores.change("bits_per_byte", side(one), side([v + 0.001 for v in one]))
    assert found.same and found.text == "+0.00 bits per byte (+0.00 to +0.00)"
    assert not scores.change("bits_per_byte", side(one), side([v + 0.02 for v in one])).same


def test_proportions_are_paired_by_mcnemar():
    one, two = ({"value": 100 * m.count("1") / 6, "per_sample": m, "samples_digest": "d"} for m in ("111100", "110000"))
    found = scores.change("accuracy", one, two)
    assert found.value == pytest.approx(-100 * 2 / 6)
    assert found.p == pytest.approx(stats.binomtest(0, 2).pvalue)


def test_a_distribution_has_a_spread_in_place_of_an_interval():
    seeds = [2.0, 2.3, 1.9]
    found = scores.distribution("frechet_distance", 2.0, 1000, "d", seeds=seeds, floor=0.5)
    assert (found.value, found.low, found.high) == (2.0, None, None)
    assert found.details["spread"] == pytest.approx(0.4) and found.details["floor"] == 0.5
    near, far = (scores.distribution("frechet_distance", v, 1000, "d", seeds=seeds) for v in (2.3, 3.0))
    assert scores.change("frechet_distance", found.as_dict(), near.as_dict()).same
    worse = scores.change("frechet_distance", found.as_dict(), far.as_dict())
    assert (worse.same, worse.better) == (False, False)
    with pytest.raises(ValueError, match="at least two seeds"):
        scores.distribution("frechet_distance", 2.0, 1000, "d", seeds=[2.0])


def test_a_score_may_bring_others_along_and_stays_the_task_s():
    other = scores.proportion("accuracy", "110", "d")
    found = replace(scores.distribution("frechet_distance", 2.0, 3, "d", seeds=[1, 2]), also=(other,))
    assert [item.metric for item in found.readings()] == ["frechet_distance", "accuracy"]
    record = {
        "case": {},
        "quality": found.as_dict(),
        "readings": [{**item.as_dict(), "part": ""} for item in found.readings()],
    }
    assert score_of(record)["metric"] == "frechet_distance"
    assert scored(record, "accuracy")["per_sample"] == "110" and scored(record, "macs") is None
    assert scored(record, "frechet_distance")["details"]["spread"] == 1.0


def test_scores_without_enough_to_compare_are_not_compared():
    bare = {"value": 1.0}
    assert scores.change("bits_per_byte", bare, bare) is None
    assert scores.change("frechet_distance", bare, bare) is None


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match="is no score"):
        scores.Score("macs", 1.0, 1, None, None, "", "1", "d")
    with pytest.raises(ValueError, match="is no score"):
        scores.mean("psnr_db", [30.0, 31.0], "d").__class__("psnr_db", math.inf, 2, None, None, "", (1.0, 2.0), "d")
    with pytest.raises(ValueError, match="marks other than"):
        scores.proportion("accuracy", "012", "d")
