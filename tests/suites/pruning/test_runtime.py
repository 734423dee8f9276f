"""A sparse matrix given to an outside runtime: the product is the mask's, its count is dense, its file is sparse."""

import copy

import pytest
import torch
from torch import nn

from bench.host.int8_units import int8_units
from bench.meters import macs
from suites.pruning.kernels import place, runtime
from suites.pruning.kernels.runtime import INT8_TOLERANCE, int8_by_openvino, sparse_file
from suites.pruning.layers import write_zeros
from suites.pruning.operator import sparse_linear
from suites.pruning.structures import blocks, unstructured


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


@pytest.mark.parametrize("pattern", [lambda w: unstructured(w, 0.8), lambda w: blocks(w, (16, 16), 0.75)])
def test_onnxruntime_gives_what_the_mask_gives(onnx, pattern):
    torch.manual_seed(0)
    plain, x = nn.Linear(64, 128), torch.randn(5, 64)
    found = pattern(plain.weight.detach().abs())
    write_zeros(plain, found.mask)
    with torch.no_grad():
        assert torch.allclose(place(plain, found, "runtime")(x), plain(x), atol=1e-5)


def test_a_sparse_initialiser_takes_a_value_and_a_place_for_each_weight(onnx):
    weight = torch.randn(100, 50) * (torch.rand(100, 50) > 0.9)
    count = int((weight != 0).sum())
    assert 12 * count <= len(sparse_file(weight)) <= 12 * count + 400


def test_no_product_is_left_out_and_the_count_says_so(onnx):
    layer = sparse_linear(outputs=64, inputs=32, columns=5, sparsity=0.9, kernel="runtime")
    counted = macs.count(layer, layer.example_inputs(1), second_count=False)
    assert counted.macs == 64 * 32 * 5
    assert not counted.at_least
    assert layer.product.weight_counts == {"dense": 2048, "nonzero": 205, "executed": 2048}


def test_other_weights_and_copies_get_sessions_of_their_own(onnx):
    torch.manual_seed(0)
    layer = sparse_linear(outputs=64, inputs=32, columns=5, kernel="runtime")
    (x,) = layer.example_inputs(1)
    first = layer(x)
    twin = copy.deepcopy(layer).double()
    assert torch.allclose(twin(x.double()).float(), first, atol=1e-5)
    with torch.no_grad():
        other = sparse_linear(outputs=64, inputs=32, columns=5, kernel="runtime")
    layer.load_state_dict(other.state_dict())
    assert torch.allclose(layer(x), other.definition(x), atol=1e-5)
    assert torch.allclose(twin(x.double()).float(), first, atol=1e-5)


def test_int8_of_openvino_is_the_product_within_its_rounding():
    pytest.importorskip("openvino")
    if not int8_units():
        pytest.skip("without VNNI or AMX pairs of products saturate at 16 bits: no rounding of values alone")
    torch.manual_seed(0)
    weight, x = torch.randn(64, 32) * (torch.rand(64, 32) > 0.5), torch.randn(32, 40)
    found, wanted = int8_by_openvino(weight, x, 1.0)(x), weight @ x
    assert 0 < float((found - wanted).norm() / wanted.norm()) < INT8_TOLERANCE


def test_without_amx_the_row_is_unsupported(monkeypatch):
    monkeypatch.setattr(runtime, "int8_units", lambda: ("avx512_vnni",))
    layer = sparse_linear(outputs=64, inputs=32, columns=5, kernel="runtime", runtime="openvino")
    assert layer.execution == "real-int"
    with pytest.raises(NotImplementedError, match="amx_int8"):
        layer(*layer.example_inputs(1))
