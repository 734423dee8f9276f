"""Private inference as a cost model: ReLUs to the digit, and the store's queue against closed forms."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.workloads.queueing import md1_sojourn, unit_arrivals
from suites.serving.private_inference import private_resnet18, relus, sojourns


def test_relus_of_resnet18_at_64_px_are_those_of_the_study():
    made = private_resnet18()
    assert (made.elements, made.layers) == (2_228_224, 17)
    assert made.bytes_each == pytest.approx(2_228_224 * 18_200) == pytest.approx(40.55e9, rel=1e-3)
    assert made.store == 3


@pytest.mark.parametrize("side", [32, 48])
def test_relus_follow_the_pixels(side):
    assert private_resnet18(side=side).elements == 2_228_224 * side**2 // 64**2


def test_relus_are_counted_however_they_are_called():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3, padding=1), nn.ReLU6()
    )
    assert relus(network, 8) == (6 * 64, 2)


def test_a_store_of_one_waits_like_a_server_of_fixed_time():
    arrivals = [time / 0.5 for time in unit_arrivals(60_000, 3)]
    waits = sojourns(arrivals, store=1, prepare_s=1.0, online_s=0.0)
    assert statistics.fmean(waits) == pytest.approx(md1_sojourn(0.5, 1.0) - 1.0, rel=0.05)


def test_a_store_that_never_runs_out_leaves_the_queue_of_the_inference_itself():
    arrivals = [time / 0.5 for time in unit_arrivals(60_000, 3)]
    times = sojourns(arrivals, store=len(arrivals), prepare_s=100.0, online_s=1.0)
    assert statistics.fmean(times) == pytest.approx(md1_sojourn(0.5, 1.0), rel=0.05)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=40), st.integers(1, 5), st.floats(0, 3), st.floats(0, 3))
def test_more_room_never_makes_anybody_wait_longer(gaps, store, prepare, online):
    arrivals, now = [], 0.0
    for gap in gaps:
        now += gap
        arrivals.append(now)
    less, more = (sojourns(arrivals, room, prepare, online) for room in (store, store + 1))
    assert all(b <= a + 1e-9 for a, b in zip(less, more, strict=True)) and min(more) >= online - 1e-9


def test_the_curve_rises_and_ends_where_preparation_cannot_keep_up():
    readings, (curve,) = private_resnet18().modelled()
    known = [value for value in curve.values if value is not None]
    assert known == sorted(known) and curve.values[-1] is None
    assert {item.metric for item in readings} == {"relu_elements", "private_store_bytes", "private_latency_ms"}
    assert all(item.provenance in ("counted", "modelled") for item in readings)


def test_without_room_for_one_there_is_no_latency_and_it_says_why():
    readings, curves = private_resnet18(store_gb=10).modelled()
    assert curves == [] and readings[-1].value is None and "room for 10" in readings[-1].method_note
    with pytest.raises(ValueError, match="no room"):
        sojourns([0.0], 0, 1.0, 1.0)
