"""What later processes of a session are told to do, and what records say of processes that did not do all."""

import math
from operator import truediv
from statistics import median

import numpy as np
import pytest

from bench.analysis import assemble, session
from bench.analysis.assemble import Session
from bench.analysis.next_process import costs, next_process, warm_ups
from bench.analysis.timings import per_process, speedups
from bench.config.protocol import Protocol
from bench.plan.process import ProcessPlan
from tests.analysis.test_session import BASE, BASE_KEY, FAST, FAST_KEY, invocation

QUICK = Protocol(version=2, latency={"samples": 64, "case_seconds": 100.0, "throughput_processes": 1})
KEYS = [BASE_KEY, FAST_KEY]


def process(number=0, noise=0.001, n=64, scale=1.0, **changes):
    """A full first process: warmed up a hundred times, sampled with noise, with its stages."""
    rng, made = np.random.default_rng(number), invocation(number, 10.0 * scale, 5.0 * scale)
    for part in (*made["cases"].values(), made["twin"]):
        middle = part["latency_ms"][0]
        part |= {name: part[name][:1] * n for name in ("minor_faults", "preempted")}
        part["latency_ms"] = [float(middle * math.exp(noise * x)) for x in rng.normal(size=n)]
        trace = middle * (1 + 0.3 * np.exp(-np.arange(100) / 3)) * np.exp(0.001 * rng.normal(size=100))
        part["warmup"] |= {"trace_ms": trace.tolist(), "chunk": 1, "seconds": float(trace.sum()) / 1e3}
    made["reference_gemm"] = {"ms": [1.0] * n, "warmup": {"steady": True, "seconds": 1.0, "trace_ms": None, "chunk": 1}}
    made |= {"seconds": 6.0, "stages_s": {"warm": 3.5, "sampled": n * 0.026, "extras": 0.1}}
    return {**made, "plan": ProcessPlan().as_dict(), **changes}


def planned(*done, protocol=QUICK):
    return next_process(list(done), KEYS, BASE_KEY, protocol)


def test_the_first_process_does_everything_and_under_version_1_all_do():
    assert planned() == ProcessPlan()
    for done in ([process()], [process(), process(1)]):
        assert planned(*done, protocol=Protocol()) == ProcessPlan()
    spoilt = process()
    spoilt["cases"][FAST_KEY]["preempted"] = [True] * 64
    assert planned(spoilt) == ProcessPlan()  # the next one takes its place


def test_later_processes_warm_up_as_long_as_the_slowest_needed_and_who_tells_nothing_in_full():
    warm = warm_ups(process(), QUICK.latency)
    assert set(warm) == {BASE_KEY, FAST_KEY, "twin"} and len(set(warm.values())) == 1
    assert 0.15 <= warm[FAST_KEY] < 0.7  # sixteen to sixty-four iterations of ten milliseconds, and no second
    brief = process()
    brief["cases"][FAST_KEY]["warmup"]["trace_ms"] = [5.0] * 23
    assert set(warm_ups(brief, QUICK.latency)) == {BASE_KEY, "twin"}
    assert warm_ups(process(), QUICK.latency.model_copy(update={"warm_by_evidence": False})) == {}


def test_what_falls_until_its_end_warms_up_half_as_long_again_and_no_longer():
    falling, longer = process(), process()
    for made, seconds in ((falling, 1.0), (longer, 2.0)):  # the second was unsteady, and went on for as long again
        trace = (1 + 0.3 * np.exp(-np.arange(100) / 60)) * np.exp(0.001 * np.random.default_rng(0).normal(size=100))
        ms = (trace / trace.sum() * 1e3 * seconds).tolist()
        made["cases"][FAST_KEY]["warmup"] |= {"trace_ms": ms, "seconds": seconds}
    assert warm_ups(falling, QUICK.latency)[BASE_KEY] == pytest.approx(1.5)
    assert warm_ups(longer, QUICK.latency)[BASE_KEY] == 1.5 * QUICK.latency.warmup_s


def test_a_process_costs_what_is_done_whatever_is_planned_and_its_warm_up():
    found = costs(process(), {BASE_KEY: 0.2, FAST_KEY: 0.2, "twin": 0.2})
    assert found.process_s == pytest.approx(6.0 - 3.5 - 64 * 0.026 - 0.1 + 3 * 0.2 + 1.0)  # the product tells nothing
    assert found.iteration_s == pytest.approx(0.026)


def test_quiet_ratios_get_few_samples_noisy_ones_many_and_bursts_no_fewer_than_the_first():
    latency = QUICK.latency
    assert planned(process(noise=0.001)).rounds == latency.fewest_samples
    assert planned(process(noise=0.5)).rounds == latency.most_samples
    assert latency.fewest_samples < planned(process(noise=0.03)).rounds < latency.most_samples
    burst = process(noise=0.001)
    for part in (*burst["cases"].values(), burst["twin"]):  # ratios do not show it
        part["latency_ms"][16:21] = [1.3 * ms for ms in part["latency_ms"][16:21]]
    assert planned(burst).rounds == 64
    brief = QUICK.model_copy(update={"latency": latency.model_copy(update={"case_seconds": 0.7})})
    assert 64 <= planned(process(noise=0.3), protocol=brief).rounds <= 75  # of ten milliseconds
    assert planned(process(scale=200.0)).rounds is None  # runs of two seconds: as many as the first takes
    assert planned(process(n=31)).rounds is None


def test_extras_are_taken_until_processes_that_count_have_them():
    def without(number, **changes):
        return process(number, plan=ProcessPlan(**{"throughput": False, "layers": False, **changes}).as_dict())

    assert (planned(process()).throughput, planned(process()).layers) == (False, False)
    spoilt = process()
    spoilt["twin"]["preempted"] = [True] * 64
    assert planned(spoilt, without(1)).throughput and planned(spoilt, without(1)).layers
    standard = Protocol(version=2)
    assert planned(process(), process(1), protocol=standard).throughput
    assert not planned(process(), process(1), process(2), protocol=standard).throughput


# ------------------------------------------------------------------------------------------------ what records say


def finished(protocol, *done, case=FAST):
    made = Session("s", tuple(done), BASE_KEY, True, "")
    probe = {"started_at": "", "readings": [], "flags": [], "layers": [{"module_path": "a", "macs": 1}]}
    record = assemble.finished(case, assemble.Context(protocol, {}, "m", {}, {}), probe, made, "")
    return record, {row["metric"]: row for row in record["readings"]}


def unextra(number, **changes):
    """A process that took neither windows nor layers, and fewer samples."""
    made = process(number, n=40, plan={**ProcessPlan().as_dict(), "throughput": False, "layers": False}, **changes)
    for part in (*made["cases"].values(), made["twin"]):
        part["throughput"] = None
        del part["layers"]
    return made


def test_a_rate_a_percentile_and_layers_of_one_process_have_no_interval_and_say_so():
    record, rows = finished(QUICK, process(), unextra(1), unextra(2))
    rate, p90, latency = rows["throughput_per_s"], rows["latency_p90_ms"], rows["latency_ms"]
    assert (rate["n"], rate["ci_low"]) == (1, None) and rate["method_note"] == (
        "windows in 1 of 3 processes, so it has no interval"
    )
    assert (p90["n"], p90["ci_low"]) == (1, None) and "1 of 3 processes" in p90["method_note"]
    assert latency["n"] == 3 and latency["ci_low"] < latency["value"]
    assert record["layers"][0]["time_ms"] and record["layers"][0]["time_low_ms"] is None
    assert record["layers_info"]["processes"] == 1 and "no interval" in record["layers_info"]["method_note"]
    assert len(per_process(record, "throughput_per_s")) == 1 and len(per_process(record, "latency_ms")) == 3
    none, rows = finished(QUICK, unextra(0), unextra(1))
    assert rows["throughput_per_s"]["value"] is None and none["layers_info"]["reason"].startswith("no process that")


def test_the_twin_is_a_control_of_ratios_and_of_no_other_value():
    done = [process(number, noise=0.02) for number in range(4)]
    plain, (record, rows) = finished(Protocol(), *done)[1], finished(QUICK, *done)
    base, twin, own = ([session.member(one, key)["latency_ms"] for one in done] for key in (BASE_KEY, "twin", FAST_KEY))
    rounds = [zip(b, t, c, strict=True) for b, t, c in zip(base, twin, own, strict=True)]
    by_hand = [math.exp(median(math.log(b * t) / 2 - math.log(c) for b, t, c in each)) for each in rounds]
    assert list(speedups(record).values()) == pytest.approx(by_hand)
    assert rows["speedup"]["value"] == pytest.approx(math.exp(np.mean(np.log(by_hand))))
    assert "twin as control" in rows["speedup"]["statistic"] and "twin" not in plain["speedup"]["statistic"]
    assert plain["speedup"]["value"] != pytest.approx(rows["speedup"]["value"], abs=1e-9)
    assert plain["latency_ms"] == rows["latency_ms"]
    floors = [finished(protocol, *done, case=BASE)[1]["aa_ratio"]["value"] for protocol in (Protocol(), QUICK)]
    medians = [math.log(median(b) / median(t)) for b, t in zip(base, twin, strict=True)]
    by_rounds = [median(map(math.log, map(truediv, b, t))) for b, t in zip(base, twin, strict=True)]
    assert floors == pytest.approx([math.exp(np.mean(medians)), math.exp(np.mean(by_rounds))])


def test_long_runs_need_three_processes_and_one_is_a_value_with_an_open_verdict():
    done = [process(number, n=2, scale=200.0) for number in range(3)]
    assert session.is_long(done[0], QUICK.latency) and not session.is_long(process(), QUICK.latency)
    assert not session.decide(done[:2], KEYS, BASE_KEY, QUICK.latency).done
    assert session.decide(done, KEYS, BASE_KEY, QUICK.latency).done  # five of shorter runs
    single = Protocol(version=2, latency={"invocations": 1, "max_invocations": 1})
    record, rows = finished(single, done[0])
    assert rows["speedup"]["value"] and rows["speedup"]["ci_low"] is None
    said = next(flag["text"] for flag in record["flags"] if flag["code"] == "glance")
    assert (
        said
        == "2 runs of one process, because a run lasts seconds: a value without an interval, so the verdict stays open"
    )


def test_without_ratios_the_least_number_of_processes_is_enough_and_the_reason_says_so():
    wild = [invocation(i, base=10.0 * (1 + i)) for i in range(5)]
    decision = session.decide(wild, [BASE_KEY], BASE_KEY, Protocol(version=2).latency)
    assert decision == session.Decision(True, "no ratio that would ask for more processes")
    assert not session.decide(wild, KEYS, BASE_KEY, Protocol(version=2).latency).done
