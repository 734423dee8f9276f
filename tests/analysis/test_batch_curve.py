"""Which batch fits and which pays: hand-computed lines and curves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.batch_curve import Growth, Throughput, bend, best, growth


def test_memory_grows_by_the_line_through_the_two_largest_batches():
    line = growth({1: 130.0, 2: 150.0, 4: 190.0})
    assert line == Growth(110.0, 20.0) and line.at(10) == 310.0
    assert line.largest(310.0, 64) == 10 and line.largest(309.0, 64) == 9 and line.largest(1e9, 64) == 64
    assert line.largest(129.0, 64) == 0


def test_memory_that_does_not_grow_has_no_end_below_most():
    assert growth({1: 5.0, 2: 5.0}).largest(5.0, 32) == 32


def test_one_batch_says_nothing_of_growth():
    with pytest.raises(ValueError, match="two batches"):
        growth({4: 1.0})


@given(st.floats(0, 1e9), st.floats(1, 1e6), st.integers(1, 10_000))
def test_the_largest_fits_and_one_more_does_not(base, per_sample, batch):
    line = Growth(base, per_sample)
    found = line.largest(line.at(batch), 20_000)
    assert abs(found - batch) <= 1 and line.at(found) <= line.at(batch) * (1 + 1e-9)


def curve(*values, width=0.0):
    return [Throughput(2**i, v, v * (1 - width), v * (1 + width)) for i, v in enumerate(values)]


def test_the_bend_is_where_the_last_doubling_that_pays_ends():
    assert bend(curve(100, 180, 300, 310, 312)) == 4
    assert bend(curve(100, 105, 180, 181)) == 4  # a flat step before one that pays is no bend
    assert bend(curve(100, 200, 400)) is None
    assert bend(curve(100, 99)) == 1 and bend(curve(100)) is None


def test_a_step_that_is_no_doubling_counts_by_what_it_gains_per_doubling():
    assert bend([Throughput(4, 100.0), Throughput(5, 104.0)]) is None  # 1.04 in a third of a doubling is 1.13
    assert bend([Throughput(4, 100.0), Throughput(16, 115.0)]) == 4  # 1.15 in two doublings is 1.07


def test_the_best_batch_is_the_smallest_that_cannot_be_told_from_the_fastest():
    assert best(curve(100, 180, 300, 310, 312, width=0.05)).batch == 4
    assert best(curve(100, 180, 300, 310, 312, width=0.0)).batch == 16
    assert best([]) is None
