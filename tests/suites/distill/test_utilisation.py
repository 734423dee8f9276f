"""A recommender's share of the peak: what a row says of products, time and peak."""

import pytest

from bench.analysis import utilisation
from bench.config import catalogue
from bench.reading import reading


def test_the_check_case():
    """Brief, section 9: 10^9 needed MACs in 10 ms at a peak of 1 TFLOP/s are a utilisation of 0.2."""
    macs, latency_ms, peak_flops = 1e9, 10.0, 1e12
    found = {
        "macs": reading("macs", macs, "counted"),
        "latency_ms": reading("latency_ms", latency_ms, "measured"),
        "ideal_ms": reading("ideal_ms", 1e3 * 2 * macs / peak_flops, "modelled"),
    }
    (mfu,) = (row for row in utilisation.readings({"case": {}}, found.get) if row.metric == "mfu")
    assert mfu.value == pytest.approx(20.0) and mfu.unit == "%"


def test_the_recommender_of_another_suite_is_a_row_of_this_one():
    known = catalogue.load()
    assert {"onerec", "onerec_1b", "ranking_model"} <= set(known.models)
