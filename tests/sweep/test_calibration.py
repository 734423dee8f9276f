"""Several threads are measured in three processes, and a rate is the best that any of them saw."""

import json
import os

import pytest

from bench.config import catalogue
from bench.plan import plan
from bench.store.journal import Journal
from bench.store.records import Store
from bench.sweep import calibration
from bench.sweep.loop import Driver
from bench.worker.client import Done, Failed, Workers
from tests.sweeping import HEALTHY, configuration


def part(rate, band, overhead=2.0, *, stable=True, notes=()):
    entry = lambda value, **rest: {"value": value, "low": 0.9 * value, "high": value, "threads": 2, "n": 5, **rest}  # noqa: E731
    return {
        "peaks": [entry(rate, dtype="fp32"), entry(2 * rate, dtype="bf16")],
        "bandwidth": entry(band),
        "launch_overhead_us": entry(overhead),
        "stable": stable,
        "notes": list(notes),
        "unsupported": {"fp16": "none"},
        "idle_power": {"value": None, "reason": "no counter"},
        "host": {"labels": []},
    }


class Scripted:
    """Workers that give what they are told, in order, and count."""

    def __init__(self, *results):
        self.results, self.specs = list(results), []

    def run(self, kind, spec, *, log):
        self.specs.append((kind, spec))
        result = self.results[len(self.specs) - 1]
        return Done(result, 1.0) if result else Failed("crashed", {"message": "lost"}, 1.0)


@pytest.mark.parametrize(
    ("device", "threads", "count"), [("cpu", 1, 1), ("cpu", 2, 3), ("cpu", 16, 3), ("cuda", 1, 1), ("cuda:1", 8, 1)]
)
def test_several_threads_of_a_cpu_take_three_processes(device, threads, count):
    workers = Scripted(*[part(100.0, 10.0)] * count)
    assert calibration.measure(workers, device, threads, 4.0, "log").ok
    assert workers.specs == [("calibrate", {"device": device, "threads": threads, "budget_s": 4.0})] * count


def test_a_rate_is_the_best_process_and_a_cost_the_middle_one():
    slow = part(40.0, 12.0, 9.0, stable=False, notes=["fp32 ranged over 30 %"])
    found = calibration.together([part(90.0, 9.0, 2.0), part(100.0, 10.0, 3.0), slow])
    fp32, bf16 = found["peaks"]
    assert (fp32["value"], fp32["low"], fp32["high"]) == (100.0, 90.0, 100.0)
    assert fp32["per_process"] == [90.0, 100.0, 40.0] and bf16["value"] == 200.0
    assert found["bandwidth"]["value"] == 12.0 and found["launch_overhead_us"]["value"] == 3.0
    assert not found["stable"]  # the bandwidth comes from a process that was disturbed
    assert "fp32 at 2 threads: the best of 3 processes, the lowest of which gave 40 % of it" in found["notes"]
    assert "fp32 ranged over 30 %" in found["notes"]
    json.dumps(found, allow_nan=False)


def test_a_disturbed_process_that_gave_nothing_to_the_result_does_not_spoil_it():
    found = calibration.together([part(100.0, 10.0), part(40.0, 4.0, stable=False, notes=["busy"]), part(90.0, 9.0)])
    assert found["stable"] and "busy" not in found["notes"]


def test_one_process_is_taken_as_it_is():
    alone = part(100.0, 10.0)
    assert calibration.together([alone]) is alone


def test_a_process_that_is_lost_leaves_the_others_and_all_lost_is_a_failure():
    found = calibration.measure(Scripted(None, part(90.0, 9.0), part(80.0, 8.0)), "cpu", 2, 4.0, "log")
    assert found.ok and found.result["peaks"][0]["per_process"] == [90.0, 80.0]
    assert not calibration.measure(Scripted(None, None, None), "cpu", 2, 4.0, "log").ok


def test_with_several_threads_all_probes_must_say_that_the_machine_has_drifted():
    low, fine = {"drift": "slower"}, {"drift": None}
    assert calibration.drift(Scripted(low, low, low), {}, "cpu", 2, "log") == "slower"
    patient = Scripted(low, fine, low)
    assert calibration.drift(patient, {}, "cpu", 2, "log") is None and len(patient.specs) == 2
    assert calibration.drift(Scripted(low), {}, "cpu", 1, "log") == "slower"


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two threads need two processors")
def test_two_threads_are_calibrated_in_real_processes(tmp_path):
    with Workers(dict.fromkeys(("start", "load", "compile", "warmup", "measure"), 120.0)) as workers:
        found = calibration.measure(workers, "cpu", 2, 2.0, tmp_path / "log").result
    for rate in [*found["peaks"], found["bandwidth"]]:
        assert rate["threads"] == 2 and len(rate["per_process"]) == 3
        assert rate["value"] == max(rate["per_process"]) == rate["high"]


def test_a_machine_is_measured_once_looked_at_later_and_measured_again_when_it_has_drifted(tmp_path):
    workers = Scripted(part(100.0, 10.0), {"drift": None}, {"drift": "fp32 is slower"}, part(80.0, 8.0))
    store, told = Store(tmp_path), []
    journal = Journal(store.journal)
    calibrator = calibration.Calibrator(workers, store, journal, told.append)
    first, same, third = (calibrator.current("machine", "cpu", 1) for _ in range(3))
    assert first["peaks"][0]["value"] == 100.0 and same == first and third["peaks"][0]["value"] == 80.0
    assert [bool(spec.get("earlier")) for _, spec in workers.specs] == [False, True, True, False]
    assert [event.what.split(":")[0] for event in told] == [
        "calibrating", "checking the calibration", "checking the calibration", "calibrating",
    ]  # fmt: skip
    assert [entry["reason"] for entry in journal.read().events("drifted")] == ["fp32 is slower"]


@pytest.mark.slow  # half a minute of arithmetic; the test above holds the steps, tests/meters/test_peaks.py the rates
def test_the_rows_of_a_sweep_with_its_own_workers_hold_what_its_machine_could_do(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "BUDGET_S", 0.5)
    config = configuration(tmp_path, [HEALTHY], executor={"name": "local"}, device={"threads": 1})
    (record,) = Driver(config, plan.make(config, catalogue.load())).run({}).records
    (saved,) = Store(config.paths.results).machines.glob("*.json")
    assert record["machine"]["peaks"] == json.loads(saved.read_text())["peaks"] != []
    assert record["machine"]["bandwidth"]["value"] > 0
