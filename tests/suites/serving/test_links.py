"""The link by its closed form, the rates at which ways break even, the map, and drafting over a link."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.link_map import Way, break_even, link_map
from bench.workloads.split import link_ms, one_way_ms
from suites.serving.flow_costs import Service, expected_tokens


def test_bytes_take_the_time_of_the_link():
    assert one_way_ms(10_092, 10, 20) == pytest.approx(18.0736)
    assert one_way_ms(40_368, 10, 20) == pytest.approx(42.2944)
    assert link_ms(10_092, 0, 10, 20) == pytest.approx(28.0736)


def ways():
    return [
        Way("local", 40.0, 0.0, 0.0, sends=False),
        Way("jpeg", 2.0, 12.0, 40_000.0),
        Way("split", 6.0, 10.0, 2_500.0),
    ]


def test_the_break_even_rate_is_where_both_take_as_long():
    local, jpeg, split = ways()
    found = break_even(split, jpeg, factor=3.0, rtt_ms=20)
    assert found.kind == "below" and found.mbps == pytest.approx(8e-3 * 37_500 / (3 * 4 - 2))
    assert split.total_ms(found.mbps, 20, 3.0) == pytest.approx(jpeg.total_ms(found.mbps, 20, 3.0))
    assert break_even(split, jpeg).kind == "below" and break_even(jpeg, split).kind == "above"
    assert str(break_even(local, local)) == "never"
    assert break_even(split, local, factor=10, rtt_ms=20).kind == "above"


COST = st.floats(0.01, 1e3)


@given(COST, COST, st.floats(0, 1e6), COST, COST, st.floats(0, 1e6), st.floats(1, 100), st.floats(0.01, 1e3))
def test_the_break_even_says_who_wins_at_any_rate(d1, s1, b1, d2, s2, b2, factor, rate):
    first, other = Way("a", d1, s1, b1), Way("b", d2, s2, b2)
    gap = first.total_ms(rate, 20, factor) - other.total_ms(rate, 20, factor)
    if abs(gap) > 1e-6 * first.total_ms(rate, 20, factor):
        assert break_even(first, other, factor=factor, rtt_ms=20).holds(rate) == (gap < 0)


def test_each_way_wins_where_it_should():
    drawn = link_map(ways(), [0.1, 1.0, 1000.0], [1.0, 30.0], 20.0)
    assert drawn == [[0, 0, 1], [2, 2, 1]]


def test_tokens_of_a_round():
    assert expected_tokens(0.8, 4) == pytest.approx(3.3616)
    assert expected_tokens(0.0, 9) == 1 and expected_tokens(1.0, 9) == 10 and expected_tokens(0.5, 0) == 1
    with pytest.raises(ValueError, match="a share of 0 to 1"):
        expected_tokens(1.2, 4)


def test_over_a_long_link_more_drafts_pay_and_the_cloud_alone_goes_once():
    near, far = (Service(1.0, 6.0, 5.0, 10.0, rtt) for rtt in (0.1, 200.0))
    assert near.best_k(0.8) < far.best_k(0.8)
    assert far.cloud_ms_per_token(64) < far.ms_per_token(far.best_k(0.8), 0.8)
    assert far.ms_per_token(0, 0.0) == pytest.approx(far.round_ms(0, 0.0))
    with pytest.raises(ValueError, match="one token at least"):
        far.cloud_ms_per_token(0)
