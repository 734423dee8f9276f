"""Peaks are rates that were seen, with their range; a disturbed or changed machine is told apart from a steady one."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.meters import peak_work, peaks
from bench.meters.capabilities import capabilities
from bench.meters.peaks import Spread, drifted


@pytest.fixture(scope="module")
def probe():
    return peaks.quick_probe("cpu", 1, budget_s=0.3)


def test_every_rate_has_a_unit_a_range_and_a_count(probe):
    (peak,), band, launch = probe["peaks"], probe["bandwidth"], probe["launch_overhead_us"]
    for rate, unit in ((peak, "op/s"), (band, "B/s"), (launch, "us")):
        assert rate["unit"] == unit and rate["threads"] == 1
        assert 0 < rate["low"] <= rate["value"] <= rate["high"]
        assert rate["n"] >= 5
    assert peak["dtype"] == "fp32"
    assert band["value"] == max(k["value"] for k in band["kernels"].values())
    json.dumps(probe, allow_nan=False)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with peaks.with_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_idle_power_that_cannot_be_read_has_a_reason(tmp_path):
    from bench.meters import energy

    found = peaks.idle_power_rate("cpu", 1.0, choose=lambda device: energy.Unavailable("no counter"))
    assert found == {"unit": "W", "value": None, "reason": "no counter"}


def test_a_dtype_that_torch_cannot_multiply_is_named(monkeypatch):
    def refuse(dtype, size, device, kernel):
        raise NotImplementedError(f"no {dtype} here\nlong trace")

    monkeypatch.setattr(peak_work, "product", refuse)
    rates, why = peaks.arithmetic_peaks(torch.device("cpu"), {"device": "cpu", "threads": 1}, 0.01, ("int8",))
    assert rates == [] and why == {"int8": "no int8 here"}


def test_the_quickest_kernel_of_a_dtype_is_its_peak(monkeypatch):
    cpu, asked = torch.device("cpu"), []

    def known(dtype, size, device, kernel):
        asked.append(kernel)
        seconds = {"_int_mm": 2.0, "packed": 0.5}[kernel]
        return peak_work.Work(kernel, 2.0 * size**3, lambda: None, lambda calls: seconds * calls)

    monkeypatch.setattr(peak_work, "product", known)
    (rate,), why = peaks.arithmetic_peaks(cpu, {"device": "cpu", "threads": 1}, 0.01, ("int8",))
    assert set(asked) == {"_int_mm", "packed"} and why == {}
    assert rate["value"] == 2 * 256**3 / 0.5

    def only_one(dtype, size, device, kernel):
        if kernel == "packed":
            raise AttributeError("no quantised tensors in this torch")
        return known(dtype, size, device, kernel)

    monkeypatch.setattr(peak_work, "product", only_one)
    (rate,), why = peaks.arithmetic_peaks(cpu, {"device": "cpu", "threads": 1}, 0.01, ("int8",))
    assert rate["value"] == 2 * 256**3 / 2.0 and why == {}  # one kernel is enough for a peak


def test_a_packed_product_of_whole_numbers_runs():
    cpu = torch.device("cpu")
    assert peak_work.kernels("int8", cpu) == ("_int_mm", "packed") and peak_work.kernels("fp32", cpu) == ("",)
    work = peak_work.product("int8", 64, cpu, "packed")
    assert work.amount == 2 * 64**3 and work.run().shape == (64, 64) and work.seconds(1) > 0


@given(st.lists(st.floats(1e-3, 1e15), min_size=1, max_size=9))
def test_a_ceiling_is_the_best_round_and_a_cost_the_middle_one(rounds):
    ceiling, typical = Spread.ceiling(rounds), Spread.typical(rounds)
    assert ceiling.value == ceiling.high == max(rounds)
    assert min(rounds) == typical.low <= typical.value <= typical.high
    assert ceiling.n == len(rounds)


def test_the_work_is_counted_by_hand():
    cpu = torch.device("cpu")
    assert peak_work.product("fp32", 64, cpu).amount == 2 * 64**3
    copy_, triad = peak_work.streams(cpu, 4096)
    assert (copy_.amount, triad.amount) == (2 * 4096, 3 * 4096)
    clock = [0.0]
    work = peak_work.Work("known", 100.0, lambda: None, lambda calls: clock.__setitem__(0, clock[0] + 1) or 0.5 * calls)
    assert peaks.best_rate(work, 2.0, cpu) == pytest.approx(200.0)


def test_products_too_slow_for_their_slice_are_replaced_by_a_small_one():
    small = peaks.affordable_work("fp32", torch.device("cpu"), slice_s=1e-9)
    assert [item.amount for item in small] == [2 * 256**3]


def test_buffers_are_larger_than_the_cache():
    size, cache = peak_work.stream_bytes(torch.device("cpu"))
    assert size % 64 == 0
    assert cache is None or size >= 2 * cache or size >= 64 * 2**20


def test_caches_are_read_from_the_kernels_description(tmp_path):
    for index, (kind, size) in enumerate((("Data", "32K"), ("Instruction", "64M"), ("Unified", "2M"))):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "type").write_text(kind)
        (folder / "size").write_text(size)
    assert peak_work.last_level_cache(tmp_path) == 2 * 2**20
    assert peak_work.last_level_cache(tmp_path / "absent") is None


def machine(rate=(100.0, 98.0, 102.0), band=(10.0, 9.8, 10.2), stable=True):
    entry = lambda numbers, **rest: {  # noqa: E731
        "value": numbers[0],
        "low": numbers[1],
        "high": numbers[2],
        "threads": 1,
        "n": 5,
        **rest,
    }
    return {"peaks": [entry(rate, dtype="fp32", unit="op/s")], "bandwidth": entry(band, unit="B/s"), "stable": stable}


def test_an_unchanged_machine_has_not_drifted():
    assert drifted(machine(), machine((101.0, 97.0, 103.0))) is None


def test_a_slower_and_a_faster_machine_have_drifted():
    assert "slower than calibrated" in str(drifted(machine(), machine((60.0, 58.0, 62.0))))
    assert "faster" in str(drifted(machine(), machine(band=(14.0, 13.8, 14.2))))


def test_a_disturbed_probe_cannot_show_that_the_machine_became_slower():
    assert drifted(machine(), machine((60.0, 58.0, 62.0), stable=False)) is None
    assert drifted(machine(), machine((160.0, 158.0, 162.0), stable=False)) is not None


def test_rates_of_other_threads_or_dtypes_are_not_compared():
    other = copy.deepcopy(machine((60.0, 58.0, 62.0), band=(1.0, 0.9, 1.1)))
    other["peaks"][0]["threads"] = other["bandwidth"]["threads"] = 2
    assert drifted(machine(), other) is None


def test_a_wide_range_or_a_busy_host_makes_a_machine_unstable():
    part = {**machine(), "notes": [], "unsupported": {}, "launch_overhead_us": {}}
    assert peaks.machine_peaks([part], None, {}, 5)["stable"]
    wide = {**part, "peaks": machine((100.0, 80.0, 102.0))["peaks"]}
    found = peaks.machine_peaks([wide], None, {}, 5)
    assert not found["stable"] and "22 %" in found["notes"][0]


def test_every_capability_says_how_or_why_not_and_what_would_help(tmp_path):
    for rows in (capabilities(), capabilities(tmp_path)):
        assert len({row["what"] for row in rows}) == len(rows) >= 15
        for row in rows:
            assert row["how"] if row["available"] else row["why_not"] and row["remedy"] is not None


@pytest.mark.slow
def test_a_calibration_keeps_its_budget_and_covers_every_dtype():
    import time

    start = time.monotonic()
    found = peaks.measure_peaks("cpu", [1, 2], budget_s=4.0)
    assert time.monotonic() - start < 60
    assert {p["threads"] for p in found["peaks"]} == {1, 2}
    assert {p["dtype"] for p in found["peaks"]} | set(found["unsupported"]) == {"fp32", "bf16", "fp16", "int8"}
    assert [band["threads"] for band in found["bandwidth"]] == [1, 2]


@pytest.mark.gpu
def test_a_gpu_is_calibrated_and_its_settings_are_left_alone():
    before = torch.backends.cuda.matmul.allow_tf32
    found = peaks.measure_peaks("cuda", 1, budget_s=4.0)
    rates = {p["dtype"]: p["value"] for p in found["peaks"]}
    assert rates["bf16"] > rates["fp32"]
    assert torch.backends.cuda.matmul.allow_tf32 == before
