"""Counters of runs: per sample, prepared outside, and unavailable with the reason."""

from types import SimpleNamespace

import pytest

from bench.host.perf_events import Count, CountersUnavailable
from bench.meters import hardware
from bench.workloads.workload import Part


class Processor:
    """Counts what the part says it spent, and that preparation was outside."""

    def __init__(self, spent):
        self.spent, self.running = spent, False

    def start(self):
        self.running = True

    def stop(self):
        self.running = False
        cycles = self.spent.pop(0) if self.spent else 400.0
        return {"cycles": Count(cycles, 1.0), "instructions": Count(800.0, 0.5), "llc_misses": Count(2.0, 1.0)}


def test_medians_per_sample_with_their_range():
    processor = Processor([500.0, 300.0, 400.0])
    inside = []
    part = Part(
        "forward",
        lambda: inside.append(processor.running),
        prepare=lambda: inside.append(not processor.running),
        reset=lambda: inside.append(not processor.running),
    )
    runs = hardware.counted_runs(part, processor)
    assert all(inside[3:]) and inside[1] is False  # the first run is not counted
    rows = {row.metric: row for row in hardware.readings(runs[:3], batch=2)}
    assert rows["cycles"].value == 200.0 and rows["instructions"].value == 400.0
    assert rows["instructions_per_cycle"].value == 2.0 and rows["llc_miss_bytes"].value == 64.0
    assert "over 3 runs: 150 to 250" in rows["cycles"].method_note and "50 % of the time" in rows["cycles"].method_note
    assert rows["cycles"].ci_low is None


def test_a_machine_without_counters_says_so(monkeypatch):
    def refused(events):
        raise CountersUnavailable("this machine shows none")

    monkeypatch.setattr(hardware, "counting", refused)
    subject = SimpleNamespace(case=SimpleNamespace(device="cpu", batch=1))
    found, details = hardware.take(subject, None, Part("forward", lambda: None))
    assert {row.metric for row in found} == set(hardware.METRICS) and details == {}
    assert all(row.value is None and row.method_note == "this machine shows none" for row in found)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_the_host_says_nothing_of_a_gpu(device):
    subject = SimpleNamespace(case=SimpleNamespace(device=device, batch=1))
    found, _ = hardware.take(subject, None, Part("forward", lambda: None))
    assert all("GPU" in row.method_note for row in found)
