import copy
import random
import re

import numpy as np
import pandas as pd
import pytest

from bench import api
from bench.analysis import table
from bench.analysis.compare import compare
from bench.analysis.comparison_text import as_markdown, as_text, differences_as_text, reproduction_as_text
from bench.analysis.judge import Judgement
from bench.analysis.ranking import medians_of, rank_intervals
from bench.config.protocol import BEFORE, Latency, Protocol, protocol_key
from bench.host.difference import difference
from tests import synthetic


def run(
    name, *, slow=1.0, host=1.0, noise=0.004, methods=("none", "tome", "evit"), invocations=5, seed=0, gemm=True, **rest
):
    """Records of one session of a run: `slow` multiplies every case's time, `host` also that of the reference GEMM."""
    rng, records = random.Random(f"{name}{seed}"), []
    for method in methods:
        latency = {"none": 40.0, "tome": 30.0, "evit": 33.0}[method]
        record = synthetic.record(
            method=method,
            setting="" if method == "none" else "r=8",
            latency_ms=latency,
            macs=1.25e9 * latency / 40,
            invocations=invocations,
            **rest,
        )
        record["timing"]["session"] = f"session-{name}"
        record["started_at"] = f"2026-11-01T12:00:00+00:00 {name}"
        for line in record["timing"]["invocations"]:
            process = random.Random(f"{name}{seed}{line['index']}").gauss(0, noise)
            base = 40.0 * host * slow * (1 + process)
            line["median_ms"] = (
                base if method == "none" else latency * host * slow * (1 + process) * (1 + rng.gauss(0, noise))
            )
            line["baseline_median_ms"] = base
            line["gemm_median_ms"] = 1.5 * host * (1 + process) if gemm else None
            line["throughput_per_s"] = 1000 / line["median_ms"]
        records.append(record)
    return records


def kinds(result, metric):
    return [row.kind for row in result.rows if row.metric == metric]


# ------------------------------------------------------------------------------------------------ verdicts and gate


def test_injected_5_percent_slowdown_is_found_and_fails_the_gate():
    result = compare(run("a"), run("b", slow=1.06))
    assert kinds(result, "latency_ms") == ["SLOWER"] * 3
    assert result.exit_code == 1 and len(result.regressions) == 6
    exact = compare(run("a", noise=0.0016), run("b", slow=1.05, noise=0.0016))
    assert kinds(exact, "latency_ms") == ["SLOWER"] * 3


def test_identical_runs_pass_the_gate():
    found = [compare(run("a", seed=s, noise=0.01), run("b", seed=s, noise=0.01)) for s in range(20)]
    assert sum(result.exit_code != 0 for result in found) <= 1
    assert all(kind in {"SAME", "AMBIGUOUS"} for result in found for kind in kinds(result, "latency_ms"))


def test_speed_up_of_5_percent_is_faster_and_passes():
    result = compare(run("a", noise=0.002), run("b", slow=1 / 1.06, noise=0.002))
    assert kinds(result, "latency_ms") == ["FASTER"] * 3 and result.exit_code == 0


def test_slower_host_is_not_a_slower_network():
    result = compare(run("a", noise=0.002), run("b", host=1.06, noise=0.002))
    assert kinds(result, "latency_ms") == ["AMBIGUOUS"] * 3 and result.exit_code == 0
    assert any("% slower in b: the host changed" in note for row in result.rows for note in row.notes)


def test_without_a_reference_the_host_is_named_as_a_possible_cause():
    result = compare(run("a", gemm=False, noise=0.002), run("b", gemm=False, slow=1.06, noise=0.002))
    assert kinds(result, "latency_ms") == ["SLOWER"] * 3
    assert any("cannot be told" in note for note in result.rows[0].notes)


def test_cases_of_one_session_are_paired_process_by_process():
    records = run("a", noise=0.001)
    for index in range(5):
        for record in records:
            record["timing"]["invocations"][index]["median_ms"] *= 1 + 0.2 * index
    result = compare([records[1]], [records[2]], metrics=["latency_ms"])
    (row,) = result.rows
    assert (row.pairing, row.kind) == ("paired", "SLOWER")
    assert row.ratio.value == pytest.approx(30 / 33, rel=2e-3) and row.ratio.half_width < 0.01
    assert "->" in row.label


def test_run_compared_with_itself_is_the_same():
    records = run("a", noise=0.2)
    result = compare(records, records)
    assert {row.kind for row in result.rows} == {"SAME"}
    assert {row.pairing for row in result.rows if row.metric == "speedup"} == {"paired"}


def test_three_sessions_make_the_session_the_unit_of_replication():
    a = [r for i, host in enumerate((1.0, 1.05, 0.96)) for r in run(f"a{i}", host=host, gemm=False, noise=0.001)]
    b = [r for i, host in enumerate((1.07, 0.99, 1.03)) for r in run(f"b{i}", host=host, gemm=False, noise=0.001)]
    result = compare(a, b, metrics=["latency_ms"])
    assert {row.pairing for row in result.rows} == {"unpaired, by session"}
    assert set(kinds(result, "latency_ms")) == {"AMBIGUOUS"}
    assert all("too few sessions" in note for note in result.notes)
    assert result.rows[0].a == pytest.approx(40 * (1.0 * 1.05 * 0.96) ** (1 / 3), rel=1e-3)
    assert all(row.more_invocations for row in result.rows)


def test_holm_makes_many_rows_more_cautious():
    one = compare(run("a", methods=("tome",)), run("b", slow=1.04, methods=("tome",)), metrics=["latency_ms"])
    three = compare(run("a"), run("b", slow=1.04), metrics=["latency_ms"])
    by_label = {row.label: row for row in three.rows}
    (alone,) = one.rows
    assert by_label[alone.label].p == pytest.approx(alone.p)
    assert by_label[alone.label].p_adjusted >= alone.p_adjusted == pytest.approx(alone.p)


def test_difference_inside_the_twins_floor_is_not_a_difference():
    a, b = run("a", noise=0.001), run("b", slow=1.04, noise=0.001)
    for record in [*a, *b]:
        record["timing"]["noise_floor"] = {"low": 0.94, "high": 1.06}
    assert set(kinds(compare(a, b), "latency_ms")) <= {"SAME", "AMBIGUOUS"}


def test_a_contaminated_side_is_named():
    a, b = run("a"), run("b")
    assert not any(row.notes for row in compare(a, b, metrics=["latency_ms"]).rows)
    for record in b:
        record["status"] = "contaminated"
    rows = compare(a, b, metrics=["latency_ms"]).rows
    assert all("b is disturbed" in " ".join(row.notes) for row in rows)


def test_the_protocols_margins_decide_unless_others_are_asked_for():
    a, b = run("a", noise=0.0016), run("b", slow=1.06, noise=0.0016)
    for record in (*a, *b):
        record["protocol"] = {**record["protocol"], "parameters": {"latency": {"margin": 0.08, "equivalence": 0.1}}}
    rows = compare(a, b, metrics=["latency_ms"]).rows
    assert all(row.kind != "SLOWER" and row.text.startswith("the same within 10 %") for row in rows)
    assert set(kinds(compare(a, b, margin=0.02), "latency_ms")) == {"SLOWER"}


def test_set_aside_processes_do_not_count():
    a, b = run("a", noise=0.001), run("b", noise=0.001)
    for record in b:
        record["timing"]["invocations"][2].update(set_aside=True, median_ms=400.0, throughput_per_s=2.5)
    assert set(kinds(compare(a, b), "latency_ms")) == {"SAME"}


# ------------------------------------------------------------------------------------------------ power and false
# alarms


def session(name, seed, *, slow=(), process=0.02, host=0.03, gemm=0.01, own=0.003, invocations=5):
    """A session as machines are found to give it.

    Sessions differ by `host`, processes by `process`, both shared by all that is timed together; the reference GEMM
    follows all but `gemm` of either; what is left to each case of a process is `own`.
    """
    rng, times, records = random.Random(f"{name}{seed}"), {"none": 40.0, "tome": 30.0, "evit": 33.0}, []
    here, there = 1 + rng.gauss(0, host), 1 + rng.gauss(0, gemm)
    moved = [(here * (1 + rng.gauss(0, process)), there * (1 + rng.gauss(0, gemm))) for _ in range(invocations)]
    took = {m: [t * dict(slow).get(m, 1.0) * p * (1 + rng.gauss(0, own)) for p, _ in moved] for m, t in times.items()}
    for method in times:
        template = TEMPLATES[method]
        lines = [
            {
                **template["timing"]["invocations"][0],
                "index": i,
                "median_ms": took[method][i],
                "baseline_median_ms": took["none"][i],
                "gemm_median_ms": 1.5 * p * g,
                "throughput_per_s": 1000 / took[method][i] * (1 + rng.gauss(0, own)),
            }
            for i, (p, g) in enumerate(moved)
        ]
        floor = {"low": 1 - 1.2 * own, "high": 1 + 1.2 * own}
        timing = {**template["timing"], "session": f"{name}{seed}", "invocations": lines, "noise_floor": floor}
        records.append({**template, "timing": timing})
    return records


TEMPLATES = {
    method: synthetic.record(method=method, setting="" if method == "none" else "r=8", invocations=1)
    for method in ("none", "tome", "evit")
}
TIMES = ["latency_ms", "throughput_per_s", "speedup"]


def gates(slow=(), pairs=200, **noise):
    """Comparisons of so many pairs of runs."""
    both = ((session("a", s, **noise), session("b", s, slow=slow, **noise)) for s in range(pairs))
    return [compare(a, b, metrics=TIMES) for a, b in both]


@pytest.mark.parametrize("process", [0.01, 0.03])
def test_five_percent_in_one_method_are_found_and_nobody_else_is_blamed(process):
    found = gates(slow={"tome": 1.05}.items(), process=process)
    assert np.mean([result.exit_code == 1 for result in found]) >= 0.97
    blamed = [row.label for result in found for row in result.regressions if "tome" not in row.label]
    assert len(blamed) <= 0.05 * len(found)


@pytest.mark.parametrize("process", [0.01, 0.03])
def test_two_runs_of_the_same_fail_the_gate_in_less_than_five_of_a_hundred(process):
    assert np.mean([result.exit_code == 1 for result in gates(process=process)]) < 0.05


def test_five_percent_in_everything_are_found_through_the_reference_gemm():
    everything = dict.fromkeys(TEMPLATES, 1.05).items()
    quiet = gates(slow=everything, pairs=100, process=0.01, host=0.01, gemm=0.003)
    assert np.mean([result.exit_code == 1 for result in quiet]) >= 0.9
    between = gates(slow=everything, pairs=100, process=0.02, host=0.03, gemm=0.005)
    assert np.mean([result.exit_code == 1 for result in between]) >= 0.55  # 0.25 where clock and GEMM must both be sure


def test_three_sessions_on_each_side_find_five_percent_on_a_host_that_moves_by_three():
    def side(name, s, slow=()):
        return [record for part in "123" for record in session(f"{name}{part}", s, slow=slow, gemm=0.005)]

    everything = dict.fromkeys(TEMPLATES, 1.05).items()
    slower = [compare(side("a", s), side("b", s, everything), metrics=TIMES) for s in range(50)]
    same = [compare(side("a", s), side("b", s), metrics=TIMES) for s in range(100)]
    assert {row.pairing.split(", ")[1] for row in slower[0].rows} == {"by session"}
    assert np.mean([result.exit_code == 1 for result in slower]) >= 0.6
    assert np.mean([result.exit_code == 1 for result in same]) < 0.05


def test_a_faster_baseline_makes_no_regression_of_methods_that_lost_nothing():
    faster = gates(slow={"none": 0.85}.items(), pairs=40, process=0.01, gemm=0.003)
    assert not any(result.exit_code for result in faster)
    smaller = [row for result in faster for row in result.rows if row.metric == "speedup" and row.kind == "SLOWER"]
    assert smaller and all("the baseline is" in row.notes[0] and "no regression" in row.notes[0] for row in smaller)
    both = gates(slow={"none": 0.85, "tome": 1.15}.items(), pairs=40, process=0.01, host=0.01, gemm=0.003)
    assert all({"tome"} == {row.label.split(" · ")[1].split("(")[0] for row in result.regressions} for result in both)


def test_the_clock_must_show_what_the_gemm_claims():
    """A host on which only the GEMM got faster: the network lost nothing."""
    a, b = session("a", 0, host=0, process=0.002, gemm=0), session("b", 0, host=0, process=0.002, gemm=0)
    for record in b:
        for line in record["timing"]["invocations"]:
            line["gemm_median_ms"] *= 0.9
    result = compare(a, b, metrics=["latency_ms"])
    assert set(kinds(result, "latency_ms")) == {"AMBIGUOUS"} and result.exit_code == 0
    assert "% faster in b: the host changed" in result.rows[0].notes[0]


# ------------------------------------------------------------------------------------------------ other metrics


def test_counts_are_compared_exactly():
    a, b = run("a"), run("b")
    for reading in b[1]["readings"]:
        if reading["metric"] == "macs":
            reading["value"] += 1
    result = compare(a, b, metrics=["macs", "params"])
    assert kinds(result, "macs") == ["SAME", "WORSE", "SAME"] and result.exit_code == 1
    assert kinds(result, "params") == ["SAME"] * 3


def test_memory_may_move_by_two_percent():
    a, b = run("a", methods=("none",)), run("b", methods=("none",))
    memory = next(r for r in b[0]["readings"] if r["metric"] == "peak_memory_bytes")
    for factor, kind in ((1.019, "SAME"), (1.03 / 1.019, "WORSE"), (0.5, "BETTER")):
        memory["value"] *= factor
        assert kinds(compare(a, b), "peak_memory_bytes") == [kind]


def test_energy_is_compared_by_its_interval():
    a, b = run("a", methods=("none",)), run("b", methods=("none",))
    for record, value in ((a[0], 1.0), (b[0], 1.2)):
        row = next(r for r in record["readings"] if r["metric"] == "energy_j")
        row.update(value=value, ci_low=value * 0.99, ci_high=value * 1.01, n=5, provenance="measured", method_note="")
    (row,) = [r for r in compare(a, b).rows if r.metric == "energy_j"]
    assert row.kind == "WORSE" and row.ratio.value == pytest.approx(1 / 1.2)


def quality(record, marks, digest="d"):
    low, high = 90.0, 96.0
    row = next(r for r in record["readings"] if r["metric"] == "accuracy")
    share = 100 * marks.count("1") / len(marks)
    row.update(value=share, ci_low=low, ci_high=high, n=len(marks), provenance="measured", method_note="")
    record["quality"] = {"per_sample": marks, "samples_digest": digest, "n": len(marks), "correct": marks.count("1")}


def test_accuracy_on_the_same_images_is_paired():
    a, b = run("a", methods=("none",)), run("b", methods=("none",))
    quality(a[0], "1" * 940 + "0" * 60)
    quality(b[0], "1" * 920 + "0" * 80)
    (row,) = [r for r in compare(a, b).rows if r.metric == "accuracy"]
    assert (row.kind, row.pairing, row.regression) == ("WORSE", "paired by sample", True)
    quality(b[0], "1" * 920 + "0" * 80, digest="others")
    (row,) = [r for r in compare(a, b).rows if r.metric == "accuracy"]
    assert (row.kind, row.pairing) == ("AMBIGUOUS", "unpaired")


def test_numbers_of_two_provenances_are_never_compared():
    a, b = run("a", methods=("none",)), run("b", methods=("none",))
    next(r for r in b[0]["readings"] if r["metric"] == "params")["provenance"] = "estimated"
    (row,) = [r for r in compare(a, b).rows if r.metric == "params"]
    assert row.kind == "INVALID" and "not the same kind" in row.text


# ------------------------------------------------------------------------------------------------ what is matched


def test_changed_source_is_the_same_case_and_is_shown():
    a, b = run("a"), run("b", subject_digest="new+source")
    b[0]["code"]["commit"] = "abc1234"
    result = compare(a, b)
    assert not result.only_a and len(kinds(result, "latency_ms")) == 3
    assert ("code commit", "unknown", "abc1234") in result.environment
    assert any(what == "source of model and method" for what, *_ in result.environment)


def test_cases_of_one_side_are_listed_and_nothing_common_is_its_own_exit_code():
    result = compare(run("a"), run("b", methods=("none", "tome")))
    assert len(result.only_a) == 1 and "evit" in result.only_a[0] and result.only_b == ()
    nothing = compare(run("a"), run("b", model="deit_small", methods=("none", "tome")))
    assert nothing.exit_code == 5 and "no case is on both sides" in nothing.notes[0]


def test_newest_version_of_a_case_counts():
    old, new = run("a", slow=2.0, subject_digest="old"), run("b", subject_digest="new")
    assert set(kinds(compare([*new, *old], run("c")), "latency_ms")) <= {"SAME", "AMBIGUOUS"}


def test_two_sets_of_weights_on_one_side_stay_apart():
    a = [*run("a", checkpoint="w1", methods=("none",)), *run("a", checkpoint="w2", methods=("none",), slow=1.5)]
    b = [*run("b", checkpoint="w1", methods=("none",)), *run("b", checkpoint="w2", methods=("none",), slow=1.5)]
    assert set(kinds(compare(a, b), "latency_ms")) == {"SAME"}


def test_new_failure_is_a_regression_with_its_reason_and_an_old_one_is_not():
    broken = copy.deepcopy(run("b"))
    broken[1].update(status="crashed", error={"phase": "load", "type": "ValueError", "message": "no", "log_tail": ""})
    result = compare(run("a"), broken)
    (row,) = [r for r in result.rows if r.kind == "INVALID"]
    assert row.regression and "a: ok, b: crashed; ValueError: no" in row.text and result.exit_code == 1
    assert compare(broken, run("a")).exit_code == 0


def other_machine(records, cpu="Other CPU"):
    environment = {**synthetic.ENVIRONMENT, "cpu": {**synthetic.ENVIRONMENT["cpu"], "model": cpu}}
    return [{**record, "machine_key": "other", "environment": environment} for record in records]


def test_on_other_hardware_only_counts_and_ratios_travel():
    result = compare(run("a", noise=0.001), other_machine(run("b", slow=3.0, noise=0.001)))
    assert set(kinds(result, "latency_ms")) == {"INVALID"}
    assert set(kinds(result, "speedup")) == {"SAME"} and set(kinds(result, "macs")) == {"SAME"}
    assert ("cpu.model", "Synthetic CPU 3000", "Other CPU") in result.environment
    assert result.exit_code == 0


def test_same_hardware_with_another_torch_is_comparable():
    b = [{**record, "machine_key": "same cpu, other torch"} for record in run("b", slow=1.06, noise=0.002)]
    assert set(kinds(compare(run("a", noise=0.002), b), "latency_ms")) == {"SLOWER"}


def test_other_protocol_is_not_compared():
    b = run("b")
    for record in b:
        record["protocol"] = {**record["protocol"], "hash": "other", "name": "publish"}
    result = compare(run("a"), b)
    assert set(kinds(result, "latency_ms")) == {"INVALID"} and set(kinds(result, "macs")) == {"SAME"}


def test_environment_difference_shows_only_what_differs():
    a = synthetic.ENVIRONMENT
    assert difference(a, a) == []
    b = {**a, "packages": {**a["packages"], "torch": "2.14.0"}}
    assert difference(a, b) == [("packages.torch", "2.13.0", "2.14.0")]


# ------------------------------------------------------------------------------------------------ what a gate may say


def under(records, protocol, **changes):
    """The records as measured under a protocol, with parameters of its latency left out (`None`) or changed."""
    told = protocol.as_record()
    left_out = {name for name, value in changes.items() if value is None}
    latency = {**told["parameters"]["latency"], **changes}
    latency = {name: value for name, value in latency.items() if name not in left_out}
    told = {**told, "parameters": {**told["parameters"], "latency": latency}}
    told["hash"] = (
        f"of {len(latency)} parameters" if changes else told["hash"]
    )  # what an older version would have stored
    case = {"protocol": told["hash"]}
    return [
        {**r, "protocol": told, "case": {**r["case"], **case}, "case_key": f"{r['case_key']}{told['hash'][:4]}"}
        for r in records
    ]


OLDER = dict.fromkeys(("busy_cores", "pressure_share", "steal_share", "switches_per_s", "margin", "equivalence"))


def test_a_limit_of_labels_that_came_later_does_not_part_old_rows_from_new_ones():
    old, new = under(run("a", noise=0.001), Protocol(), **OLDER), under(run("b", noise=0.001), Protocol())
    assert old[0]["protocol"]["hash"] != new[0]["protocol"]["hash"]
    result = compare(old, new)
    assert set(kinds(result, "latency_ms")) == {"SAME"} and result.exit_code == 0
    assert not [what for what, *_ in result.environment if what == "protocol"]


def test_a_limit_that_came_later_is_taken_as_it_was_and_not_as_the_default_is_today():
    old = under(run("a"), Protocol(), **OLDER)
    other = under(run("b"), Protocol(latency={"busy_cores": 0.5}))
    assert set(kinds(compare(old, other), "latency_ms")) == {"INVALID"}
    assert BEFORE["latency"].keys() <= Latency.model_fields.keys()


@pytest.mark.parametrize("name", ["preempted_loss", "l2", "further_invocations", "samples"])
def test_a_missing_parameter_of_what_is_timed_makes_another_protocol(name):
    assert name not in BEFORE["latency"]
    old, new = under(run("a"), Protocol(), **{name: None}), under(run("b"), Protocol())
    assert protocol_key(old[0]) == old[0]["protocol"]["hash"]
    assert set(kinds(compare(old, new), "latency_ms")) == {"INVALID"}


@pytest.mark.parametrize("parameters", [None, [1], {}, {"latency": 3}, {"version": 1}, {"later": {"x": 1}}])
def test_a_protocol_that_is_unknown_here_keeps_the_hash_it_has(parameters):
    assert protocol_key({"protocol": {"version": 1, "hash": "stored", "parameters": parameters}}) == "stored"
    assert protocol_key({}) is None


def test_a_gate_is_not_green_where_no_time_could_be_compared():
    result = compare(under(run("a"), Protocol()), under(run("b"), Protocol(latency={"samples": 50})))
    timed = ("latency_ms", "throughput_per_s", "speedup")
    assert {row.kind for row in result.rows if row.metric in timed} == {"INVALID"}
    assert set(kinds(result, "macs")) == {"SAME"} and result.exit_code == 5
    assert "no time could be compared" in result.notes[-1] and "protocols differ" in result.notes[-1]
    counted = compare(run("a"), under(run("b"), Protocol()), metrics=["macs", "params"])
    assert counted.exit_code == 0  # no time was asked for


def test_a_folder_with_rows_of_two_protocols_is_compared_by_one_that_both_sides_have():
    quick, publish = Protocol(latency={"samples": 50}), Protocol(latency={"samples": 200})
    both = [*under(run("a", noise=0.001), quick), *under(run("c", noise=0.001), publish)]
    for mixed, plain in ((both, under(run("b", noise=0.001), quick)), (both, under(run("d", noise=0.001), publish))):
        for a, b in ((mixed, plain), (plain, mixed)):
            result = compare(a, b)
            assert set(kinds(result, "latency_ms")) == {"SAME"} and len(kinds(result, "latency_ms")) == 3
    slower = compare(both, [*under(run("d", noise=0.001, slow=1.1), publish), *under(run("b", noise=0.001), quick)])
    assert set(kinds(slower, "latency_ms")) == {"SLOWER"}  # the newest protocol of b


def test_rows_of_both_versions_are_never_compared_or_ranked_together():
    one, two = (under(run(name), api.protocol_named(name)) for name in ("quick", "v2/quick"))
    assert protocol_key(one[0]) != protocol_key(two[0])
    assert set(kinds(compare(one, two), "latency_ms")) == {"INVALID"}
    frame = table.from_records([*one, *two])
    ranked = rank_intervals(frame, "latency_ms", medians=medians_of([*one, *two]))
    groups = ranked.groupby("group")["protocol"].unique()
    assert sorted(map(list, groups)) == sorted([[one[0]["protocol"]["hash"]], [two[0]["protocol"]["hash"]]])
    assert set(ranked["rank_high"]) <= {1, 2, 3}


def test_an_interrupted_side_is_no_regression():
    for status, code in (("interrupted", 0), ("crashed", 1)):
        stopped = copy.deepcopy(run("b"))
        stopped[1].update(status=status, error={"phase": "measure", "message": "no"})
        result = compare(run("a"), stopped)
        assert result.exit_code == code and "None: no" in " ".join(row.text for row in result.rows)
    alone = [{**run("b")[0], "status": "interrupted"}]
    assert compare(run("a")[:1], alone).exit_code == 5


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_contaminated_side_fails_no_gate_and_says_why(side):
    a, b = run("a", noise=0.001), run("b", slow=1.2, noise=0.001)
    b[1] = run("b", slow=1.5, noise=0.001)[1]
    for line in b[1]["timing"]["invocations"]:
        line["baseline_median_ms"] /= 1.25
    assert compare(a, b).exit_code == 1
    for record in a if side == "a" else b:
        record["status"] = "contaminated"
    result = compare(a, b)
    timed = [row for row in result.rows if row.metric in ("latency_ms", "throughput_per_s", "speedup")]
    assert {row.kind for row in timed} == {"AMBIGUOUS"} and result.exit_code == 0 and not result.regressions
    assert all("no verdict, because a side is disturbed" in row.text for row in timed)
    assert all(f"{side} is disturbed" in " ".join(row.notes) for row in timed)


def test_a_contaminated_session_counts_only_where_there_is_no_clean_one():
    bad = run("b9", slow=1.5, noise=0.001)
    for record in bad:
        record["status"] = "contaminated"
    for b in ([*run("b", noise=0.001), *bad], [*run("c", noise=0.001), *bad]):
        assert set(kinds(compare(run("a", noise=0.001), b), "latency_ms")) == {"SAME"}


def energy_of(record, value, **rest):
    row = next(r for r in record["readings"] if r["metric"] == "energy_j")
    row.update({"value": value, "provenance": "measured", "method_note": "", "n": 1, **rest})


def test_a_measured_value_of_one_replicate_is_no_verdict():
    a, b = run("a", methods=("none",)), run("b", methods=("none",))
    energy_of(a[0], 1.0)
    energy_of(b[0], 1.5)
    result = compare(a, b)
    (row,) = [r for r in result.rows if r.metric == "energy_j"]
    assert (row.kind, row.text) == ("INVALID", "one replicate gives no interval; at least 2 are needed")
    assert result.exit_code == 0
    (row,) = [r for r in compare(a, other_machine(b)).rows if r.metric == "energy_j"]
    assert row.kind == "INVALID" and "other hardware" in row.text


def test_memory_is_not_compared_between_unlike_machines():
    a, b = run("a", methods=("none", "tome")), run("b", methods=("none", "tome"))
    next(r for r in b[0]["readings"] if r["metric"] == "peak_memory_bytes")["value"] *= 1.5
    assert compare(a, b).exit_code == 1
    result = compare(a, other_machine(b))
    assert set(kinds(result, "peak_memory_bytes")) == {"INVALID"} and result.exit_code == 0


def test_answers_of_unlike_number_are_not_paired():
    a, b = run("a", methods=("none",)), run("b", methods=("none",))
    quality(a[0], "1" * 940 + "0" * 60)
    quality(b[0], "1" * 94 + "0" * 6)
    (row,) = [r for r in compare(a, b).rows if r.metric == "accuracy"]
    assert row.pairing == "unpaired"


def test_what_the_clock_does_not_show_is_said_to_be_that():
    a, b = session("a", 0, host=0, process=0.002, gemm=0), session("b", 0, host=0, process=0.002, gemm=0)
    for record in b:
        for line in record["timing"]["invocations"]:
            line["gemm_median_ms"] *= 0.9
    texts = [row.text for row in compare(a, b, metrics=["latency_ms"]).rows]
    assert all("which the clock does not show" in text and "invocation" not in text for text in texts)


# ------------------------------------------------------------------------------------------------ text


def test_text_puts_regressions_first_and_says_what_differs():
    b = run("b", noise=0.001)
    for line in b[2]["timing"]["invocations"]:
        line["median_ms"] *= 1.2
    text = as_text(compare(run("a", noise=0.001), b, label_a="main", label_b="branch", metrics=["latency_ms"]))
    first, *_ = [line for line in text.splitlines() if "latency_ms" in line]
    assert "evit" in first and "SLOWER" in first and "slower" in first
    assert text.startswith("main -> branch: 1 worse")
    assert "alternate a and b" in text


def test_a_terminal_sees_what_changed_and_how_many_rows_did_not_within_its_width():
    b = run("b", noise=0.001)
    for line in b[2]["timing"]["invocations"]:
        line["median_ms"] *= 1.2
    found = compare(run("a", noise=0.001), b, metrics=["latency_ms"])
    text = as_text(found, every=False, width=130)
    rest = sum(row.kind not in ("FASTER", "SLOWER") for row in found.rows)
    assert rest >= 1 and f"{rest} rows " in text and "all=true shows them" in text
    table = [line for line in text.splitlines() if "latency_ms" in line]
    assert len(table) == 1 and "SLOWER" in table[0] and len(table[0]) <= 130
    assert sum("latency_ms" in line for line in as_text(found).splitlines()) == len(found.rows)


def test_no_line_is_longer_than_a_narrow_terminal_and_what_was_left_out_is_told():
    b = run("b", noise=0.001)
    for line in b[2]["timing"]["invocations"]:
        line["median_ms"] *= 1.2
    for made in b:
        made["environment"] = {**made["environment"], "cpu_flags": "avx2 avx512f avx512_vnni " * 8}
    found = compare(run("a", noise=0.001), b, label_a="main", label_b="branch", metrics=["latency_ms"])
    for width, gone in ((80, "how, a, b"), (100, "how")):
        text = as_text(found, width=width)
        assert "cpu_flags" in text and max(map(len, text.splitlines())) <= width
        (line,) = (line for line in text.splitlines() if "latency_ms" in line and "SLOWER" in line)
        assert "evit" in line and re.search(r"0\.8\d\dx \[0\.\d+, 0\.\d+\]", line)
        assert f"left out to fit {width} signs a line: {gone}\n" in text
    assert "left out" not in as_text(found)


def test_equal_counts_are_one_line_not_many_rows():
    text = as_text(compare(run("a"), run("b"), metrics=["latency_ms", "macs", "params"]))
    assert "equal on both sides (6 rows): macs, params" in text and "GMAC" not in text and " MAC " not in text


def test_markdown_is_a_table_that_hostile_names_cannot_leave():
    records = run("a", model="<img src=x onerror=alert(1)>|[x](http://e)", methods=("none",))
    text = as_markdown(compare(records, records))
    assert "<img" not in text and "&lt;img" in text and "\\|" in text and "\\[x\\]" in text
    assert text.splitlines()[2].startswith("| case | metric |")


STEERING = "\x1b]0;title\x07\x1b[31m\r\n\x9b2J\u202egnp\u2066x\u2028\ud800"
SHOWN = "\\x1b]0;title\\x07\\x1b[31m\\r\\n\\x9b2J\\u202egnp\\u2066x\\u2028\\ud800"


def foreign_comparison():
    a, b = run("a", model=STEERING, methods=("none", "tome")), run("b", model=STEERING, methods=("none", "evit"))
    for record in b:
        record["environment"] = {**record["environment"], "python": STEERING, STEERING: 1}
    b[0].update(status="crashed", error={"phase": "load", "type": STEERING, "message": STEERING})
    return compare(a, b, label_a=STEERING, label_b="b")


def test_nothing_foreign_steers_a_terminal():
    verdicts = [Judgement(STEERING, "AGREES", STEERING, STEERING, STEERING, STEERING, STEERING)]
    around = [(STEERING, STEERING, STEERING)]
    for text in (as_text(foreign_comparison()), reproduction_as_text(verdicts, around), differences_as_text(around)):
        assert SHOWN in text
        assert not [mark for mark in STEERING if mark in text.replace("\n", "") and not mark.isprintable()]
        text.encode()


def test_nothing_foreign_steers_a_pull_request_or_a_page():
    from reports.pages import compare as page

    found = foreign_comparison()
    shown = page.escaped(found)
    texts = [
        *(line.case + line.text for line in page.lines(found)),
        *shown.only_a,
        *shown.only_b,
        *sum(shown.environment, ()),
    ]
    for text in (as_markdown(found).replace("\n", ""), *texts):
        assert not [mark for mark in STEERING if mark in text and not mark.isprintable()]
        text.encode()


# ------------------------------------------------------------------------------------------------ ranks


def frame_of(latencies, half=0.01, n=5, **rest):
    records = []
    for index, value in enumerate(latencies):
        record = synthetic.record(
            method="none" if index == 0 else "tome", setting="" if index == 0 else f"r={index}", **rest
        )
        row = next(r for r in record["readings"] if r["metric"] == "latency_ms")
        row.update(value=value, ci_low=value / (1 + half), ci_high=value * (1 + half), n=n)
        records.append(record)
    return table.from_records(records), records


def spans(ranked):
    return [
        None if pd.isna(low) else (int(low), int(high))
        for low, high in zip(ranked["rank_low"], ranked["rank_high"], strict=True)
    ]


def test_ties_share_a_rank_interval_and_there_is_no_single_winner():
    frame, _ = frame_of([10.0, 10.05, 20.0, 30.0])
    assert spans(rank_intervals(frame, "latency_ms")) == [(1, 2), (1, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "cuda"),
        ("dtype", "bf16"),
        ("batch", 8),
        ("resolution", 384),
        ("threads", 2),
        ("compile", "default"),
        ("memory_format", "channels_last"),
        ("data", "folder"),
        ("task", "none"),
        ("cuda_graphs", True),
        ("machine_key", "other"),
    ],
)
def test_unlike_things_are_never_ranked_together(field, value):
    frame = pd.concat([frame_of([10.0, 20.0])[0], frame_of([1.0, 2.0], **{field: value})[0]], ignore_index=True)
    ranked = rank_intervals(frame, "latency_ms")
    assert spans(ranked) == [(1, 1), (2, 2)] * 2 and ranked["group"].nunique() == 2


def test_failed_and_missing_rows_are_not_ranked_and_say_why():
    frame, _ = frame_of([10.0, 20.0])
    failed = table.from_records(
        [synthetic.record(method="evit", status="crashed", error={"type": "E", "message": "m"})]
    )
    ranked = rank_intervals(pd.concat([frame, failed], ignore_index=True), "latency_ms")
    assert spans(ranked) == [(1, 1), (2, 2), None]
    assert ranked["rank_note"].tolist() == ["", "", "status crashed"]


def test_counts_are_ranked_exactly_and_higher_is_better_where_it_is():
    frame = table.from_records(synthetic.suite_records()[:4])
    assert sorted(spans(rank_intervals(frame, "macs"))) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    accuracy = rank_intervals(frame, "accuracy")
    assert spans(accuracy) == [(1, 4)] * 4
    with pytest.raises(ValueError, match="no better direction"):
        rank_intervals(frame, "aa_ratio")


def test_rows_of_one_session_are_ranked_by_pairs():
    records = run("a", noise=0.001)
    for index in range(5):
        for record in records:
            record["timing"]["invocations"][index]["median_ms"] *= 1 + 0.2 * index
    for record in records:
        row = next(r for r in record["readings"] if r["metric"] == "latency_ms")
        row.update(ci_low=row["value"] / 1.3, ci_high=row["value"] * 1.3, n=5)
    frame = table.from_records(records)
    assert spans(rank_intervals(frame, "latency_ms")) == [(1, 3)] * 3
    paired = rank_intervals(frame, "latency_ms", medians=medians_of(records))
    assert spans(paired) == [(3, 3), (1, 1), (2, 2)]


def test_rows_inside_the_noise_floor_of_identical_twins_stay_tied():
    frame, _ = frame_of([10.0, 10.4, 20.0], half=0.001)
    assert spans(rank_intervals(frame, "latency_ms")) == [(1, 1), (2, 2), (3, 3)]
    floor = (
        frame[frame["metric"] == "latency_ms"].head(1).assign(metric="aa_ratio", value=1.0, ci_low=0.95, ci_high=1.05)
    )
    ranked = rank_intervals(pd.concat([frame, floor], ignore_index=True), "latency_ms")
    assert spans(ranked) == [(1, 2), (1, 2), (3, 3)]


def test_the_noise_floor_holds_where_the_baseline_was_not_recorded_in_that_session():
    """Methods that were added later: their session has no row of the baseline, and so no reading of its A/A ratio."""
    _, (_, *later) = frame_of([20.0, 10.0, 10.4, 12.0], half=0.001)
    assert spans(rank_intervals(table.from_records(later), "latency_ms")) == [(1, 1), (2, 2), (3, 3)]
    for record in later:
        assert not any(row["metric"] == "aa_ratio" for row in record["readings"])
        record["timing"]["noise_floor"] = {"low": 0.95, "high": 1.05}
    assert spans(rank_intervals(table.from_records(later), "latency_ms")) == [(1, 2), (1, 2), (3, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0016, 0.016, 0.1])
def test_identical_runs_pass_the_gate_at_every_noise_level(noise):
    alarms = [compare(run("a", seed=s, noise=noise), run("b", seed=s, noise=noise)).exit_code for s in range(300)]
    assert np.mean(np.array(alarms) == 1) <= 0.05
