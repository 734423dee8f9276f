"""A background load that comes and goes in the middle of a session: it is labelled, and it turns no verdict round."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.analysis import assemble
from bench.analysis.assemble import Context, Session
from bench.analysis.compare import compare
from bench.analysis.ranking import medians_of, rank_intervals
from bench.analysis.table import from_records
from bench.config.protocol import Protocol
from bench.plan.case import Case
from bench.statistics import log_mean_interval
from bench.sweep.events import Working
from tests.reanalysis import assert_agrees
from tests.sweeping import QUICK, configuration, sweep

CHAIN, SAME, HALF = "tests.chains:chain", "tests.chains:same", "tests.chains:half"
DIFFERENT = {"FASTER", "SLOWER"}


def verdict(one, other, metric="latency_ms"):
    """The verdict on the second record against the first."""
    return next(row.kind for row in compare([one], [other], metrics=[metric]).rows)


def assert_no_verdict_flips(baseline, same, half):
    for metric in ("latency_ms", "throughput_per_s"):
        assert verdict(baseline, same, metric) not in DIFFERENT
        assert verdict(baseline, half, metric) != "SLOWER"
        assert verdict(same, half, metric) != "SLOWER"
    records = [record for record in (baseline, same, half) if record["status"] == "ok"]
    ranked = rank_intervals(from_records(records), "latency_ms", medians=medians_of(records))
    best = dict(zip(ranked["method"], ranked["rank_low"], strict=True))
    assert best.get(HALF, 1) == 1


# ------------------------------------------------------------------------------------------ a real load, a real sweep


@contextlib.contextmanager
def spinning(count):
    """So many processes that compute and do nothing else."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


class Neighbour:
    """A listener that computes beside the processes from one number on and stops before another."""

    def __init__(self, first, last):
        self.first, self.last, self.stack = first, last, contextlib.ExitStack()

    def __call__(self, event):
        what = event.what if isinstance(event, Working) else ""
        index = int(what.rpartition("process ")[2]) - 1 if "process " in what else None
        if index == self.first:
            self.stack.enter_context(spinning(max(2, len(os.sched_getaffinity(0)))))
        if index == self.last:
            self.stack.close()


def loaded_sweep(folder, loaded, **latency):
    """The records of baseline, the same again and half of it, with load during the processes `loaded`."""
    quick = {
        **QUICK,
        "latency": {**QUICK["latency"], "samples": 60, "case_seconds": 1.0, "min_sample_ms": 1.0, **latency},
    }
    config = configuration(folder, [CHAIN], ["none", SAME, HALF], protocol=quick)
    neighbour = Neighbour(loaded.start, loaded.stop)
    with neighbour.stack:
        records = sweep(config, neighbour).records
    by_method = {record["case"]["method"]: record for record in records}
    return [by_method[method] for method in ("none", SAME, HALF)]


def lines(record):
    return {line["index"]: line for line in record["timing"]["invocations"]}


def assert_labelled(record, loaded):
    """The processes under load say so; those before it may have had neighbours of their own."""
    wanted = {"host busy", "pressure stall"} if Path("/proc/pressure/cpu").exists() else {"host busy"}
    found = lines(record)
    for index in loaded:
        assert wanted <= set(found[index]["labels"]), found[index]
    codes = {flag["code"] for flag in record["flags"]}
    assert {name.replace(" ", "_") for name in wanted} <= codes


@pytest.mark.slow
def test_a_load_in_the_middle_of_a_sweep_is_labelled_and_turns_no_verdict_round(tmp_path):
    loaded = range(1, 3)
    records = loaded_sweep(tmp_path, loaded, invocations=4, max_invocations=4, preempted_share=1.0)
    for record in records:
        assert record["status"] == "ok" and len(lines(record)) == 4
        assert_labelled(record, loaded)
        assert_agrees(tmp_path / "results", record)
    assert_no_verdict_flips(*records)


@pytest.mark.slow
def test_processes_preempted_by_a_load_are_set_aside_and_replaced(tmp_path):
    loaded, limit = range(2, 4), 0.04
    records = loaded_sweep(
        tmp_path, loaded, invocations=5, max_invocations=8, samples=200, preempted_share=limit, replacements=4
    )
    for record in records:
        assert_labelled(record, loaded)
        assert_agrees(tmp_path / "results", record)
        found = lines(record)
        assert all(found[index]["set_aside"] and "preempted" in found[index]["labels"] for index in loaded)
        clean = [line["median_ms"] for line in found.values() if not line["set_aside"]]
        assert len(found) > 5
        if record["status"] == "ok":
            latency = next(row for row in record["readings"] if row["metric"] == "latency_ms")
            assert len(clean) >= 5 and latency["n"] == len(clean)
            assert latency["value"] == pytest.approx(log_mean_interval(clean).value)
        else:
            assert record["status"] == "contaminated" and len(clean) < 5 and len(found) == 9
    assert_no_verdict_flips(*records)


# ------------------------------------------------------------------------------------------ an injected load


BASE, TWIN, CHEAP = (Case(suite="s", model="m", method=method) for method in ("none", SAME, HALF))
PROTOCOL = Protocol(latency={"invocations": 5, "max_invocations": 8})
CONTEXT = Context(PROTOCOL, {}, "machine", {}, {})
PROBE = {"started_at": "2026-01-01T00:00:00+00:00", "readings": [], "flags": [], "details": {}}


def injected(rng, index, *, start, stop, slowdown, preempted, host):
    """An invocation of 90 samples, those from `start` to `stop` under load: some take `slowdown` times as long."""

    def part(middle):
        samples = middle * host * np.exp(rng.normal(0, 0.01, 90) + rng.exponential(0.01, 90))
        hit = np.zeros(90, dtype=bool)
        hit[start:stop] = rng.random(stop - start) < preempted
        samples[hit] *= slowdown * rng.uniform(0.8, 1.2, hit.sum())
        return {
            "block": 1,
            "latency_ms": samples.tolist(),
            "device_ms": [],
            "minor_faults": [0] * 90,
            "preempted": hit.tolist(),
            "throughput": [{"iterations": 4, "ms": 4 * float(np.median(samples))}],
            "first_inference_ms": 3 * middle,
            "load_ms": 50.0,
            "warmup": {"iterations": 10, "seconds": 1.0, "last_ms": middle, "variation": 0.01, "steady": True},
        }

    return {
        "index": index,
        "session": "s",
        "seconds": 1.0,
        "started_at": PROBE["started_at"],
        "labels": ["host busy"] if stop > start else [],
        "twin": part(10.0),
        "reference_gemm": {"ms": [1.0] * 90},
        "cases": {BASE.key: part(10.0), TWIN.key: part(10.0), CHEAP.key: part(5.0)},
    }


def disturbed_session(seed):
    """Records of a session of seven processes with a load from the middle of the third to the middle of the fifth."""
    rng = np.random.default_rng(seed)
    slowdown, preempted = rng.uniform(1.2, 4.0), rng.uniform(0.1, 0.9)
    spans = {2: (45, 90), 3: (0, 90), 4: (0, 45)}
    made = []
    for index in range(7):
        start, stop = spans.get(index, (0, 0))
        host = float(np.exp(rng.normal(0, 0.05))) * (1.15 if index in spans else 1.0)
        made.append(injected(rng, index, start=start, stop=stop, slowdown=slowdown, preempted=preempted, host=host))
    session = Session("s", tuple(made), BASE.key, True, "made up")
    return [assemble.finished(case, CONTEXT, PROBE, session, PROBE["started_at"]) for case in (BASE, TWIN, CHEAP)]


@pytest.mark.parametrize("seed", range(25))
def test_an_injected_load_is_labelled_set_aside_and_turns_no_verdict_round(seed):
    records = disturbed_session(seed)
    for record in records:
        found = lines(record)
        assert [("host busy" in found[index]["labels"]) for index in range(7)] == [i in (2, 3, 4) for i in range(7)]
        for line in found.values():
            assert line["set_aside"] == ("preempted" in line["labels"])
        counted = [line for line in found.values() if not line["set_aside"]]
        latency = next(row for row in record["readings"] if row["metric"] == "latency_ms")
        assert latency["n"] == (len(counted) if record["timing"]["clean"] else 7)
        assert record["status"] == ("ok" if len(counted) >= 5 else "contaminated")
    assert_no_verdict_flips(*records)
    clean = all(record["status"] == "ok" for record in records)
    assert verdict(records[0], records[2]) == ("FASTER" if clean else "AMBIGUOUS")  # a disturbed side decides nothing
