"""Numbers carry the digits that their interval allows, and prefixes that a reader knows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.numbers import decimals, half_width, pair, plain, quantity, scale_for, titled


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (40.1234, 38.9, 41.3, "40.1 ± 1.2"),
        (129.4, 125.4, 133.4, "129 ± 4"),
        (0.8312, 0.814, 0.8484, "0.831 ± 0.017"),
        (1.408, 1.38, 1.436, "1.408 ± 0.028"),
        (1234.5, 1134.5, 1334.5, "1\u202f234 ± 100"),
        (4.6e9, None, None, "4\u202f600\u202f000\u202f000"),
        (-1.2, -3.9, 1.5, "\u22121.2 ± 2.7"),
    ],
)
def test_digits_follow_the_half_width_of_the_interval(value, low, high, text):
    assert pair(value, low, high) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.6e9, "MAC", "4.60\u00a0GMACs"),
        (31e6, "B", "31.0\u00a0MB"),
        (130.0, "ms", "130\u00a0ms"),
        (5.7e6, "parameter", "5.70\u00a0M params"),
        (0.0042, "J", "4.20\u00a0mJ"),
        (1.5, "x", "1.50×"),
        (None, "ms", "—"),
    ],
)
def test_quantities_read_as_an_engineer_writes_them(value, unit, text):
    assert quantity(value, unit) == text


def test_milliseconds_and_percentages_keep_their_unit():
    assert scale_for([0.001, 5000.0], "ms").factor == 1.0
    assert scale_for([0.1], "%").unit == "%"


def test_shares_and_scores_without_a_unit_take_no_prefix():
    assert quantity(0.8489, "1", 0.8239, 0.8739) == "0.849 ± 0.025" and quantity(0.8489, "1") == "0.849"
    assert quantity(0.354, "px") == "0.354\u00a0px"
    assert titled("Dice", scale_for([0.8], "1").unit) == "Dice"
    assert titled("Parameters", scale_for([3e6], "parameter").unit) == "Parameters (M params)"


def test_an_exact_zero_is_a_zero_and_not_a_failure():
    assert pair(0.0, None, None) == "0"
    assert quantity(0.0, "B") == "0\u00a0B"


@given(st.floats(1e-6, 1e12), st.floats(1e-6, 1e6))
def test_the_shown_half_width_has_one_or_two_digits_and_is_never_rounded_to_zero(value, width):
    places = decimals(value, width)
    shown = plain(width, places).replace("\u202f", "")
    if places < 9:
        assert float(shown) > 0
        assert float(shown) == pytest.approx(width, rel=0.35) or width > 1


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(0, 1e3))
def test_half_width_is_the_larger_side(value, below, above):
    assert half_width(value, value - below, value + above) == pytest.approx(max(below, above), abs=1e-6)


def test_no_interval_has_no_half_width():
    assert half_width(1.0, None, None) is None
