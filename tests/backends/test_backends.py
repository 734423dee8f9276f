"""The table of backends, what they need, and the way through a file, with a backend that is not in the package."""

import dataclasses
import importlib.util
import json

import pytest
import torch

from bench import backends
from bench.backends import exporting
from bench.backends.backend import Backend, BackendMissing, Conditions, ConversionFailed, failed, operators_in
from bench.backends.check import require_agreement
from bench.errors import UsageError
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker.child import classify
from bench.worker.subject import build
from tests.backends import networks, outside

OUTSIDE = "tests.backends.outside"


@pytest.fixture
def says(monkeypatch):
    monkeypatch.setattr(outside, "SAYS", {})
    return outside.SAYS


def by(backend, made, conditions=None):
    module, args = made
    conditions = conditions or Conditions()
    return backends.require(backend, conditions).convert(module, args, {}, conditions)


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_every_backend_of_the_table_has_its_own_name_and_says_what_it_needs_without_its_library(name):
    backend = backends.find(name)
    assert backend.name == name and backend.title and backend.dtypes
    assert not backend.needs or backend.extra


def test_a_misspelt_backend_gets_the_nearest_name():
    with pytest.raises(UsageError, match='did you mean "onnxruntime"'):
        backends.find("onnxruntme")


def test_a_module_that_is_no_backend_is_refused():
    with pytest.raises(UsageError, match="has no BACKEND"):
        backends.find("tests.backends.networks")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("onnxruntime", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("executorch", "executorch", "executorch"),
    ],
)
def test_an_absent_library_gives_the_reason_and_the_extra_that_brings_it(monkeypatch, name, package, extra):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == package else real(wanted))
    with pytest.raises(BackendMissing, match=rf'needs .*{package}.*pip install "waterline-bench\[{extra}\]"') as error:
        backends.require(name, Conditions())
    assert classify(error.value) == "unsupported"


def test_the_extras_that_remedies_name_are_declared_and_bring_what_is_imported():
    import tomllib
    from pathlib import Path

    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in backends.BACKENDS:
        backend = backends.find(name)
        brought = " ".join(extras[backend.extra]).replace("-", "_") if backend.extra else ""
        assert all(package in brought for package in backend.needs), name


def test_the_wrong_device_and_the_wrong_type_are_told_with_what_fits():
    assert "take device=cuda" in backends.why_not("tensorrt", "cpu", "fp32")
    assert "does not compute in bf16 on cpu" in backends.why_not("onnxruntime", "cpu", "bf16")
    assert "take fp32, fp64" in backends.why_not("onnxruntime", "cpu", "fp16")
    assert "double precision" in backends.why_not("openvino", "cpu", "fp64")
    assert backends.why_not("eager", "cuda:1", "bf16") == ""


# --- what a tool says when it fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("No ONNX function found for <OpOverload(op='aten._linalg_eigh', overload='default')>.", ["aten._linalg_eigh"]),
        (
            "-- No conversion rule found for operations: aten.a.default, b.c.default\n",
            ["aten.a.default", "b.c.default"],
        ),
        ("Could not find an implementation for Conv(11) node with name 'node_conv2d'", ["Conv"]),
        ("Missing out variants: {'waterline::odd'}", ["waterline::odd"]),
        ("Operator torch._ops.waterline.odd.default is not Aten Canonical.", ["waterline.odd.default"]),
        ("the disk is full", []),
    ],
)
def test_the_operator_is_read_from_each_tools_words(text, names):
    assert operators_in(text) == names


def test_an_operator_that_only_the_cause_names_is_found():
    try:
        try:
            raise RuntimeError("No ONNX function found for <OpOverload(op='aten.x', overload='y')>")
        except RuntimeError as cause:
            raise RuntimeError("Failed to convert") from cause
    except RuntimeError as error:
        assert "operator aten.x" in str(failed("toy", "conversion", error))


# --- through a file --------------------------------------------------------------------------------------------------


def test_a_backend_from_outside_the_package_runs_a_case_by_its_dotted_path(says):
    case = Case(suite="t", model="m", backend=OUTSIDE)
    subject = build(Recipe(case, "tests.faults.models:healthy"))
    with torch.inference_mode():
        require_agreement(OUTSIDE, subject.eager(*subject.args), subject.module(*subject.args), "fp32")
    assert subject.converted.details["traced"] and subject.counted is subject.eager


def test_the_artefact_is_as_large_as_its_files_and_is_loaded_the_next_time(says, tmp_path):
    made, conditions = networks.linear(), Conditions(folder=tmp_path / "a")
    first = by(OUTSIDE, made, conditions)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "a" / exporting.ARTEFACT).rglob("*") if path.is_file())
    assert first.artefact_bytes == on_disk > 4 * (16 * 4 + 4) and first.conversion_ms > 0
    second = by(OUTSIDE, made, conditions)
    assert (second.artefact_bytes, second.conversion_ms) == (on_disk, None) and "earlier process" in second.why_no_time


def test_a_file_that_answers_for_other_weights_is_not_used(says, tmp_path):
    conditions, (module, args) = Conditions(folder=tmp_path / "a"), networks.linear()
    by(OUTSIDE, (module, args), conditions)
    with torch.no_grad():
        module.weight.add_(1.0)
    again = by(OUTSIDE, (module, args), conditions)
    assert again.conversion_ms is not None
    require_agreement(OUTSIDE, module(*args), again.module(*args), "fp32")


def test_a_conversion_that_broke_off_leaves_nothing_to_load(says, tmp_path, monkeypatch):
    conditions = Conditions(folder=tmp_path / "a")
    with monkeypatch.context() as broken, pytest.raises(ConversionFailed):
        broken.setattr(json, "dumps", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        try:
            by(OUTSIDE, networks.linear(), conditions)
        except OSError as error:
            raise ConversionFailed from error
    assert not (tmp_path / "a").exists()
    assert by(OUTSIDE, networks.linear(), conditions).conversion_ms is not None


def test_other_batch_sizes_are_converted_when_they_come_and_the_timed_one_stays(says):
    module, args = networks.convnet()
    through = by(OUTSIDE, (module, args)).module
    with torch.inference_mode():
        for batch in (5, 3, 5, 4, 2):
            x = torch.randn(batch, 3, 16, 16)
            require_agreement(OUTSIDE, module(x), through(x), "fp32")
    assert through.conversions == 3  # 5, 3 and 4; 2 was there from the start


def test_structures_pass_through_and_another_constant_is_another_conversion(says):
    torch.manual_seed(0)
    module, x = networks.Nested().eval(), torch.randn(2, 8)
    args, kwargs = (x, [torch.randn(2, 8), torch.ones(3)]), {"scale": 2.0}
    through = backends.module_of(OUTSIDE).convert(module, args, kwargs, Conditions()).module
    found = through(*args, **kwargs)
    assert type(found) is networks.Answer and found.name == "answer" and type(found.rest["pair"]) is networks.Pair
    require_agreement(OUTSIDE, module(*args, **kwargs), found, "fp32")
    require_agreement(OUTSIDE, module(*args, scale=3.0), through(*args, scale=3.0), "fp32")
    assert through.conversions == 1


def test_a_runtime_that_computes_in_another_type_is_refused_with_both_types(says):
    says["precision"] = "bf16"
    with pytest.raises(ConversionFailed, match="computes in bf16 on this machine where the case asks for fp32"):
        by(OUTSIDE, networks.linear())


def test_a_runtime_that_takes_another_number_of_threads_is_refused(says):
    says["threads"] = 7
    with pytest.raises(ConversionFailed, match=r"takes 7 threads .* asks for 2; set device.threads=7"):
        by(OUTSIDE, networks.linear(), Conditions(threads=2))


def test_control_flow_that_depends_on_data_is_told_with_the_operator():
    with pytest.raises(ConversionFailed, match=r"operator aten\.item; torch\.export said"):
        by(OUTSIDE, (networks.Branching().eval(), (torch.ones(3),)))


def test_memory_that_runs_out_is_no_refusal(monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(MemoryError):
        exporting.converted(
            exporting.Way(Backend("toy", "Toy", {"cpu": ("fp32",)}), full, full), *networks.linear(), {}, Conditions()
        )


def test_the_compiler_is_a_backend_too():
    backend = backends.module_of("compile")
    made = backend.convert(*networks.linear(), {}, Conditions())
    assert made.module is not None and made.artefact_bytes is None and "no file to ship" in made.why_no_artefact
    assert dataclasses.asdict(made)["conversion_ms"] is None and "compile_ms" in made.why_no_time
