"""What a subject declares arrives in record and table, and keeps its row out of others' ranks."""

from types import SimpleNamespace

import pytest
import torch

from bench.analysis import table
from bench.analysis.ranking import rank_intervals
from bench.store.record_parts import reading_of
from bench.worker import declared
from tests.sweeping import QUICK, configuration, sweep

MODEL, METHOD = "tests.worker.declaring:model", "tests.worker.declaring:rounded"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    config = configuration(tmp_path_factory.mktemp("declaring"), [MODEL], [METHOD])
    return sorted(sweep(config).records, key=lambda record: record["case"]["method"] != "none")


def test_labels_belong_to_the_row_and_its_case_has_no_such_axis(records):
    plain, rounded = records
    assert plain["labels"] == {"execution": "real", "kernel": None}
    assert rounded["labels"] == {"execution": "simulated", "kernel": "mask"}
    assert "execution" not in rounded["case"]


def test_declared_counts_and_the_methods_cost_are_readings(records):
    plain, rounded = records
    expected = {
        "macs": 160,
        "macs_dense": 160,
        "macs_nonzero": 64 + 32,
        "nominal_bits": 4,
        "method_forwards": 2,
        "method_backwards": 0,
        "method_samples": 10,
    }
    assert {name: reading_of(rounded, name)["value"] for name in expected} == expected
    assert reading_of(rounded, "method_seconds")["value"] > 0
    assert reading_of(plain, "macs_dense") is None and reading_of(plain, "method_seconds") is None


def test_utilisation_says_why_it_is_missing_where_no_peak_was_measured(records):
    missing = [row for row in records[0]["readings"] if row["metric"] in ("mfu", "hfu")]
    assert len(missing) == 2 and all("peak" in row["method_note"] and row["part"] == "forward" for row in missing)


def test_a_simulated_row_is_never_ranked_with_a_real_one(records):
    ranked = rank_intervals(table.from_records(records), "latency_ms")
    assert ranked["group"].nunique() == 2
    assert set(ranked["rank_low"]) == {1} and set(ranked["rank_high"]) == {1}


def test_counting_alone_knows_the_labels_and_what_it_cannot_see(tmp_path):
    config = configuration(tmp_path, [MODEL], [METHOD], protocol={**QUICK, "timed": False})
    (rounded,) = (record for record in sweep(config).records if record["case"]["method"] != "none")
    assert rounded["labels"]["execution"] == "simulated"
    assert reading_of(rounded, "macs_dense")["value"] == 160 and reading_of(rounded, "method_forwards")["value"] == 2
    (hidden,) = (row for row in rounded["readings"] if row["metric"] == "macs_nonzero")
    assert "meta device" in hidden["method_note"]


class Task:
    def batches(self, size):
        for place in range(5):
            yield torch.full((size, 16), float(place)), torch.zeros(size)


def subject(*, kind="trained", task=None, workload="forward", **attributes):
    module = torch.nn.Sequential(torch.nn.Linear(16, 4, bias=False))
    for name, value in attributes.items():
        setattr(module, name, value)
    case = SimpleNamespace(device="cpu", dtype="fp32", workload=workload, batch=1)
    return SimpleNamespace(
        case=case, module=module, counted=module, task=task, weights={"kind": kind}, synchronise=lambda: None
    )


def test_a_subject_whose_cost_depends_on_its_input_is_run_on_its_tasks_inputs_one_by_one():
    assert declared.over_its_inputs(subject(task=Task())) is None
    found = declared.over_its_inputs(subject(task=Task(), input_dependent=True, sampled_inputs=4))
    assert len(found.curves[0].values) == 4
    assert {item.metric: item.value for item in found.readings}["macs_mean"] == 64


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "random", "task": Task()}, "random weights"),
        ({"task": None}, "no task"),
        ({"task": Task(), "workload": "generate"}, "workload generate"),
    ],
)
def test_without_a_sample_that_means_something_the_distribution_has_a_reason(given, words):
    found = declared.over_its_inputs(subject(input_dependent=True, **given))
    assert found.readings and all(item.value is None and words in item.method_note for item in found.readings)


def test_every_job_of_a_worker_has_a_kind_of_result():
    from bench.worker.child import JOBS
    from bench.worker.results import KINDS

    assert KINDS.keys() == JOBS.keys()


def test_a_cost_that_follows_from_inputs_alone_keeps_its_row_and_one_that_may_follow_from_weights_does_not(tmp_path):
    models = ["tests.faults.models:sieve", "tests.faults.models:declared_sieve"]
    found = {record["case"]["model"]: record for record in sweep(configuration(tmp_path, models)).records}
    flags = {name: [item for item in found[name]["flags"] if item["code"] == "input_dependent"] for name in models}
    assert found[models[0]]["status"] == "invalid" and "random weights" in flags[models[0]][0]["text"]
    assert found[models[1]]["status"] in ("ok", "contaminated")
    assert "follows from the values that it is given, whatever the weights" in flags[models[1]][0]["text"]
