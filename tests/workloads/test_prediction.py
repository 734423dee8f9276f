"""Predictions: errors beside their ceiling, nothing dropped in silence, made last and again when rows have changed."""

import pytest
import torch
from torch import nn

from bench import prediction_errors
from bench.store.record_parts import reading_of
from bench.store.records import Store
from bench.workloads import prediction
from bench.workloads.prediction import Evaluation, is_outdated, source_of
from tests.sweeping import QUICK, configuration, sweep
from tests.workloads.subjects import FakeBuilt, parts_of


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """What is told of an interval needs no thousand of them; `test_prediction_errors` draws as many as a row."""
    monkeypatch.setattr(prediction_errors, "RESAMPLES", 100)


class Doubling(nn.Module):
    def forward(self, macs):
        return 2 * macs

    def encode_one(self):
        return None


class Judged:
    def __init__(self, **changes):
        given = {
            "names": ["one", "two", "three", "four"], "families": ["f", "f", "f", "g"],
            "measured": [1.0, 2.0, 4.0, 5.0], "predicted": [1.1, 2.2, 4.4, 5.5],
            "repeats": [(1.0, 1.0), (2.0, 2.2), (4.0, 4.0), (5.0, 5.0)],
            "facts": {"training_networks": 7, "build_seconds": 12.5}, "source": "abc", "suite": "predict",
        }  # fmt: skip
        self.found = Evaluation(**{**given, **changes})

    def evaluation(self, module):
        return self.found


def facts(task, device="cpu"):
    built = FakeBuilt(Doubling(), (torch.ones(2),), task=task, device=device)
    parts, shape = parts_of("prediction", built, batch=2)
    return prediction.facts(built, shape, list(parts.values()))


def by_name(found):
    return {item.metric: item for item in found.readings}


def test_errors_have_intervals_and_the_predicted_values_are_modelled():
    found = facts(Judged())
    told = by_name(found)
    assert told["smape"].value == pytest.approx(200 * 0.1 / 2.1) and told["smape"].n == 4
    assert (
        told["spearman"].value == 1
        and told["top1_regret"].value == 1
        and told["bias_percent"].value == pytest.approx(10)
    )
    assert told["smape"].ci_low is not None and told["coverage_percent"].value == 100
    assert told["training_networks"].value == 7 and told["table_entries"].value is None
    again = 1.1 ** (2**0.5 / 2)  # of two means of two processes, from a process against the other
    assert told["noise_mape"].value == pytest.approx(100 * (again - 1 + 1 - 1 / again) / 8)
    assert told["decides_percent"].value is None
    curves = [curve for curve in found.curves if curve.metric == "predicted_ms"]
    assert [(c.part, c.provenance, list(c.at)) for c in curves] == [
        ("f", "modelled", [1.0, 2.0, 4.0]), ("g", "modelled", [5.0]),
    ]  # fmt: skip
    (spearman,) = [curve for curve in found.curves if curve.metric == "spearman"]
    assert (list(spearman.at), list(spearman.values)) == (["f", "g"], [1.0, None])
    assert found.details["measured"] == "abc" and "encode_us" in found.details


def test_a_budget_says_how_often_a_predictor_decides_right():
    told = by_name(facts(Judged(budget=2.1)))["decides_percent"]  # 2.0 is below and 2.2 is not
    assert told.value == 75 and told.ci_low < 75 < told.ci_high and told.n == 4


def test_what_could_not_be_predicted_is_told():
    found = facts(Judged(unpredicted={"five": "its row is missing"}))
    assert by_name(found)["coverage_percent"].value == 80
    assert [item["code"] for item in found.flags] == ["networks_without_prediction"] and "five" in found.flags[0][
        "text"
    ]
    nothing = facts(
        Judged(names=[], families=[], measured=[], predicted=[], repeats=[], unpredicted={"five": "no row"})
    )
    assert by_name(nothing)["rmse"].value is None and "no row" in by_name(nothing)["rmse"].method_note


def test_a_simulated_machine_and_a_rank_are_no_measured_errors():
    assert by_name(facts(Judged(simulated=True, repeats=())))["rmse"].provenance == "modelled"
    assert by_name(facts(Judged(simulated=True, repeats=())))["noise_mape"].value is None
    ranked = facts(Judged(ranks_only=True))
    assert by_name(ranked)["kendall"].value == 1 and by_name(ranked)["rmse"].value is None
    assert not [curve for curve in ranked.curves if curve.metric == "predicted_ms"]
    given = facts(Judged(in_ms=False))
    assert not [curve for curve in given.curves if curve.metric == "predicted_ms"]


def test_without_a_task_or_on_meta_there_is_nothing_to_be_wrong_about():
    for task, device, why in ((None, "cpu", "no task"), (Judged(), "meta", "meta")):
        found = facts(task, device)
        assert all(item.value is None and why in item.method_note for item in found.readings)


def test_a_prediction_takes_the_time_of_its_run_over_its_networks():
    from tests.workloads.test_derive import derive

    found = derive("prediction", {("latency_ms", "predict"): 4.0}, batch=8)
    assert found["predict_us", "predict"].value == pytest.approx(500)


def row(name, suite="predict", workload="operator", status="ok"):
    return {
        "content_hash": name, "case": {"suite": suite, "workload": workload}, "status": status,
        "timing": {"invocations": [{}]},
    }  # fmt: skip


def test_a_prediction_is_outdated_when_rows_of_its_suite_have_changed():
    rows = [row("a"), row("b")]
    told = {
        **row("p", workload="prediction"),
        "workload": {"measured": source_of(rows, "predict"), "measured_in": "predict"},
    }
    assert not is_outdated(told, [told, *reversed(rows)])
    assert not is_outdated(told, [*rows, row("c", suite="convnets"), row("d", status="crashed")])
    assert is_outdated(told, [*rows, row("c")]) and is_outdated(told, rows[:1])
    assert is_outdated({**told, "status": "crashed"}, rows)
    assert not is_outdated({**told, "workload": {"measured": ""}}, rows[:1])


@pytest.mark.slow
def test_a_sweep_measures_rows_first_and_predicts_again_when_there_are_more(tmp_path):
    measured = {"models": ["dense_networks(count=12)"], "workload": "operator", "task": "none"}
    predicted = {"models": ["cost_macs(family='dense')"], "workload": "prediction", "task": "measured_costs"}

    def swept(*blocks):
        suite = {"name": "predict", "grids": {"default": list(blocks)}}
        return sweep(configuration(tmp_path, [], suite=suite, protocol=QUICK))

    first = swept(predicted, measured)  # in the wrong order on purpose
    assert not first.failed, [record["error"] for record in first.failed]
    assert [record["case"]["workload"] for record in first.records] == ["operator", "prediction"]
    cohort, told = first.records
    spans = cohort["timing"]["invocations"][0]["spans"]
    assert len(spans) == 12 and all(value > 0 for value in spans.values())
    assert reading_of(told, "mape")["value"] > 0 and reading_of(told, "predict_us")["value"] > 0
    assert reading_of(told, "spearman")["n"] == len(told["workload"]["judged_on"])
    assert swept(predicted, measured).measured == 0
    again = swept(predicted, measured, {**measured, "models": ["dense_networks(first=12, count=12)"]})
    assert again.measured == 2 and again.records[-1]["supersedes"] == told["content_hash"]
    assert len(again.records[-1]["workload"]["judged_on"]) > len(told["workload"]["judged_on"])
    assert len(Store(tmp_path / "results").attempts(told["case_key"], told["machine_key"])) == 2
