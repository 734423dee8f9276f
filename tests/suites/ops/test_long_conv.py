"""Long convolutions: every form is the definition, forward and backward; identities, causality and counts."""

import sys
from types import ModuleType

import pytest
import torch

from bench.meters import macs
from suites.ops import long_conv as file
from suites.ops import monarch
from suites.ops.butterfly import LearnedTransform, complex_parameters, powers_to
from suites.ops.kernels import long_conv_layer, long_kernel, sgconv_layer
from suites.ops.long_conv import long_conv
from suites.ops.long_conv_costs import direct_macs, least_bytes, monarch_macs
from suites.ops.long_layer import LongKernel, LongLayer, layer_parameters, smoothed, soft_threshold
from suites.ops.packed import Packed, frequencies
from suites.ops.sequence_net import sequence_net
from suites.ops.sgconv import MultiscaleKernel, SGLayer, kernel_parameters, scales_for
from suites.ops.sgconv import layer_parameters as sg_parameters
from tests.suites.ops.agree import apart

FORMS = [
    {}, {"form": "monarch"}, {"form": "monarch", "factors": [5, 3, 7]}, {"form": "direct"}, {"form": "partial"},
    {"form": "partial", "taps": 7, "block": 5}, {"form": "sparse"},
    {"form": "sparse", "factors": [6, 5, 4], "kept": [4, 5, 2]},
    {"form": "monarch", "gated": True, "skip": True}, {"form": "direct", "taps": 4}, {"form": "fft_half"},
]  # fmt: skip


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_every_form_is_its_definition(settings, backward):
    operator = long_conv(length=51, width=3, backward=backward, **settings)
    assert apart(operator) < 1e-6 and apart(operator, checked=True) < 1e-6


@pytest.mark.parametrize("form", ["fft", "monarch"])
def test_a_kept_spectrum_gives_the_same_and_follows_the_kernel(form):
    fresh, kept = long_conv(form=form, length=32, width=2), long_conv(form=form, length=32, width=2, cached=True)
    kept.load_state_dict(fresh.state_dict())
    (u,) = fresh.example_inputs(1)
    for scale in (1.0, 2.0):
        with torch.no_grad():
            fresh.weight.mul_(scale)
            kept.weight.mul_(scale)
        torch.testing.assert_close(kept(u), fresh(u))


@pytest.mark.parametrize("settings", [{"form": "partial"}, {"form": "sparse"}, {"form": "monarch"}], ids=str)
def test_with_nothing_removed_it_is_the_fft(settings):
    exact, other = long_conv(length=40, width=3), long_conv(length=40, width=3, **settings)
    other.load_state_dict(exact.state_dict())
    (u,) = exact.example_inputs(2)
    torch.testing.assert_close(other(u), exact(u), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["fft", "monarch", "direct", "partial"])
def test_impulse_and_shift_kernels(form):
    operator = long_conv(form=form, length=16, width=2)
    (u,) = operator.example_inputs(1)
    for shift in (0, 3):
        with torch.no_grad():
            operator.weight.zero_()
            operator.weight[:, shift] = 1.0
        torch.testing.assert_close(operator(u), torch.nn.functional.pad(u, (shift, 0))[..., :16], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["fft", "monarch", "direct", "partial"])
def test_the_future_does_not_reach_the_past(form):
    operator = long_conv(form=form, length=24, width=2)
    (u,) = operator.example_inputs(1)
    later = u.clone()
    later[..., 15:] += 5.0
    torch.testing.assert_close(operator(later)[..., :15], operator(u)[..., :15], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(operator(later)[..., 15:], operator(u)[..., 15:], atol=0.1)


def test_gates_of_ones_are_no_gates():
    plain, gated = long_conv(length=20, width=2), long_conv(length=20, width=2, gated=True)
    gated.load_state_dict(plain.state_dict())
    (u,) = plain.example_inputs(1)
    torch.testing.assert_close(gated(u, torch.ones_like(u), torch.ones_like(u)), plain(u))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_matrix_products_in_half_precision_stay_within_their_tolerance(dtype):
    operator = long_conv(form="monarch", length=1024, width=4).to(dtype)
    args = tuple(x.to(dtype) for x in operator.example_inputs(1))
    expected = operator.reference(*args)
    distance = float((operator(*args).double() - expected).norm() / expected.norm())
    assert operator(*args).isfinite().all() and distance < operator.tolerance <= 2e-2


@pytest.mark.parametrize(
    "size, factors, batch, width, expected",
    [
        (256, [16, 16], 1, 1, 98_304), (256, [16, 16], 4, 64, 18_874_368), (4096, [16, 16, 16], 1, 1, 2_359_296),
        (4096, [16, 16, 16], 4, 64, 452_984_832),
    ],
)  # fmt: skip
def test_products_of_the_check_cases_by_closed_form_and_by_trace(size, factors, batch, width, expected):
    assert monarch_macs(factors, batch, width) == expected
    with torch.device("meta"):
        operator = long_conv(form="monarch", length=size // 2, width=width, factors=factors)
        args = operator.example_inputs(batch)
    counted = macs.count(operator, args, second_count=False, inspect_values=False)
    assert counted.macs == expected
    assert operator.declares(*args)["pointwise_macs"] == 4 * size * batch * width


def test_costs_of_the_definition_and_of_transforms():
    assert direct_macs(4, 2, 3) == 10 * 6
    assert least_bytes(8, 2, 3) == 5 * 3 * 8 * 4
    told = long_conv(length=512, width=2).declares(torch.zeros(3, 2, 512))
    assert told["fourier_operations"] == 2.5 * 1024 * 10 * (2 * 6 + 2)  # both ways for six rows, once for two kernels
    assert told["pointwise_macs"] == 4 * 513 * 6


def test_a_transform_that_would_wrap_is_refused_and_what_cannot_run_says_why():
    with pytest.raises(ValueError, match="wraps into the beginning"):
        long_conv(form="monarch", length=33, factors=[8, 8])
    with pytest.raises(NotImplementedError, match="device=cuda"):
        long_conv(form="monarch_fused")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_transforms_without_a_gpu_are_not_supported_and_never_in_fp32_instead(dtype):
    operator = long_conv(form="fft_half", length=16, width=2).to(dtype)
    with pytest.raises(NotImplementedError, match="take form='fft'"):
        operator(*(x.to(dtype) for x in operator.example_inputs(1)))


def test_the_package_is_made_for_the_dtype_of_the_row_and_takes_the_gates(monkeypatch):
    """A stand-in for FlashFFTConv with its own signature: (u, k, pregate, postgate), gates both or none."""
    made = []

    class StandIn(torch.nn.Module):
        def __init__(self, size, dtype):
            super().__init__()
            made.append((size, dtype))

        def forward(self, u, k, pregate=None, postgate=None):
            assert (pregate is None) == (postgate is None) and k.dtype is torch.float32
            made.append(pregate is not None)
            return u if pregate is None else pregate * u * postgate

    package = ModuleType("flashfftconv")
    package.FlashFFTConv = StandIn
    monkeypatch.setitem(sys.modules, "flashfftconv", package)
    monkeypatch.setattr(file, "find_spec", lambda name: package)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for dtype in (torch.float16, torch.bfloat16):
        for gated in (False, True):
            operator = long_conv(form="monarch_fused", length=16, width=2, gated=gated).to(dtype)
            operator(*(torch.ones(1, 2, 16, dtype=dtype) for _ in range(3 if gated else 1)))
    both = [[(32, dtype), False, (32, dtype), True] for dtype in (torch.float16, torch.bfloat16)]
    assert made == both[0] + both[1]
    with pytest.raises(NotImplementedError, match="fp16 and bf16"):
        long_conv(form="monarch_fused", length=16, width=2)(torch.ones(1, 2, 16))


def test_a_thinned_spectrum_takes_away_the_products_of_what_is_not_kept():
    """2048 points in 8 x 16 x 16 of which 8 x 8 x 8 stay: 4 (8 8 256 + 8 16 8 16 + 64 16 8) = 163,840 of 327,680."""
    assert monarch.macs((8, 16, 16)) == 327_680 and monarch.macs((8, 16, 16), (8, 8, 8)) == 163_840
    with torch.device("meta"):
        operator = long_conv(form="sparse", length=1024, width=4, factors=[8, 16, 16], kept=[8, 8, 8])
        args = operator.example_inputs(3)
    counted = macs.count(operator, args, second_count=False, inspect_values=False).macs
    assert counted == 163_840 * (2 * 3 * 4 + 4)


def test_what_autograd_keeps_is_told_with_gradients():
    told = long_conv(length=64, width=2, backward=True).declares(torch.randn(1, 2, 64))
    assert told["saved_activation_bytes"] > 0


# ---------------------------------------------------------------- learned kernels and transforms
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"two_sided": True, "channels": 2}, {"transform": "monarch", "smoothing": "time"},
     {"transform": "learned", "smoothing": "frequency"}],
    ids=str,
)  # fmt: skip
def test_a_long_layer_is_its_definition(settings, backward):
    assert apart(long_conv_layer(width=3, length=20, backward=backward, **settings)) < 1e-5


def test_learned_transforms_start_as_fourier_transforms_and_have_the_stated_parameters():
    torch.manual_seed(0)
    u, kernel = torch.randn(2, 3, 16), torch.randn(2, 3, 32)
    transform = LearnedTransform((2, 4, 4), 3)
    expected = torch.fft.irfft(torch.fft.rfft(u, n=32)[:, None] * torch.fft.rfft(kernel, n=32), n=32)[..., :16]
    torch.testing.assert_close(transform.convolved(u[:, None], kernel), expected, rtol=1e-4, atol=1e-4)
    assert complex_parameters(8, 5) == 5 * (4 + 16 + 64)
    assert sum(p.numel() for p in LearnedTransform(powers_to(8), 5).parameters()) == 2 * complex_parameters(8, 5)
    with pytest.raises(ValueError, match="power of two"):
        powers_to(12)


def test_parameters_of_a_two_sided_layer_are_those_of_the_check_case():
    layer = LongLayer(128, 1024, 2, LongKernel(2, 128, 2048, 0.1, "none"))
    assert sum(p.numel() for p in layer.parameters()) == layer_parameters(128, 1024, 2, two_sided=True) == 590_336


def test_the_threshold_squashes_and_the_average_smooths():
    kernel = torch.tensor([[[-0.3, 0.05, 0.2]]])
    torch.testing.assert_close(soft_threshold(kernel, 0.1), torch.tensor([[[-0.2, 0.0, 0.1]]]))
    zeros = (soft_threshold(torch.randn(1, 4, 1000) * 0.002, 0.002) == 0).float().mean()
    assert abs(float(zeros) - 0.683) < 0.03  # a normal number is within one deviation
    impulse = torch.zeros(1, 1, 15)
    impulse[..., 7] = 7.0
    assert smoothed(impulse, "time")[0, 0].tolist() == pytest.approx([0.0] * 4 + [1.0] * 7 + [0.0] * 4)
    assert smoothed(torch.ones(1, 1, 16), "frequency").sub(1).abs().max() < 1e-5  # a constant has no fast changes


def test_a_two_sided_layer_sees_what_is_ahead_and_a_causal_one_does_not():
    for two_sided in (False, True):
        torch.manual_seed(0)
        operator = long_conv_layer(width=2, length=16, two_sided=two_sided, threshold=0.0)
        (u,) = operator.example_inputs(1)
        later = u.clone()
        later[..., 12:] += 100.0
        assert torch.allclose(operator(later)[..., :12], operator(u)[..., :12], atol=1e-4) is not two_sided


# ---------------------------------------------------------------- SGConv
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"two_sided": True, "channels": 2}, {"kernel": "full"}, {"kernel": "s4d"}], ids=str
)
def test_sgconv_and_its_baselines_are_their_definitions(settings, backward):
    assert apart(sgconv_layer(width=3, length=50, size=8, backward=backward, **settings)) < 1e-4
    assert apart(long_kernel(width=3, length=50, size=8, backward=backward, **settings)) < 1e-4


def test_counts_of_the_check_case():
    assert scales_for(1_000_000, 32) == 16
    assert kernel_parameters(256, 1_000_000, 32, two_sided=True) == 262_144
    assert sg_parameters(256, 1_000_000, 32, two_sided=True) == 328_192
    with torch.device("meta"):
        layer = SGLayer(256, 1000, MultiscaleKernel(1, 256, 1000, 32, two_sided=True))
    assert sum(p.numel() for p in layer.parameters()) == sg_parameters(256, 1000, 32, two_sided=True)


def test_doubling_the_length_adds_one_piece():
    for length in (64, 128, 4096):
        assert kernel_parameters(3, 2 * length, 64) - kernel_parameters(3, length, 64) == 64 * 3


def test_pieces_are_stretched_twice_as_far_and_half_as_strong():
    kernel = MultiscaleKernel(1, 1, 32, 8)
    with torch.no_grad():
        for piece in kernel.pieces:
            piece.fill_(1.0)
    assert kernel.taps == 32
    assert kernel.raw()[0, 0].tolist() == [4.0] * 8 + [2.0] * 8 + [1.0] * 16


def test_the_norm_is_that_of_the_first_use():
    kernel = MultiscaleKernel(1, 2, 20, 8)
    torch.testing.assert_close(kernel().norm(dim=-1), torch.ones(1, 2))
    with torch.no_grad():
        for piece in kernel.pieces:
            piece.mul_(3.0)
    torch.testing.assert_close(kernel().norm(dim=-1), torch.full((1, 2), 3.0))
    other = MultiscaleKernel(1, 2, 20, 8)
    other.load_state_dict(kernel.state_dict())
    torch.testing.assert_close(other(), kernel())


def test_one_piece_that_is_long_enough_is_a_plain_kernel():
    kernel = MultiscaleKernel(1, 2, 16, 16)
    assert scales_for(16, 16) == 1
    torch.testing.assert_close(kernel.raw(), kernel.pieces[0])


def test_every_kernel_makes_a_classifier():
    for kernel in ("long", "full", "multiscale", "s4d"):
        net = sequence_net(kernel=kernel, width=8, resolution=4, size=4)
        assert net(*net.example_inputs(2)).shape == (2, 10)


@pytest.mark.parametrize(
    "size, factors", [(512, (16, 16)), (2048, (32, 32)), (24, (3, 4)), (24, (4, 3)), (16, (2, 2, 2))]
)
def test_a_packed_transform_is_the_transform_of_real_numbers(size, factors):
    x = torch.randn(3, size, dtype=torch.float64)
    packed = Packed(monarch.Transform(factors, x), x)
    spectrum = packed.forward(x)
    found = torch.complex(*spectrum.unbind(-2))
    wanted = torch.fft.rfft(x) * (size / 2) ** -0.5
    assert torch.allclose(found[:, :-1], wanted[:, frequencies(factors)], atol=1e-12)
    assert torch.allclose(found[:, -1], wanted[:, -1], atol=1e-12)
    assert torch.allclose(packed.inverse(spectrum), x, atol=1e-12)


@pytest.mark.parametrize("length", [256, 1024])
def test_a_packed_convolution_is_the_definition_for_half_of_the_points(length):
    packed = long_conv(form="monarch", length=length, width=3, packed=True, gated=True, skip=True).double()
    inputs = packed.example_inputs(2)
    with torch.no_grad():
        assert torch.allclose(packed(*inputs), packed.definition(*inputs), atol=1e-10)
    factors = (16, 16) if length == 256 else (32, 32)
    with torch.no_grad():
        counted = macs.count(packed, inputs, {}, second_count=False)
    assert counted.macs == 4 * length * sum(factors) * (2 * 2 * 3 + 3)


def test_packing_belongs_to_the_form_of_products():
    with pytest.raises(ValueError, match="packed"):
        long_conv(form="fft", packed=True)
