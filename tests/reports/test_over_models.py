"""A mean over networks is geometric, has the interval of its members' errors, and hides no failed network."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.over_models import describe, lines
from reports.rows import rows_of
from reports.site import build
from tests.synthetic import record, store

FAILURE = {"phase": "measure", "type": "MemoryError", "message": "out of memory"}


def two_networks(*, gains=(2.0, 0.5), ratios=(4.0, 1.0), **changes):
    """A plain network and one with tome, for each of two models; every process gives about the same ratio."""
    rows = []
    for model, gain, ratio in zip(("deit_tiny", "deit_small"), gains, ratios, strict=True):
        common = {"model": model, "baseline_ms": 40.0, "noise": 1e-6, **changes}
        rows.append(record(latency_ms=40.0, macs=1.2e9, **common))
        rows.append(record(method="tome", setting="r=13", latency_ms=40.0 / gain, macs=1.2e9 / ratio, **common))
    return rows


def test_the_mean_of_twice_as_fast_and_half_as_fast_is_one():
    (line,) = lines(rows_of(two_networks(), []))
    assert (line.method, line.models, line.conditions) == ("tome(r=13)", ("deit_small", "deit_tiny"), "")
    assert line.promised == pytest.approx(2.0)  # of 4 and 1
    assert line.speedup.interval.value == pytest.approx(1.0)
    assert (line.speedup.smallest, line.speedup.largest) == (pytest.approx(0.5), pytest.approx(2.0))
    assert line.realised.interval.value == pytest.approx(0.5)  # of 2/4 and 0.5/1
    assert line.realised.smallest == line.realised.largest == pytest.approx(0.5)


def test_the_interval_is_that_of_the_members_errors_by_hand():
    """Each speed-up has ends at 0.98 and 1.02 of 3 processes, so that its standard error is known."""
    (line,) = lines(rows_of(two_networks(), []))
    quantile_2, quantile_4 = 4.302653, 2.776445  # Student's t at 97.5 % for 2 and 4 degrees of freedom, from a table
    of_one = math.log(1.02 / 0.98) / (2 * quantile_2)
    half = quantile_4 * of_one / math.sqrt(2)
    assert math.log(line.speedup.interval.high) == pytest.approx(half, rel=1e-5)
    assert math.log(line.speedup.interval.low) == pytest.approx(-half, rel=1e-5)
    assert describe(line.speedup) == f"1.00× [{math.exp(-half):.2f}, {math.exp(half):.2f}]; 0.50 to 2.00"


def test_a_network_that_failed_takes_the_mean_away_and_is_named():
    rows = two_networks()
    rows[3] = record(model="deit_small", method="tome", setting="r=13", status="oom", error=FAILURE)
    (line,) = lines(rows_of(rows, []))
    assert describe(line.speedup) == "unavailable: no value for deit_small"
    assert describe(line.realised) == "unavailable: no value for deit_small"
    assert line.promised is None


def test_only_equal_settings_and_conditions_are_joined():
    alone = two_networks()[:3]  # tome on one network only
    other = record(model="deit_small", method="tome", setting="r=8")
    assert lines(rows_of([*alone, other], [])) == []
    assert lines(rows_of([*alone, *two_networks(dtype="bf16")[2:]], [])) == []
    both = lines(rows_of([*two_networks(), *two_networks(dtype="bf16")], []))
    assert [line.conditions for line in both] == ["bf16", "fp32"] or [line.conditions for line in both] == [
        "fp32",
        "bf16",
    ]


@given(st.lists(st.floats(0.2, 5.0), min_size=2, max_size=2))
def test_the_mean_lies_between_its_members_and_turns_over_with_them(gains):
    (line,) = lines(rows_of(two_networks(gains=gains), []))
    (turned,) = lines(rows_of(two_networks(gains=[1 / gain for gain in gains]), []))
    mean = line.speedup.interval
    assert line.speedup.smallest - 1e-9 <= mean.value <= line.speedup.largest + 1e-9
    assert turned.speedup.interval.value == pytest.approx(1 / mean.value)


def test_the_first_page_has_the_means_where_a_setting_was_measured_on_several_networks(tmp_path):
    store(tmp_path / "results", two_networks(), with_samples=False)
    build(tmp_path / "results", tmp_path / "site")
    text = (tmp_path / "site" / "suites" / "vit_tokens.html").read_text()
    assert "Over several networks" in text and "deit_small, deit_tiny</td>" in text
    store(tmp_path / "one", two_networks()[:2], with_samples=False)
    build(tmp_path / "one", tmp_path / "site1")
    assert "Over several networks" not in (tmp_path / "site1" / "suites" / "vit_tokens.html").read_text()
