import copy

import pytest

from bench.analysis.compare import run_difference
from bench.analysis.comparison_text import reproduction_as_text
from bench.analysis.judge import closeness, exit_code
from bench.analysis.judge import judge as judge_here
from bench.config.protocol import Protocol
from tests import synthetic
from tests.analysis.test_compare import other_machine, quality, run


def original(**rest):
    return run("a", noise=0.001, **rest)[1]


def again(**rest):
    return run("b", noise=0.001, **rest)[1]


def judge(one, two):
    """The verdicts on a row of this host's own folder."""
    return judge_here(one, two, own=True)


def by_metric(one, two):
    return {verdict.metric: verdict for verdict in judge(one, two)}


def change(record, metric, factor):
    reading = next(r for r in record["readings"] if r["metric"] == metric)
    reading["value"] *= factor
    return record


def same_class(record):
    return {**record, "machine_key": "same hardware, other software"}


def test_same_row_measured_again_agrees():
    verdicts = judge(original(), again())
    assert {v.metric for v in verdicts} >= {"params", "macs", "latency_ms", "speedup", "peak_memory_bytes"}
    assert {v.kind for v in verdicts} == {"AGREES"} and exit_code(verdicts) == 0


@pytest.mark.parametrize("metric", ["params", "macs", "macs_fvcore", "size_bytes"])
def test_counts_are_exact_everywhere(metric):
    for place in (lambda r: r, same_class, lambda r: other_machine([r])[0]):
        assert by_metric(original(), place(again()))[metric].kind == "AGREES"
        off = place(change(again(), metric, 1 + 1e-6))
        assert by_metric(original(), off)[metric].kind == "DISAGREES"
        assert exit_code(judge(original(), off)) == 1


@pytest.mark.parametrize(
    ("slow", "host", "class_"),
    [
        (1.03, "AGREES", "AGREES"),
        (1.08, "DISAGREES", "AGREES"),
        (1.13, "DISAGREES", "DISAGREES"),
        (1 / 1.03, "AGREES", "AGREES"),
    ],
)
def test_latency_tolerance_is_5_percent_on_the_host_and_10_in_the_class(slow, host, class_):
    assert by_metric(original(), again(slow=slow))["latency_ms"].kind == host
    assert by_metric(original(), same_class(again(slow=slow)))["latency_ms"].kind == class_
    assert by_metric(original(), again(slow=slow))["throughput_per_s"].kind == host


def test_on_other_hardware_only_the_ratio_to_the_baseline_is_judged_within_20_percent():
    elsewhere = other_machine([again(slow=5.0)])[0]
    found = by_metric(original(), elsewhere)
    assert found["latency_ms"].kind == "NOT COMPARABLE" and found["speedup"].kind == "AGREES"
    assert "20 % (other hardware)" in found["speedup"].tolerance
    assert exit_code(list(found.values())) == 0
    for line in elsewhere["timing"]["invocations"]:
        line["baseline_median_ms"] *= 1.3
    assert by_metric(original(), elsewhere)["speedup"].kind == "DISAGREES"


def test_baseline_on_other_hardware_is_not_comparable():
    verdicts = judge(run("a")[0], other_machine([run("b", slow=5.0)[0]])[0])
    assert exit_code(verdicts) == 5


def test_inconclusive_says_how_many_more_runs():
    one, two = run("a", noise=0.01, invocations=10)[1], run("b", noise=0.03, invocations=3)[1]
    found = by_metric(one, two)["latency_ms"]
    assert found.kind == "INCONCLUSIVE" and found.more_runs >= 1
    assert f"about {found.more_runs} more runs would tell" in found.text
    assert exit_code([found]) == 4


def test_one_process_is_inconclusive():
    two = again()
    two["timing"]["invocations"] = two["timing"]["invocations"][:1]
    assert by_metric(original(), two)["latency_ms"].kind == "INCONCLUSIVE"


def test_slower_host_makes_a_time_inconclusive_not_wrong():
    found = by_metric(original(), again(host=1.10))["latency_ms"]
    assert found.kind == "INCONCLUSIVE" and "reference GEMM" in found.text


@pytest.mark.parametrize(
    ("factor", "host", "class_"),
    [(1.019, "AGREES", "AGREES"), (0.96, "DISAGREES", "AGREES"), (1.06, "DISAGREES", "DISAGREES")],
)
def test_memory_tolerance_is_2_percent_on_the_host_and_5_elsewhere(factor, host, class_):
    two = change(again(), "peak_memory_bytes", factor)
    assert by_metric(original(), two)["peak_memory_bytes"].kind == host
    assert by_metric(original(), same_class(two))["peak_memory_bytes"].kind == class_
    assert by_metric(original(), other_machine([two])[0])["peak_memory_bytes"].kind == class_


def measured_energy(record, value):
    row = next(r for r in record["readings"] if r["metric"] == "energy_j")
    row.update(value=value, ci_low=value * 0.99, ci_high=value * 1.01, n=5, provenance="measured", method_note="")
    return record


def test_energy_tolerance_is_10_percent_on_the_host_and_15_in_the_class():
    one, two = measured_energy(original(), 1.0), measured_energy(again(), 1.12)
    assert by_metric(one, two)["energy_j"].kind == "DISAGREES"
    assert by_metric(one, same_class(two))["energy_j"].kind == "AGREES"
    assert by_metric(one, other_machine([two])[0])["energy_j"].kind == "NOT COMPARABLE"
    gone = by_metric(one, again())["energy_j"]
    assert gone.kind == "NOT COMPARABLE" and "no energy counter" in gone.text


def accurate(record, right, digest="d"):
    quality(record, "1" * right + "0" * (1000 - right), digest)
    return record


def test_accuracy_tolerance_is_a_tenth_of_a_point_on_the_host_and_half_a_point_elsewhere():
    one = accurate(original(), 940)
    assert by_metric(one, accurate(again(), 939))["accuracy"].kind == "AGREES"
    assert by_metric(one, accurate(again(), 938))["accuracy"].kind == "DISAGREES"
    assert by_metric(one, same_class(accurate(again(), 935)))["accuracy"].kind == "AGREES"
    assert by_metric(one, same_class(accurate(again(), 934)))["accuracy"].kind == "DISAGREES"


def test_hashes_of_weights_and_data_are_exact_and_other_data_is_no_accuracy():
    found = by_metric(accurate(original(checkpoint="w1"), 940), accurate(again(checkpoint="w2"), 940, "other"))
    assert found["weights"].kind == found["data"].kind == "DISAGREES"
    assert found["accuracy"].kind == "NOT COMPARABLE"
    assert by_metric(original(checkpoint="w1"), again(checkpoint="w1"))["weights"].kind == "AGREES"


def test_failure_that_comes_back_is_reproduced_and_one_that_does_not_is_not():
    error = {"phase": "load", "type": "ValueError", "message": "12 blocks need 12 entries", "log_tail": ""}
    failed = synthetic.record(method="tome", status="crashed", error=error)
    (status,) = judge(failed, copy.deepcopy(failed))
    assert (status.metric, status.kind) == ("status", "AGREES") and "12 blocks" in status.text
    assert exit_code(judge(failed, original())) == 1
    assert exit_code(judge(original(), failed)) == 1


def test_other_protocol_is_not_comparable():
    two = again()
    two["protocol"] = {**two["protocol"], "hash": "other"}
    found = by_metric(original(), two)
    assert found["latency_ms"].kind == found["speedup"].kind == "NOT COMPARABLE"
    assert exit_code(list(found.values())) == 5


def test_closeness_of_two_machines():
    one = original()
    assert closeness(one, again(), own=True) == "same host"
    assert closeness(one, same_class(again()), own=True) == "same class"
    assert closeness(one, other_machine([again()])[0]) == "other hardware"
    named = [
        {**r, "environment": {**r["environment"], "private": {"host": host}}}
        for r, host in ((one, "x"), (again(), "y"))
    ]
    assert closeness(*named, own=True) == "same class" and closeness(named[0], named[0]) == "same host"


def test_a_strangers_equal_machine_is_not_this_host():
    one, two = run("a")[1], again()
    assert one["machine_key"] == two["machine_key"]
    assert closeness(one, two) == "same class" and closeness(one, two, own=True) == "same host"
    (row,) = [v for v in judge_here(run("a", noise=0.001)[1], again(slow=1.08), own=False) if v.metric == "latency_ms"]
    assert (row.kind, row.tolerance) == ("AGREES", "10 % (same class)")
    (row,) = [v for v in judge(run("a", noise=0.001)[1], again(slow=1.08)) if v.metric == "latency_ms"]
    assert (row.kind, row.tolerance) == ("DISAGREES", "5 % (same host)")


def test_a_new_limit_of_labels_does_not_part_an_old_row_from_a_new_one():
    one, two = original(), again()
    told = Protocol().as_record()
    latency = {k: v for k, v in told["parameters"]["latency"].items() if k not in ("busy_cores", "margin")}
    two["protocol"] = told
    one["protocol"] = {**told, "hash": "as it was", "parameters": {**told["parameters"], "latency": latency}}
    assert by_metric(one, two)["latency_ms"].kind == "AGREES"
    del latency["samples"]
    assert by_metric(one, two)["latency_ms"].kind == "NOT COMPARABLE"


@pytest.mark.parametrize("metric", ["macs", "params", "peak_memory_bytes", "accuracy"])
def test_what_could_not_be_measured_again_is_not_reproduced(metric):
    one, two = accurate(original(), 940), accurate(again(), 940)
    assert exit_code(judge(one, two)) == 0
    reading = next(r for r in two["readings"] if r["metric"] == metric)
    reading.update(value=None, provenance="unavailable", method_note="the counter is not installed")
    found = by_metric(one, two)
    assert found[metric].kind == "NOT COMPARABLE" and "the counter is not installed" in found[metric].text
    assert exit_code(list(found.values())) == 5


def test_energy_of_one_window_is_inconclusive():
    one, two = measured_energy(original(), 0.0), measured_energy(again(), 1.0)
    for record in (one, two):
        next(r for r in record["readings"] if r["metric"] == "energy_j").update(n=1, ci_low=None, ci_high=None)
    found = by_metric(one, two)["energy_j"]
    assert (found.kind, found.text) == ("INCONCLUSIVE", "one replicate gives no interval; at least 2 are needed")


def test_a_metric_of_a_later_version_is_not_judged():
    one = original()
    one["readings"].append({**one["readings"][0], "metric": "of_tomorrow"})
    assert "of_tomorrow" not in by_metric(one, again())


def test_verdict_table_reads_after_the_differences():
    one, two = original(), same_class(again())
    two["environment"] = {**two["environment"], "python": "3.12.1"}
    text = reproduction_as_text(judge(one, two), run_difference(one, two))
    assert text.index("python") < text.index("latency_ms") < text.index("speedup")
    assert "10 % (same class)" in text and "AGREES" in text
