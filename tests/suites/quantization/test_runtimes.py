"""One file of int8 layers in two runtimes: whole numbers are executed, and both say what the float network says."""

import copy

import pytest
import torch

from bench import backends
from bench.backends.backend import Conditions, ConversionFailed
from bench.backends.check import kind_of, require_agreement
from bench.plan.case import Case
from bench.worker import subject
from suites.common.digits_cnn import digits_cnn
from suites.quantization.whitepaper import whitepaper

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    plain = digits_cnn(width=8, resolution=16)
    (x,) = plain.example_inputs(4)
    return plain, whitepaper(copy.deepcopy(plain), kernel="openvino", calibration_samples=16), x


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_runs_the_file_in_whole_numbers(made, name):
    pytest.importorskip(name)
    plain, file, x = made
    found = backends.module_of(name).convert(file, (x,), {}, Conditions())
    require_agreement(name, file(x), found.module(x), kind_of("fp32", file.execution))
    wanted = plain(x)
    assert float((found.module(x) - wanted).norm() / wanted.norm()) < 0.1
    assert found.details["operators"]["QuantizeLinear"] > 0 and found.artefact_bytes == file.file_bytes
    if name == "openvino":
        assert found.details["executed"]["whole numbers"] >= 4


def test_torch_does_not_run_the_file_and_says_who_does(made):
    _, file, x = made
    with pytest.raises(ConversionFailed, match=r"suite.backends=\[onnxruntime\] or \[openvino\]"):
        subject._as_asked(subject.Subject(Case("x", "y"), file, (x,), {}, {}), None)


def test_floats_through_openvino_are_said_to_be_floats():
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    plain = digits_cnn(width=8, resolution=16)
    found = backends.module_of("openvino").convert(plain, plain.example_inputs(2), {}, Conditions())
    assert found.details["executed"]["whole numbers"] == 0 and found.details["executed"]["floats"] >= 4
