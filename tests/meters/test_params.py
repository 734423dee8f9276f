"""Sizes mean something: every value once, every byte as stored, nothing saved that is only masked."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize, prune

from bench.meters import params
from bench.meters.checkpoint import safetensors_bytes
from bench.meters.inventory import ParamsError, inventory
from bench.meters.stored import Extent, covered_bytes

pytestmark = pytest.mark.filterwarnings("ignore")


def codes(count):
    return {flag["code"] for flag in count.flags}


def value(count, metric):
    (row,) = [item for item in count.readings() if item.metric == metric]
    return row


def test_a_plain_network_is_counted_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5))
    count = params.measure(net)
    assert count.total == 3 * 8 * 9 + 8 + 8 + 8 + 8 * 5 + 5 == 285
    assert (count.trainable, count.weight_bytes, count.effective_bits) == (285, 1140, 32.0)
    assert (count.buffer_elements, count.buffer_bytes) == (8 + 8 + 1, 8 * 4 + 8 * 4 + 8)
    assert count.size_bytes == 1140 + 72
    assert count.nonzero == 285 - 8  # the normalisation's biases start at zero
    assert count.by_dtype == {"float32": {"elements": 285, "bytes": 1140}}
    assert count.flags == ()


def test_frozen_parameters_are_not_trainable():
    net = nn.Linear(4, 3)
    net.bias.requires_grad_(False)
    assert (params.measure(net).total, params.measure(net).trainable) == (15, 12)


def test_half_precision_is_half_the_bytes():
    count = params.measure(nn.Linear(4, 4, bias=False).to(torch.bfloat16))
    assert (count.weight_bytes, count.effective_bits) == (32, 16.0)


def test_tied_weights_count_once_however_they_are_tied():
    one, two = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    two.weight = one.weight
    three, four = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    three.weight.data = one.weight.data
    four.weight = nn.Parameter(one.weight.detach().t())
    count = params.measure(nn.Sequential(one, two, three, four))
    assert (count.total, count.weight_bytes) == (36, 144)
    assert count.shared == {"1.weight": "0.weight", "2.weight": "0.weight", "3.weight": "0.weight"}


def test_a_module_used_twice_counts_once():
    layer = nn.Linear(3, 3)
    assert params.measure(nn.Sequential(layer, nn.ReLU(), layer)).total == 12


def test_views_of_one_flat_parameter_share_its_storage_but_not_their_bytes():
    flat = torch.randn(20)
    net = nn.Module()
    net.a, net.b = nn.Parameter(flat[:8]), nn.Parameter(flat[8:12])
    count = params.measure(net)
    assert (count.total, count.weight_bytes, count.held_bytes) == (12, 48, 80)
    assert "views_keep_storage" in codes(count)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 10)), max_size=12))
def test_covered_bytes_is_the_size_of_the_union(spans):
    extents = [Extent(storage, start, start + length) for storage, start, length in spans]
    assert covered_bytes(extents) == len({(e.storage, byte) for e in extents for byte in range(e.start, e.stop)})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans()), min_size=1, max_size=5))
def test_random_linears_match_the_closed_form(shapes):
    net = nn.ModuleList(nn.Linear(i, o, bias=b) for i, o, b in shapes)
    expected = sum(i * o + o * b for i, o, b in shapes)
    count = params.measure(net)
    assert (count.total, count.weight_bytes) == (expected, 4 * expected)
    with torch.device("meta"):
        absent = params.measure(nn.ModuleList(nn.Linear(i, o, bias=b) for i, o, b in shapes))
    assert (absent.total, absent.size_bytes) == (count.total, count.size_bytes)


# --- quantised -----------------------------------------------------------------------------------------------------


def test_dynamic_int8_linears_keep_their_values_and_shrink_their_bytes():
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10, bias=False))
    packed = torch.ao.quantization.quantize_dynamic(net)
    count = params.measure(packed)
    assert list(packed.parameters()) == []  # what a plain sum sees
    assert count.total == count.packed == 64 * 32 + 32 + 32 * 10 == 2400
    assert count.trainable == 0
    assert count.weight_bytes == 64 * 32 + 4 * 32 + 32 * 10  # int8 weights, fp32 bias
    assert count.effective_bits == pytest.approx(8 * 2496 / 2400)
    assert count.by_dtype["qint8"] == {"elements": 2368, "bytes": 2368}
    assert count.nonzero is not None and 2000 < count.nonzero <= 2400
    assert "masked_but_dense" not in codes(count)


def test_dynamic_int8_lstm_counts_every_gate():
    packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(3, 5)))
    count = params.measure(packed)
    assert count.total == 4 * 5 * 3 + 4 * 5 * 5 + 2 * 4 * 5
    assert count.weight_bytes == 60 + 100 + 4 * 40


def test_per_channel_scales_are_bytes_but_not_values():
    net: Any = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(3, 8, 3, bias=False)).eval()
    net.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    ready = torch.ao.quantization.prepare(net)
    ready(torch.randn(1, 3, 8, 8))
    count = params.measure(torch.ao.quantization.convert(ready))
    assert count.packed == 3 * 8 * 9
    assert count.weight_bytes == 3 * 8 * 9 + 8 * 8 + 8 * 8  # int8 values, float64 scales, int64 zero points


def test_four_bit_embeddings_take_half_a_byte():
    net: Any = nn.Sequential(nn.Embedding(10, 16))
    net.qconfig = torch.ao.quantization.float_qparams_weight_only_qconfig_4bit
    count = params.measure(torch.ao.quantization.convert(torch.ao.quantization.prepare(net)))
    assert count.total == 160
    assert 80 <= count.weight_bytes <= 80 + 10 * 8  # the values, and a scale and an offset per row


def test_torchao_subclasses_count_values_outside_and_bytes_inside():
    torchao = pytest.importorskip("torchao.quantization")
    net: Any = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 64))
    torchao.quantize_(net, torchao.Int8WeightOnlyConfig())
    count = params.measure(net)
    values = 128 * 64 + 64 * 64
    assert count.total == values + 128
    inner = sum(
        getattr(m.weight, n).untyped_storage().nbytes()
        for m in (net[0], net[2])
        for n in m.weight.__tensor_flatten__()[0]
    )
    assert count.weight_bytes == inner + 4 * 128
    assert values < count.weight_bytes < 1.2 * values  # not the four bytes that the wrapper's dtype suggests
    assert count.nonzero is not None
    assert count.checkpoint_bytes is not None and count.checkpoint_bytes < 3 * values


def test_integer_buffers_are_pointed_out():
    net = nn.Module()
    net.register_buffer("qweight", torch.ones(16, 16, dtype=torch.int8))
    count = params.measure(net)
    assert (count.total, count.buffer_elements, count.buffer_bytes) == (0, 256, 256)
    assert "integer_buffers" in codes(count)
    assert value(count, "effective_bits").provenance == "unavailable"


# --- pruned and sparse ---------------------------------------------------------------------------------------------


def test_masked_weights_save_nothing_and_say_so():
    net = nn.Linear(20, 10)
    prune.l1_unstructured(net, "weight", 0.9)
    count = params.measure(net)
    assert (count.total, count.weight_bytes) == (210, 840)
    assert (count.nonzero, count.zero_share) == (20 + 10, 0.9)
    assert "masked_but_dense" in codes(count)
    assert "theoretical only" in value(count, "params_nonzero").method_note
    assert count.loose_elements == 0  # the masked product is derived, not another tensor


def test_zeros_written_into_dense_weights_are_found_after_the_mask_is_gone():
    net = nn.Linear(20, 10)
    prune.random_unstructured(net, "weight", 0.5)
    prune.remove(net, "weight")
    count = params.measure(net)
    assert count.nonzero == 100 + 10
    assert "masked_but_dense" in codes(count)


def test_masks_of_parametrisations_are_applied():
    class Mask(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.tensor([[1.0, 0.0], [0.0, 1.0]]))

        def forward(self, weight):
            return weight * self.mask

    net = nn.Linear(2, 2, bias=False)
    parametrize.register_parametrization(net, "weight", Mask())
    assert params.measure(net).nonzero == 2


def test_removed_columns_are_really_gone():
    count = params.measure(nn.Linear(10, 10, bias=False))
    half = nn.Linear(10, 5, bias=False)
    assert params.measure(half).weight_bytes * 2 == count.weight_bytes
    assert params.measure(half).flags == ()


def test_sparse_weights_are_their_indices_and_values():
    dense = torch.zeros(8, 8)
    dense[0, :3] = 1.0
    net = nn.Module()
    net.weight = nn.Parameter(dense.to_sparse_csr())
    count = params.measure(net)
    assert (count.total, count.nonzero) == (64, 3)
    assert count.weight_bytes == 3 * 4 + 3 * 8 + 9 * 8  # values, column indices, row pointers
    assert "masked_but_dense" not in codes(count)


def test_untrained_zero_matrices_are_not_called_masked():
    net = nn.Linear(4, 4)
    nn.init.zeros_(net.weight)
    assert codes(params.measure(net)) == {"zero_weights"}


# --- what is not in the registry -----------------------------------------------------------------------------------


def test_tensors_outside_the_registry_are_named():
    net: Any = nn.Linear(2, 2)
    net.table, net.parts = torch.ones(5), [torch.ones(3), nn.Parameter(torch.ones(7))]
    count = params.measure(net)
    assert count.total == 6 + 7  # a parameter in a list still is one
    assert count.loose_elements == 8
    assert "loose_tensors" in codes(count)


def test_an_attribute_that_aliases_a_parameter_is_not_another_tensor():
    net = nn.Linear(2, 2)
    net.alias = net.weight.data
    assert params.measure(net).loose_elements == 0


def test_frozen_scripts_keep_their_weights_as_constants():
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU()).eval()
    scripted = torch.jit.script(net)
    assert params.measure(scripted).total == 28
    frozen = torch.jit.freeze(scripted)
    assert list(frozen.parameters()) == []
    assert params.measure(frozen).total == 28


def test_compiled_modules_count_what_they_wrap():
    compiled: Any = torch.compile(nn.Linear(3, 3))
    assert params.measure(compiled).total == 12


def test_lazy_modules_are_refused_with_a_remedy():
    with pytest.raises(ParamsError, match="run the module once"):
        params.measure(nn.LazyLinear(3))


# --- size on disk --------------------------------------------------------------------------------------------------


def test_checkpoint_bytes_are_those_of_the_file():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    row = value(params.measure(net), "checkpoint_bytes")
    assert (row.value, row.provenance) == (len(file.getvalue()), "measured")


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8,
                                        torch.bool, torch.int32, torch.int64, torch.float64]), st.lists(st.integers(0,
                                        9), max_size=3)), min_size=1, max_size=6),
)  # fmt: skip
def test_the_layout_of_safetensors_is_computed_to_the_byte(entries):
    library = pytest.importorskip("safetensors.torch")
    state = {f"layer.{i}.weight": torch.zeros(shape, dtype=dtype) for i, (dtype, shape) in enumerate(entries)}
    assert safetensors_bytes(state) == len(library.save(state))


def test_the_meta_device_gives_everything_but_values():
    with torch.device("meta"):
        net = nn.Linear(1000, 1000)
    count = params.measure(net)
    assert (count.total, count.weight_bytes, count.nonzero) == (1_001_000, 4_004_000, None)
    assert "meta device" in value(count, "params_nonzero").method_note
    row = value(count, "checkpoint_bytes")
    assert row.provenance == "counted" and 4_004_000 < row.value < 4_005_000


def test_a_state_that_cannot_be_saved_is_unavailable_with_its_reason():
    class Stubborn(nn.Linear):
        def state_dict(self, *args, **kwargs):
            raise RuntimeError("not today")

    row = value(params.measure(Stubborn(2, 2)), "checkpoint_bytes")
    assert (row.value, row.provenance) == (None, "unavailable")
    assert "not today" in row.method_note


def test_the_count_is_plain_json():
    json.dumps(params.measure(nn.Linear(2, 2)).as_dict(), allow_nan=False)


def test_counting_changes_nothing():
    net = nn.Linear(5, 5)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in net.state_dict().items()}
    params.measure(net)
    for name, tensor in net.state_dict().items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])
    assert len(inventory(net).held) == 2
