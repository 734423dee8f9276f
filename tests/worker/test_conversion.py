"""A backend as an axis of a case: through probe, invocation and record, with a backend from outside the package."""

import dataclasses
import os

import pytest
import torch

import bench
from bench.errors import UsageError
from bench.host.environment import package_names
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import conversion
from bench.worker.artefacts import prune
from bench.worker.child import classify
from bench.worker.subject import build
from tests.sweeping import HEALTHY, configuration, sweep

OUTSIDE = "tests.backends.outside"
BACKENDS = ["eager", OUTSIDE, "tests.backends.off"]


def with_backends(folder, backends, **changes):
    config = configuration(folder, [HEALTHY], **changes)
    block = config.suite.grids["default"][0].model_copy(update={"backends": backends})
    suite = config.suite.model_copy(update={"grids": {"default": [block]}})
    return config.model_copy(update={"suite": suite})


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    found = sweep(with_backends(tmp_path_factory.mktemp("sweep"), BACKENDS)).records
    return {record["case"]["backend"]: record for record in found}


def readings(record):
    return {item["metric"]: item for item in record["readings"] if item["part"] in ("", "forward")}


def test_a_converted_case_is_measured_beside_the_eager_one(records):
    assert [records[name]["status"] for name in BACKENDS[:2]] == ["ok", "ok"]
    assert readings(records[OUTSIDE])["latency_ms"]["value"] > 0


def test_counts_are_those_of_the_eager_graph(records):
    eager, other = (readings(records[name]) for name in BACKENDS[:2])
    for metric in ("macs", "params", "size_bytes"):
        assert other[metric]["value"] == eager[metric]["value"] > 0


def test_artefact_and_conversion_are_readings_of_the_converted_case_alone(records):
    found = readings(records[OUTSIDE])
    assert found["artefact_bytes"]["value"] > 0 and found["artefact_bytes"]["unit"] == "B"
    assert found["conversion_ms"]["value"] > 0
    assert not {"artefact_bytes", "conversion_ms"} & set(readings(records["eager"]))
    assert METRICS["artefact_bytes"].section == "size"


def test_the_record_says_what_was_made_and_how_well_it_agrees(records):
    said = records[OUTSIDE]["conversion"]
    assert said["precision"] == "fp32" and said["versions"]["torch"] and said["traced"] is True
    assert said["agreement"]["relative_error"] <= said["agreement"]["tolerance"]
    assert records["eager"]["conversion"] == {}


def test_memory_that_torch_cannot_see_is_said_to_be_unseen(records):
    found = readings(records[OUTSIDE])
    assert found["peak_memory_bytes"]["value"] is None and "inside" in found["peak_memory_bytes"]["method_note"]
    resident = found["peak_resident_bytes"]
    assert resident["value"] is None or "eager network" in resident["method_note"]


def test_outputs_that_differ_make_the_row_invalid_with_the_number(records):
    wrong = records["tests.backends.off"]
    assert (wrong["status"], wrong["error"]["type"]) == ("invalid", "OutputsDiffer")
    assert "is off by 0.01 relative to eager's, where fp32 allows 0.0001" in wrong["error"]["message"]
    assert all(item["value"] is None for item in wrong["readings"] if item["metric"] == "latency_ms")


def test_a_misspelt_backend_is_told_before_anything_runs(tmp_path):
    with pytest.raises(UsageError, match='did you mean "onnxruntime"'):
        sweep(with_backends(tmp_path, ["onnxruntim"]))


def case(**changes):
    return Case(suite="t", model=HEALTHY, **{"backend": OUTSIDE, **changes})


def test_the_backend_is_told_apart_in_the_key_and_eager_keeps_the_older_key():
    assert case().key != case(backend="eager").key == Case(suite="t", model=HEALTHY).key


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"memory_format": "channels_last"}, "take device.memory_format=contiguous"),
        ({"cuda_graphs": True}, "take cuda_graphs=false"),
        ({"workload": "training_step"}, "take backend eager or compile"),
        ({"backend": "onnxruntime", "dtype": "bf16"}, "take fp32, fp64"),
        ({"backend": "tensorrt"}, "take device=cuda"),
    ],
)
def test_what_a_runtime_outside_torch_cannot_hold_to_is_unsupported_with_the_remedy(changes, remedy):
    with pytest.raises(NotImplementedError, match=remedy) as error:
        conversion.convert(case(**changes), torch.nn.Identity(), (torch.ones(1),), {}, None)
    assert classify(error.value) == "unsupported"


def test_a_module_that_answers_at_random_is_flagged_rather_than_blamed_on_the_backend():
    found, flags = conversion.check(case(), lambda: torch.rand(4), lambda: torch.rand(4))
    assert found is None and [item["code"] for item in flags] == ["conversion_unchecked"]


def test_the_compiler_is_flagged_where_another_runtime_is_refused():
    one = torch.ones(4)
    found, flags = conversion.check(case(backend="compile"), lambda: one, lambda: one * 1.5)
    assert found is None and [item["code"] for item in flags] == ["compiled_output"] and "0.5" in flags[0]["text"]


def test_the_time_to_build_leaves_the_conversion_out(monkeypatch):
    from bench.backends.backend import Converted
    from bench.worker import subject

    made = dataclasses.replace(
        build(Recipe(case(backend="eager"), HEALTHY)), converted=Converted(None, conversion_ms=1e9)
    )
    monkeypatch.setattr(subject, "build", lambda *_: made)
    assert subject.timed_build(Recipe(case(), HEALTHY))[1] < 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_library_measures_through_a_runtime(name):
    pytest.importorskip(name)
    module, x = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()), torch.randn(2, 8)
    wanted = ["latency_ms", "macs", "artefact_bytes"]
    frame = bench.measure(module, x, metrics=wanted, protocol="quick", backend=name).set_index("metric")
    assert frame.loc["macs", "value"] == 64 and frame.loc["latency_ms", "value"] > 0
    assert frame.loc["artefact_bytes", "value"] > 4 * 72  # 64 weights and 8 biases


def test_old_artefacts_go_when_they_are_too_many(tmp_path):
    for place, name in enumerate(("old", "middle", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(100))
        os.utime(tmp_path / name, (place, place))
    assert prune(tmp_path, limit=250) == ["old"] and prune(tmp_path, limit=250) == []
    assert prune(tmp_path / "absent") == []


def test_the_second_process_loads_what_the_first_converted(tmp_path):
    recipe = Recipe(case(), HEALTHY)
    first, second = (build(recipe, tmp_path).converted for _ in range(2))
    assert first.conversion_ms > 0 and second.conversion_ms is None
    assert first.artefact_bytes == second.artefact_bytes


def test_versions_in_a_record_are_those_of_every_extra_and_backend():
    names = package_names()
    assert {"torch", "timm", "torchao", "onnxruntime", "openvino", "executorch", "onnx-ir", "torchvision"} <= set(names)
    assert len(names) == len(set(names)) and not {"pytest", "ruff"} & set(names)
