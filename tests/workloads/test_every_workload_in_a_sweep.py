"""Every workload from a suite's block to its record: parts timed and counted, derived names, facts, curves."""

import pytest

from bench.store.record_parts import reading_of
from tests.sweeping import QUICK, configuration, sweep

pytestmark = pytest.mark.slow

HERE = "tests.workloads.subjects"
BLOCKS = {
    "generate": ("writer", {"batch": [2], "context": [6], "new_tokens": [4]}),
    "sample": ("denoiser", {"batch": [2], "steps": [4]}),
    "stream": ("causal", {"batch": [3]}),
    "training_step": ("learner", {"batch": [8]}),
    "pipeline": ("chain", {}),
    "split": ("halves", {"batch": [2]}),
    "operator": ("doubling", {}),
    "prediction": ("weighing", {"batch": [2]}),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workloads")
    blocks = [
        {"models": [f"{HERE}:{model}"], "workload": workload, **({"shapes": shapes} if shapes else {})}
        for workload, (model, shapes) in BLOCKS.items()
    ]
    done = sweep(configuration(folder, [], suite={"name": "workloads", "grids": {"default": blocks}}, protocol=QUICK))
    assert not done.failed, [record["error"] for record in done.failed]
    return {record["case"]["workload"]: record for record in done.records}


def value(record, metric, part=None):
    found = reading_of(record, metric, part)
    return None if found is None else found["value"]


def test_every_part_has_its_time_its_products_and_its_memory(records):
    from tests.workloads.test_parts import MACS

    per_sample = {"generate": 1 / 1, "sample": 1 / 2, "stream": 1 / 3, "training_step": 1 / 8, "split": 1 / 2}
    per_sample["prediction"] = 1 / 2
    for workload, macs in MACS.items():
        for part, count in macs.items():
            assert value(records[workload], "latency_ms", part) > 0
            assert value(records[workload], "macs", part) == pytest.approx(count * per_sample.get(workload, 1)), part
            assert value(records[workload], "peak_memory_bytes", part) > 0


def test_the_field_s_own_names_are_there(records):
    wanted = {
        "generate": ["time_to_first_token_ms", "cache_bytes", "inter_token_p50_ms", "tokens_per_s"],
        "sample": ["time_per_image_ms", "network_evaluations", "macs_decoder", "images_per_s"],
        "stream": ["time_per_step_ms", "state_bytes", "offline_error", "macs_per_step", "steps_per_s"],
        "training_step": ["gradient_bytes", "saved_activation_bytes", "macs_backward", "throughput_per_s"],
        "pipeline": ["untimed_share", "nonnetwork_share", "requests_per_s"],
        "split": ["payload_bytes", "link_ms", "total_modelled_ms"],
        "operator": ["reference_error", "io_bytes", "calls_per_s"],
        "prediction": ["predict_us", "networks_per_s"],
    }
    for workload, metrics in wanted.items():
        whole = {"generate": "request", "sample": "image", "stream": "step", "training_step": "step"}
        whole["prediction"] = "predict"
        part = whole.get(workload, "call" if workload == "operator" else "request")
        for metric in metrics:
            assert value(records[workload], metric, part) is not None, (workload, metric)
    shares = [value(records["pipeline"], "stage_share", stage) for stage in ("decode", "infer", "post")]
    assert sum(shares) + value(records["pipeline"], "untimed_share", "request") == pytest.approx(100)
    outside = reading_of(records["pipeline"], "nonnetwork_share", "request")
    assert outside["n"] == len(records["pipeline"]["timing"]["invocations"])  # of the timed processes, not of the probe


def test_curves_are_kept_once_in_the_record(records):
    found = {workload: {(c["metric"], c["index"]) for c in record["curves"]} for workload, record in records.items()}
    assert found["generate"] == {("latency_ms", "context")}
    assert found["sample"] == {("latency_ms", "step"), ("macs", "step"), ("cache_bytes", "step")}
    assert found["stream"] == {("latency_ms", "step"), ("macs", "step"), ("offline_error", "step")}


def test_a_prepared_part_holds_its_cache_once(records):
    """The writer's weights are 2 x (11 x 2) numbers; its cache of two sequences is 64 places of 2."""
    decode = records["generate"]
    assert value(decode, "peak_memory_bytes", "decode") < 4 * (2 * 22 + 2 * 2 * 64 * 2)
    assert value(decode, "peak_memory_bytes", "decode") > 4 * (2 * 22 + 2 * 64 * 2)


def test_a_case_whose_backlog_grows_is_unstable_and_keeps_its_service_times(tmp_path):
    block = {"models": [f"{HERE}:chain"], "workload": "pipeline", "shapes": {"rate": [1e6], "seconds": [1]}}
    done = sweep(configuration(tmp_path, [], suite={"name": "load", "grids": {"default": [block]}}, protocol=QUICK))
    (record,) = done.records
    assert record["status"] == "unstable" and "were waiting" in record["error"]["message"]
    assert value(record, "latency_ms", "request") > 0 and value(record, "achieved_rate", "request") > 0
    assert value(record, "sojourn_p50_ms", "request") is None


def test_every_workload_is_counted_on_shapes_alone(tmp_path):
    blocks = [
        {"models": [f"{HERE}:{model}"], "workload": workload, **({"shapes": shapes} if shapes else {})}
        for workload, (model, shapes) in BLOCKS.items()
    ]
    suite = {"name": "counted", "grids": {"default": blocks}}
    done = sweep(configuration(tmp_path, [], suite=suite, protocol={**QUICK, "timed": False}))
    assert not done.failed, [record["error"] for record in done.failed]
    records = {record["case"]["workload"]: record for record in done.records}
    codes = {workload: {flag["code"] for flag in record["flags"]} for workload, record in records.items()}
    assert {workload for workload, found in codes.items() if "counted_for_real" in found} == set()
    assert value(records["generate"], "cache_bytes", "request") == 2 * 9 * 8
    assert value(records["sample"], "macs_decoder", "image") == 20
    assert value(records["stream"], "macs_per_step", "step") == 12
    assert value(records["training_step"], "macs_backward", "step") == 60
    assert value(records["split"], "macs", "tail") == 6 and value(records["operator"], "io_bytes", "call") == 188
    assert all(value(record, "latency_ms") is None for record in records.values())
