"""Arrived share, realised gain and the two utilisations on numbers that can be checked by hand."""

import math

import pytest

from bench.analysis import shares, table, utilisation
from bench.analysis.lower_bounds import lower_bounds
from bench.reading import reading, unavailable
from tests import synthetic


def test_half_of_the_products_saved_and_a_quarter_of_the_time_is_half_arrived():
    # t/t0 = 0.75, m/m0 = 0.5: (1 - 0.75) / (1 - 0.5) = 0.5; s = 4/3 over a promise of 2 is 2/3
    found = shares.arrived_share(4 / 3, 1.0, 2.0, 2.0)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == (pytest.approx(0.0), pytest.approx(1.0))  # ends 1 and 2 of the speed-up
    assert shares.realised_gain(4 / 3, 1.0, 2.0, 2.0).value == pytest.approx(2 / 3)


def test_a_slower_case_that_saves_products_has_a_negative_share():
    # t/t0 = 1.25, m/m0 = 0.5: -0.25 / 0.5
    assert shares.arrived_share(0.8, None, None, 2.0).value == pytest.approx(-0.5)


def test_with_more_products_the_ends_change_places():
    # m/m0 = 2, t/t0 = 1.5: -0.5 / -1 = 0.5; speed-ups of 1/2 and 1 are 1 and 0
    found = shares.arrived_share(1 / 1.5, 0.5, 1.0, 0.5)
    assert (found.value, found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.0), pytest.approx(1.0))


def test_where_nothing_is_saved_there_is_no_share_and_a_reason():
    assert shares.arrived_share(1.2, 1.1, 1.3, 1.0).reason == shares.NOTHING_SAVED
    assert shares.arrived_share(1.2, 1.1, 1.3, 1.0).value is None


def test_equal_products_to_two_per_cent_have_no_share():
    # gates add 2 in 10,000 products and 13 % of the time: -0.13 / -0.0002 would be 650 times "the saved part"
    assert shares.arrived_share(0.88, 0.85, 0.92, 1 / 1.0002).value is None
    assert shares.arrived_share(0.88, 0.85, 0.92, 1 / 1.0199).value is None
    # 3 % more products, 3 % more time
    assert shares.arrived_share(1 / 1.03, None, None, 1 / 1.03).value == pytest.approx(1.0)


def records(**labels):
    plain = synthetic.record(macs=4e9, latency_ms=100.0, baseline_ms=100.0)
    tome = synthetic.record(method="tome", setting="r=8", macs=2e9, latency_ms=80.0, baseline_ms=100.0)
    return [plain, {**tome, "labels": labels}]


def test_the_table_of_shares_goes_by_case_part_and_machine():
    (line,) = shares.table(table.from_records(records())).to_dict("records")
    # speed-up 1.25 (1.225 to 1.275), MAC ratio 2: saved time 0.2, saved products 0.5
    assert line["mac_ratio"] == 2 and line["arrived_share"] == pytest.approx(0.4)
    assert line["arrived_share_low"] == pytest.approx(2 * (1 - 1 / 1.225))
    assert line["arrived_share_high"] == pytest.approx(2 * (1 - 1 / 1.275))
    assert line["realised_gain"] == pytest.approx(0.625)


def test_a_simulated_case_has_no_share_and_says_why():
    frame = table.from_records(records(execution="simulated", kernel="mask"))
    own = frame[frame["method"] == "tome"]
    assert set(own["execution"]) == {"simulated"} and set(own["kernel"]) == {"mask"}
    assert set(frame[frame["method"] == "none"]["execution"]) == {"real"}
    (line,) = shares.table(frame).to_dict("records")
    assert math.isnan(line["arrived_share"]) and "simulated" in line["reason"]


def test_products_that_are_a_lower_bound_have_no_share():
    plain, own = records()
    gap = {"uncounted": [{"operator": "ns::mystery", "time_share": 0.3}]}
    both = [{**plain, "counts": gap}, own]
    (line,) = shares.table(table.from_records(both), lower_bounds(both)).to_dict("records")
    assert math.isnan(line["mac_ratio"]) and line["speedup"] and "ns::mystery is not counted" in line["reason"]


# ------------------------------------------------------------------------------------------------ utilisation

RECORD = {
    "case": {"dtype": "fp32", "threads": 1},
    "layers": [{"dtype": "float32", "macs": 1.0}],
    "machine": {"peaks": [{"dtype": "fp32", "threads": 1, "value": 100.0, "low": 80.0, "high": 100.0}]},
}


def used(**changes):
    given = {
        "latency_ms": reading("latency_ms", 10.0, "measured", ci_low=8.0, ci_high=10.0, n=3),
        "ideal_ms": reading("ideal_ms", 4.0, "modelled"),
        "macs": reading("macs", 90.0, "counted"),
        "macs_method": reading("macs_method", 10.0, "counted"),
        **changes,
    }
    return {item.metric: item for item in utilisation.readings(RECORD, {k: v for k, v in given.items() if v}.get)}


def test_hfu_is_ideal_over_measured_and_mfu_leaves_out_what_is_not_the_models():
    found = used()
    assert found["hfu"].value == pytest.approx(40.0)
    assert found["mfu"].value == pytest.approx(36.0)  # 90 of 100 executed MACs
    assert {item.provenance for item in found.values()} == {"modelled"}


def test_what_a_training_step_computes_again_is_executed_and_not_the_models():
    found = used(macs_recomputed=reading("macs_recomputed", 40.0, "counted"))
    assert found["hfu"].value == pytest.approx(40.0) and found["mfu"].value == pytest.approx(20.0)


def test_the_interval_joins_latency_and_peak():
    found = used()["hfu"]
    # latency may be 1.25 times shorter and no longer; the peak 1.25 times smaller and no larger: both raise the share
    assert found.ci_high == pytest.approx(40 * math.exp(math.hypot(math.log(1.25), math.log(1.25))))
    assert found.ci_low == pytest.approx(40.0) and found.n == 3


def test_a_peak_that_a_run_goes_beyond_is_no_ceiling_and_gives_no_share():
    assert used(ideal_ms=reading("ideal_ms", 10.4, "modelled"))["hfu"].value == pytest.approx(104.0)  # noise of a peak
    found = used(ideal_ms=reading("ideal_ms", 27.0, "modelled"))
    assert found["mfu"].value is None and found["hfu"].value is None
    assert "2.7 times the peak" in found["hfu"].method_note


def test_without_a_peak_there_is_a_reason_and_without_a_time_nothing():
    found = used(ideal_ms=unavailable("ideal_ms", "no peak"))
    assert found["mfu"].value is None and "no peak" in found["hfu"].method_note
    assert used(latency_ms=None) == {}


def test_a_bare_function_is_held_to_the_bound_that_binds():
    machine = {**RECORD["machine"], "bandwidth": [{"value": 1e3, "threads": 1, "device": "cpu", "unit": "B/s"}]}
    given = {
        "latency_ms": reading("latency_ms", 10.0, "measured"),
        "ideal_ms": reading("ideal_ms", 4.0, "modelled"),
        "io_bytes": reading("io_bytes", 5.0, "counted"),  # 5 B at 1000 B/s: 5 ms, more than the 4 ms of its products
    }

    def share(**changes):
        rows = utilisation.readings({**RECORD, "machine": machine}, {**given, **changes}.get)
        return next(item for item in rows if item.metric == "roofline_share")

    assert share().value == pytest.approx(50.0)
    assert share(io_bytes=reading("io_bytes", 2.0, "counted")).value == pytest.approx(40.0)
    assert used().get("roofline_share") is None  # nothing but a bare function has it
    beyond = share(ideal_ms=reading("ideal_ms", 27.0, "modelled"))
    assert beyond.value is None and "2.7 times the peak" in beyond.method_note
    missing = used(io_bytes=reading("io_bytes", 5.0, "counted"))["roofline_share"]
    assert missing.value is None and "bandwidth" in missing.method_note
