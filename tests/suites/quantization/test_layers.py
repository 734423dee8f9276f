"""Layers: whole-number products against rounded floats, packed against unpacked, learned against nearest."""

import copy
import importlib

import pytest
import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from bench.meters import macs, nominal, params
from suites.common.decoder import decoder
from suites.common.digits_cnn import digits_cnn
from suites.common.digits_resnet import digits_resnet
from suites.common.digits_vit import digits_vit
from suites.common.folding import fold_batch_norms
from suites.quantization import fp8_block
from suites.quantization.bit_scaling import (
    GroupLayer,
    Law,
    best_precision,
    best_precision_interval,
    fitted,
    rounded_groups,
    topk_divergence,
)
from suites.quantization.bitmod import BitmodLayer, grids_of
from suites.quantization.bitnet158 import TernaryLayer, activation_codes, layer_bytes, ternary
from suites.quantization.crossquant import CrossLayer, cross_step
from suites.quantization.dyadic import dyadic, rescaled
from suites.quantization.fp_diffusion import SoftRounding, formats_of, learned_rounding, searched
from suites.quantization.grids import affine_grid, float_format, float_rounded
from suites.quantization.hawqv3 import hawqv3
from suites.quantization.int16_dfp import FixedLayer, chained, fixed_point, fixed_product
from suites.quantization.integer_net import IntConvolution
from suites.quantization.layers import IntLayer
from suites.quantization.llm_fp4 import Given, _Search, _searched, candidates, channel_maxima, channel_powers
from suites.quantization.network import calibration_batches
from suites.quantization.outliers import plant
from suites.quantization.ranges import grouped, ungrouped
from suites.quantization.rounding import FloatInputs
from suites.quantization.survey import survey
from suites.quantization.torch_int8 import static_int8
from suites.quantization.whitepaper import blown_up, rounded_weight, whitepaper


def wide(layer):
    """The layer in double precision: rescaling then loses nothing."""
    return layer.double()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(
    "layer",
    [nn.Linear(12, 7), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.Conv2d(6, 4, 1, bias=False)],
    ids=str,
)
def test_whole_number_products_are_the_rounded_network(layer, static):
    layer = wide(copy.deepcopy(layer))
    x = (
        torch.randn(3, 12).double()
        if isinstance(layer, nn.Linear)
        else torch.randn(3, layer.in_channels, 9, 9).double()
    )
    grid = affine_grid(x.amin() * 0.8, x.amax(), 8) if static else None
    made = IntLayer(layer, grid)
    if static:
        seen = grid(x)
    else:
        codes, scale = made.rounded_inputs(x)
        seen = codes * scale
    twin = copy.deepcopy(layer)
    twin.weight = nn.Parameter(made.dense())
    torch.testing.assert_close(made(x), twin(seen), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", [(3, 2, 1), (5, 2, 6), (3, 1, 1), (2, 3, 1)], ids=str)
@pytest.mark.parametrize("side", [8, 9, 11])
def test_a_convolution_that_pads_by_its_input_keeps_doing_so_in_whole_numbers(settings, side):
    """timm's layer for TensorFlow's weights has padding 0 and a forward of its own: to go by the number shifts maps."""
    importlib.import_module("suites.common.timm_bridge")  # mends a torchvision that was built for another torch
    layers = pytest.importorskip("timm.layers")
    kernel, stride, groups = settings
    layer = layers.Conv2dSame(6, 6, kernel, stride, groups=groups).double()
    x = torch.randn(2, 6, side, side).double()
    grid = affine_grid(x.amin(), x.amax(), 8)
    made, twin = IntLayer(layer, grid), copy.deepcopy(layer)
    twin.weight = nn.Parameter(made.dense())
    torch.testing.assert_close(made(x), twin(grid(x)), rtol=1e-9, atol=1e-9)
    assert made(x).shape[-1] == -(-side // stride)


def test_calibration_takes_a_networks_own_inputs_and_never_those_of_its_row():
    class Net(nn.Linear):
        def example_inputs(self, batch):
            return torch.randn(batch, 3)

    net = Net(3, 2)
    torch.manual_seed(0)
    own = net.example_inputs(4)
    (seen,) = calibration_batches(net, 4, 0)
    assert len(seen) == 1 and seen[0].shape == (4, 3) and not torch.equal(seen[0], own)
    assert torch.equal(seen[0], calibration_batches(net, 4, 0)[0][0])
    pictures = calibration_batches(nn.Conv2d(3, 4, 3), 2, 0)
    assert pictures[0][0].shape == (2, 3, 224, 224)


def test_a_convolution_that_is_told_to_pad_nothing_in_a_word_does_so():
    layer = nn.Conv2d(3, 4, 3, padding="valid").double()
    x = torch.randn(2, 3, 7, 7).double()
    made = IntLayer(layer)
    codes, scale = made.rounded_inputs(x)
    wanted = nn.functional.conv2d(codes * scale, made.dense(), layer.bias)
    torch.testing.assert_close(made(x), wanted, rtol=1e-9, atol=1e-9)
    found = FixedLayer(layer.float(), 13, 0)(x.float())
    assert found.shape == wanted.shape and float((found - layer(x.float())).abs().max()) < 0.01


def test_a_channel_of_zeros_keeps_its_bias_in_whole_numbers():
    """Its weights say no scale; 0.5 over any leftover of one would not fit int32."""
    layer = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.bias.copy_(torch.tensor([0.1, 0.5, -0.2]))
    made = IntConvolution(layer, torch.tensor(0.01))
    sums = made(torch.zeros(1, 2, 2, 2, dtype=torch.int8))
    values = sums[0, :, 0, 0].double() * made.sum_scale
    torch.testing.assert_close(values, torch.tensor([0.1, 0.5, -0.2]).double(), rtol=1e-2, atol=1e-4)
    m, e = dyadic(made.sum_scale / 0.02)
    assert int(e.max()) <= 62 and int(rescaled(sums[0, 1, 0, 0], m[1], e[1])) == 25  # 0.5 in steps of 0.02


def test_a_convolution_that_mirrors_its_borders_is_refused():
    with pytest.raises(ValueError, match='padding_mode="reflect"'):
        IntLayer(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))


def test_a_dyadic_number_is_the_scale_to_31_bits():
    scale = torch.tensor([0.3, 1e-4, 0.999, 7.5], dtype=torch.float64)
    m, e = dyadic(scale)
    torch.testing.assert_close(m.double() * torch.exp2(-e.double()), scale, rtol=2**-31, atol=0)
    sums = torch.tensor([1000, -12345, 77, -3])
    torch.testing.assert_close(rescaled(sums, m, e).double(), torch.floor(sums * scale + 0.5), rtol=0, atol=1)
    small = torch.tensor([2e-11, 1e-14], dtype=torch.float64)  # shifts of 66 and 77, which int64 has not
    assert rescaled(torch.tensor([2**31 - 1, -5]), *dyadic(small)).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"up to 2\^29"):
        dyadic(torch.tensor(2.0**31))


def test_the_integer_network_holds_no_float_operator_and_follows_the_float_network():
    torch.manual_seed(0)
    plain = digits_resnet(blocks=1, width=7, resolution=13)
    (x,) = plain.example_inputs(16)
    wanted = plain(x)
    made = hawqv3(copy.deepcopy(plain), integer_only=True, samples=16)
    assert float((made(x) - wanted).norm() / wanted.norm()) < 0.05
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for part in tree_leaves((args, kwargs, out)):
                if isinstance(part, float) or (isinstance(part, torch.Tensor) and part.is_floating_point()):
                    seen.append(str(func))
            if "div" in str(func):
                seen.append(str(func))
            return out

    codes = torch.randint(-127, 128, x.shape, dtype=torch.int8)
    with Watch():
        answer = made.integers(codes)
    assert answer.dtype is torch.int32 and seen == []


def test_what_it_costs_to_quantise_is_told_and_leaving_a_network_costs_nothing():
    torch.manual_seed(0)
    plain = digits_cnn(width=8, resolution=16)
    made = whitepaper(copy.deepcopy(plain), calibration_samples=20)  # in batches of 16: two passes, 32 samples
    cost = made.method_cost
    assert (cost["forwards"], cost["backwards"], cost["samples"]) == (2, 0, 32) and 0 < cost["seconds"] < 60
    assert not made._forward_hooks and made.weight_sqnr_db == pytest.approx(whitepaper_int8(plain).weight_sqnr_db)
    for method, off in ((whitepaper, {"bits": 32, "activation_bits": 32}), (hawqv3, {"bits": "off"})):
        assert not hasattr(method(copy.deepcopy(plain), **off), "method_cost")


def whitepaper_int8(plain):
    return whitepaper(copy.deepcopy(plain), kernel="int8", calibration_samples=16)


def test_one_scale_for_all_fails_on_a_blown_up_channel_and_one_for_each_does_not():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
    x = torch.randn(2, 3, 8, 8)
    wanted = second(torch.relu(first(x)))
    blown_up(first, second, 2, 1024.0)
    torch.testing.assert_close(second(torch.relu(first(x))), wanted)
    error = {}
    for granularity in ("tensor", "channel"):
        twin = copy.deepcopy(first)
        twin.weight = nn.Parameter(rounded_weight(first.weight.detach(), 8, granularity, True))
        error[granularity] = float((second(torch.relu(twin(x))) - wanted).norm() / wanted.norm())
    assert error["channel"] < 0.01 and error["tensor"] > 0.3


def test_rounded_weights_take_no_more_than_the_floats_that_they_replace():
    torch.manual_seed(0)
    plain = digits_cnn(width=8, resolution=16)
    made = survey(copy.deepcopy(plain), bits=4, granularity="group", ranges="weight-only")
    found = params.measure(made)
    assert found.effective_bits == 32 and found.held_bytes == found.size_bytes
    assert found.size_bytes <= params.measure(plain).size_bytes


def test_torchs_own_int8_is_near_the_float_network():
    torch.manual_seed(0)
    plain = digits_resnet(blocks=1, width=8)
    (x,) = plain.example_inputs(16)
    wanted = plain(x)
    folded = copy.deepcopy(plain)
    fold_batch_norms(folded)
    made = static_int8(folded, [(x,)])
    assert isinstance(made.network, fx.GraphModule) and made.execution == "real-int"
    assert float((made(x) - wanted).norm() / wanted.norm()) < 0.1


@pytest.mark.slow
def test_onnx_runtimes_int8_is_near_the_float_network_and_counted_alike():
    torch.manual_seed(0)
    plain = digits_cnn(width=8, resolution=16)
    args = plain.example_inputs(4)
    wanted, count = plain(*args), macs.count(plain, args).value("matmul")
    made = whitepaper(copy.deepcopy(plain), kernel="onnxruntime", calibration_samples=32)
    assert made.execution == "real-int" and macs.count(made, args).value("matmul") == count
    assert float((made(*args) - wanted).norm() / wanted.norm()) < 0.1


def test_learning_under_rounding_leaves_the_rounded_network(tmp_path):
    torch.manual_seed(0)
    from suites.common.tasks.digits import Digits, Training

    task = Digits(tmp_path, 0, training=Training(steps=2, grown_steps=1))
    build = lambda: digits_cnn(width=8, resolution=16)  # noqa: E731
    task.prepare("digits_cnn", build)
    plain = build()
    task.load(plain, "digits_cnn")
    (x,) = plain.example_inputs(2)
    before = plain(x)
    made = whitepaper(plain, bits=4, training_steps=2, calibration_samples=16)
    weight = made.get_submodule("stem.0").weight
    groups = weight.detach().flatten(1)
    assert all(len(row.unique()) <= 15 for row in groups) and not torch.allclose(made(x), before)


# ---------------------------------------------------------------------------------------------- packed forms


@pytest.mark.parametrize("bits", [3, 4])
def test_bitmod_packs_what_it_says(bits):
    torch.manual_seed(0)
    layer = nn.Linear(40, 6)
    made = BitmodLayer(layer, bits, 16)
    grids = grids_of(bits).float()
    scale = (made.scales * made.row_scale[:, None])[:, :, None]
    values = grouped(made.dense(), "group", 16) / scale
    offered = grids.flatten().unique()
    full = values[:, :2]
    assert bool(((full[..., None] - offered).abs().amin(dim=-1) < 1e-5).all())
    assert made.codes.numel() == 6 * -(-40 * bits // 8) and made.scales.numel() == 18  # 40 inputs are 2.5 groups
    assert float((made.dense() - layer.weight).norm() / layer.weight.norm()) < (0.2 if bits == 3 else 0.12)


def test_nominal_bits_have_scales_in_them_and_products_have_not():
    """128 inputs, 2 outputs. BitMoD 4: 4 + 10 / 128 bits stored, 256 products of 4 by 32 bits. Groups of 64 with fp16
    scales at 3 bits: 3.25 stored, activations declared at 16. The survey's groups of 32 with fp32 scales at 4: 128 B
    + 8 x 4 B over 256, 5 bits.
    """
    plain = nn.Sequential(nn.Linear(128, 2, bias=False))
    x = torch.randn(1, 128)
    rows = {
        (4 + 10 / 128, 4, 32): BitmodLayer(plain[0], 4, 128),
        (3.25, 3, 16): GroupLayer(plain[0], 3, "int", 64, 16),
        (5.0, 4, 32): survey(copy.deepcopy(plain), bits=4, granularity="group", ranges="weight-only"),
    }
    for (stored, codes, activations), module in rows.items():
        (found,) = nominal.operations(macs.count(module, (x,)), module, "forward", 1)
        assert found.value == 256 * codes * activations
        declared = {part.nominal_bits for part in module.modules() if hasattr(part, "nominal_bits")}
        assert declared == {stored}


@pytest.mark.parametrize("pack", [4, 5])
def test_ternary_layers_agree_packed_and_unpacked_by_both_kernels(pack):
    torch.manual_seed(0)
    layer = nn.Linear(23, 9)
    x = torch.randn(4, 23)
    made = {kernel: TernaryLayer(layer, "median", pack, kernel, False) for kernel in ("int8", "float")}
    codes, scale = ternary(layer.weight.detach())
    assert torch.equal(made["int8"].trits().float(), codes)
    assert torch.equal(made["int8"](x), made["float"](x))
    seen, by = activation_codes(nn.functional.layer_norm(x, (23,)))
    torch.testing.assert_close(made["int8"](x), seen @ codes.t() / (scale * by) + layer.bias)
    assert made["int8"].codes.numel() + 4 + 36 == layer_bytes(9, 23, pack)


def test_a_vector_is_one_row():
    layer, x = nn.Linear(13, 7), torch.randn(13)
    for made in (IntLayer(layer), TernaryLayer(layer, "mean", 5, "int8", False), FixedLayer(layer, 13, 0),
                 fp8_block.Fp8Layer(layer, "block", "tile", "fp32", 4)):  # fmt: skip
        torch.testing.assert_close(made(x), made(x[None])[0], rtol=0, atol=0)


def test_weights_of_one_magnitude_are_ternary_already():
    w = 0.37 * torch.sign(torch.randn(8, 8))
    codes, scale = ternary(w)
    torch.testing.assert_close(codes / scale, w)


def test_static_crossquant_is_the_rounded_product_with_calibrated_columns():
    torch.manual_seed(0)
    layer, x = nn.Linear(10, 4).double(), torch.randn(6, 10).double()
    column = x.abs().amax(dim=0)
    made = CrossLayer(layer, 0.15, column).double()
    step = cross_step(x, 0.15, 8, column)
    seen = torch.round(x / step) * step
    exact = seen @ layer.weight.t() + layer.bias
    assert float((made(x) - exact).norm() / exact.norm()) < 0.01  # what is left is the rounding of the weights


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_packed_groups_agree_with_their_rounded_floats(bits):
    torch.manual_seed(0)
    layer = nn.Linear(50, 3)
    made = GroupLayer(layer, bits, "int", 16, 16)
    wanted = ungrouped(
        rounded_groups(grouped(layer.weight.detach(), "group", 16), bits, "int"), layer.weight, "group", 16
    )
    step = made.scales.float().max()  # a scale in fp16 may move a code by one
    assert float((made.dense() - wanted).abs().max()) <= 1.01 * float(step)
    assert float((made.dense() - wanted).abs().mean()) < 0.05 * float(step)
    assert made.codes.numel() == 3 * -(-50 * bits // 8) and made.scales.dtype is torch.float16


# ---------------------------------------------------------------------------------------------- FP8 in blocks


def test_scales_of_powers_of_two_are_never_below_the_largest():
    """0.875 (1 + 2^-23 ..) / 448 is 2^-9 (1 + 2^-23), whose logarithm in fp32 is -9: the scale is 2^-8 all the same."""
    above = torch.full((1, 128), 0.875 + 2**-23)
    assert fp8_block.encoded(above, "tile", "ue8m0")[1].tolist() == [[2**-8]]
    assert fp8_block.encoded(torch.full((1, 128), 0.875), "tile", "ue8m0")[1].tolist() == [[2**-9]]
    exponents = torch.arange(-100, 101)
    powers = torch.tensor([2.0**each for each in exponents.tolist()])
    assert torch.equal(fp8_block.power_of_two_above(powers), powers)
    assert torch.equal(fp8_block.power_of_two_above(powers * 1.0000001), 2 * powers)
    assert fp8_block.power_of_two_above(torch.ones(2, device="meta")).is_meta


def test_fp8_blocks_hold_what_their_format_says():
    ramp = (torch.arange(1, 129) / 16).reshape(1, 128)
    error = (fp8_block.rounded(ramp, "tile").double() - ramp).square().sum()
    assert float(error) == pytest.approx(1.781489, abs=5e-6)
    equal = torch.full((130, 130), 0.7)
    torch.testing.assert_close(fp8_block.rounded(equal, "block"), equal)
    x = torch.randn(256, 200)
    codes, scales = fp8_block.encoded(x, "block")
    double, twice = fp8_block.encoded(4 * x, "block")
    assert torch.equal(codes.view(torch.uint8), double.view(torch.uint8)) and torch.equal(4 * scales, twice)
    assert scales.shape == (2, 2) and fp8_block.encoded(torch.randn(576, 128), "block")[1].shape == (5, 1)
    _, rounded_up = fp8_block.encoded(x, "block", "ue8m0")
    assert bool((rounded_up >= scales).all()) and torch.equal(torch.log2(rounded_up), torch.log2(rounded_up).round())
    torch.testing.assert_close(fp8_block.rounded(x, "block", size=1), x)


def test_promoted_sums_are_one_long_sum_of_the_codes():
    torch.manual_seed(0)
    x, w = torch.randn(5, 300), torch.randn(140, 300)
    a, sa = fp8_block.encoded(x, "tile")
    b, sb = fp8_block.encoded(w, "block")
    wanted = fp8_block.decoded(a, sa, "tile").double() @ fp8_block.decoded(b, sb, "block").double().t()
    made = fp8_block.promoted_product(a, b, sa, sb)
    torch.testing.assert_close(made.double(), wanted, rtol=1e-5, atol=1e-4)
    short = fp8_block.promoted_product(a, b, sa, sb, "fp16-like")
    assert 1e-5 < float((short - wanted).norm() / wanted.norm()) < 1e-2


def test_finer_scales_matter_only_beyond_the_range_of_the_format():
    torch.manual_seed(0)
    x = torch.randn(64, 512)
    others = torch.ones(512, dtype=torch.bool)
    others[7] = False

    def of_others(scale, granularity):
        y = x.clone()
        y[:, 7] *= scale
        rest = (fp8_block.rounded(y, granularity) - y)[:, others]
        return 10 * torch.log10(x[:, others].square().sum() / rest.square().sum())

    assert abs(of_others(1e3, "tensor") - of_others(1.0, "tensor")) < 0.5
    assert of_others(1e5, "tensor") < 12 and of_others(1e5, "tile") > 20


# ---------------------------------------------------------------------------------------------- fixed point


def test_fixed_point_products_are_exact_sums_of_whole_numbers():
    torch.manual_seed(0)
    a, b = torch.randn(6, 70), torch.randn(70, 5)
    (x, ex), (y, ey) = fixed_point(a.double(), 13), fixed_point(b.double(), 13)
    whole = x.to(torch.int64) @ y.to(torch.int64)
    made = fixed_product(a, b, 13)
    torch.testing.assert_close(made, torch.ldexp(whole.double(), ex + ey).float(), rtol=1e-6, atol=1e-6)
    step = torch.exp2(ex.double())
    assert float((torch.ldexp(x, ex) - a).abs().max()) <= float(step) / 2 + 1e-12
    torch.testing.assert_close(fixed_product(a, b, 13, chain=1), made, rtol=1e-5, atol=1e-5)


def test_an_int32_that_is_not_flushed_overflows():
    worst = torch.full((1, 3), 32_767.0, dtype=torch.float64)
    right = worst.t().clone()
    assert float(chained(worst, right, 2)) == pytest.approx(3 * 32_767**2)
    assert float(chained(worst, right, 3)) < 0


# ---------------------------------------------------------------------------------------------- searches


def test_folding_powers_of_two_leaves_the_product_exactly():
    torch.manual_seed(0)
    largest = torch.tensor([8.0, 1.0, 0.3, 70.0])
    form = float_format("e2m1")
    powers = channel_powers(largest, form)
    assert int(powers.min()) == 0 and int(powers.max()) <= 3 and powers[3] == 0
    x, w = torch.randn(5, 4), torch.randn(3, 4)
    factor = torch.exp2(powers)
    assert torch.equal((x * factor) @ (w / factor).t(), x @ w.t())
    found = candidates(torch.tensor(2.0))
    assert len(found) == 101 and float(found[0]) == pytest.approx(0.02) and float(found[-1]) == pytest.approx(2.4)


def test_a_layers_weight_has_one_format_whatever_its_channels_would_like():
    """Sevenths are a whole-number grid (E1M2), powers of two an E3M0 one: each channel could be had to a hundredth, and
    one format cannot have both.
    """
    layer = nn.Linear(8, 2, bias=False)
    with torch.no_grad():
        layer.weight[0] = torch.arange(8) / 7
        layer.weight[1] = torch.tensor([*(2.0**-i for i in range(7)), 0.0])
    search = _Search(layer, Given(torch.eye(8), torch.ones(8)), True, (4, 4), (101, 1))
    with torch.no_grad():
        made = search._best_weight(torch.eye(8))
        alone = [search._best_ranges(torch.eye(8), form)[1] for form in search.forms_w]
    apart = lambda w: (w - layer.weight).norm(dim=1) / layer.weight.norm(dim=1)  # noqa: E731
    assert float(torch.stack([apart(w) for w in alone]).amin(dim=0).max()) < 0.02
    assert float(apart(made).max()) > 0.05 and any(torch.equal(made, w) for w in alone)


@pytest.mark.parametrize("variant", ["minmax_int4", "minmax_fp4"])
def test_min_max_is_of_all_inputs_and_not_of_the_rows_that_errors_are_taken_on(variant):
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 4), torch.randn(64, 8)
    x[60, 3] = -50.0
    most = channel_maxima(layer, x)
    assert torch.equal(most, x.abs().amax(dim=0)) and float(most[3]) == 50.0
    inputs, _ = _searched(layer, Given(x[:4], most), variant, (4, 4), (3, 1))
    assert float(inputs.largest) == 50.0
    pictures = torch.randn(2, 3, 5, 5)
    assert torch.equal(channel_maxima(nn.Conv2d(3, 2, 3), pictures), pictures.abs().amax(dim=(0, 2, 3)))


def test_channel_powers_are_of_all_inputs():
    """Channel 0 reaches 16 in a row that is not among those of the search, the others 1: four powers of two more."""
    torch.manual_seed(1)
    layer, x = nn.Linear(4, 4), torch.rand(64, 4) * 2 - 1
    x[0] = 1.0
    x[60, 0] = 16.0
    inputs, _ = _searched(layer, Given(x[:16], channel_maxima(layer, x)), "fpq", (4, 8), (11, 1))
    assert isinstance(inputs, FloatInputs)
    ranges = inputs.largest / inputs.largest.max()
    # an E of 1 bit holds one power of two, of 2 bits three, of more all four
    allowed = 2.0 ** -min(4, 2**inputs.form.exponent - 1)
    assert float(ranges[0]) == 1.0 and ranges[1:].tolist() == [allowed] * 3


def test_learned_rounding_starts_at_the_weight_and_is_never_worse_than_the_nearest():
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 8), torch.randn(64, 16)
    form, largest = searched(layer.weight.detach(), 4)
    assert form in formats_of(4)
    soft = SoftRounding(layer.weight.detach(), form, largest)
    inside = layer.weight.detach().abs() <= largest
    torch.testing.assert_close(soft.weight(soft.height())[inside], layer.weight.detach()[inside], rtol=1e-2, atol=2e-4)
    nearest = float_rounded(layer.weight.detach(), form, largest)
    made = learned_rounding(layer, x, None, form, largest, 60)
    wanted = layer(x)
    error = lambda w: float((nn.functional.linear(x, w, layer.bias) - wanted).square().sum())  # noqa: E731
    assert error(made) <= error(nearest) and error(made) < error(nearest) * 0.999


def test_planted_outliers_leave_the_function():
    torch.manual_seed(0)
    for model in (decoder(width=16, layers=1, heads=2, hidden=24), digits_vit(width=16, heads=2, depth=1)):
        args = model.example_inputs(2)
        wanted = model(*args)
        plant(model, 2, 64.0)
        torch.testing.assert_close(model(*args), wanted, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------- laws


def test_a_law_is_found_again_and_tells_the_best_width():
    bits = [1e4, 3e4, 1e5, 4e5]
    law = Law(1.5, 40.0, 0.4)
    found = fitted(bits, [law.at(each) for each in bits])
    assert found.floor == pytest.approx(1.5, abs=1e-2) and found.power == pytest.approx(0.4, abs=1e-2)
    laws = {4: Law(1.0, 10.0, 0.3), 16: Law(0.9, 30.0, 0.3)}
    assert best_precision(laws, 1e4) == 4 and best_precision(laws, 1e12) == 16
    with pytest.raises(ValueError, match="three different sizes"):
        fitted([1.0, 2.0], [1.0, 2.0])


def test_a_best_width_comes_with_how_often_it_wins():
    laws = {4: Law(1.0, 10.0, 0.3), 16: Law(0.9, 30.0, 0.3)}
    sizes = (1e4, 3e4, 1e5, 4e5)
    points = {width: [(bits, law.at(bits)) for bits in sizes] for width, law in laws.items()}
    assert best_precision_interval(points, 1e4, draws=5) == {4: 1.0, 16: 0.0}


def test_topk_divergence_is_forward_on_top_and_reverse_on_the_rest():
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.3, 0.2]])
    wanted = 0.7 * torch.tensor(0.7 / 0.5).log() + 0.3 * torch.tensor(0.3 / 0.2).log() + 0.2 * torch.tensor(2.0).log()
    torch.testing.assert_close(topk_divergence(q.log(), p.log(), 1), wanted)
    assert float(topk_divergence(p.log(), p.log(), 2)) == pytest.approx(0, abs=1e-7)
