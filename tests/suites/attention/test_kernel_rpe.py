"""Kernelised attention with relative positions: FFT against the sum, features against exp, and counts."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench.meters import macs
from suites.attention import kernel_rpe as file
from suites.attention.kernel_rpe import kernel_attention


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"relative": False},
        {"relative": False, "causal": True},
        {"grid": True},
        {"orthogonal": False},
        {"temperature": 4.0},
    ],
)
def test_the_fft_is_the_direct_sum(options):
    module = kernel_attention(length=25, heads=2, width=8, features=16, **options)
    q, k, v = module.example_inputs(2)
    with torch.no_grad():
        assert torch.allclose(module(q, k, v), module.reference(q, k, v), atol=1e-4)


def slowly(module, q, k, v):
    """The definition with loops over positions, one axis."""
    heads, tokens = q.shape[1:3]
    fq, fk = module.prepared(q, k)
    out = torch.zeros_like(v)
    for h in range(heads):
        for i in range(tokens):
            top, bottom = torch.zeros(v.shape[3], dtype=v.dtype), 0.0
            for j in range(i + 1 if module.causal else tokens):
                weight = torch.exp(module.bias[h, j - i + tokens - 1]) * (fq[0, h, i] @ fk[0, h, j])
                top, bottom = top + weight * v[0, h, j], bottom + weight
            out[0, h, i] = top / bottom
    return out


@pytest.mark.parametrize("causal", [False, True])
def test_the_direct_sum_is_the_definition(causal):
    module = kernel_attention(length=9, heads=2, width=4, features=8, causal=causal).double()
    q, k, v = module.example_inputs(1)
    with torch.no_grad():
        assert torch.allclose(module.reference(q, k, v), slowly(module, q, k, v), atol=1e-9)
        assert torch.allclose(module(q, k, v), slowly(module, q, k, v), atol=1e-7)


@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"relative": False}, {"relative": False, "causal": True}, {"grid": True}]
)
def test_softmax_with_the_same_bias_is_what_many_features_approach(options):
    """By loops over pairs: exp(1.5 q . k + b) of unit vectors; 6 x 6 tokens where there is a grid."""
    length = 36 if options.get("grid") else 10
    module = kernel_attention(length=length, heads=2, width=4, temperature=1.5, form="softmax", **options).double()
    q, k, v = module.example_inputs(1)
    a, b = (F.normalize(x, dim=-1) for x in (q, k))
    expected = torch.zeros_like(v)
    for h in range(2):
        for i in range(length):
            top, bottom = torch.zeros(4, dtype=torch.double), 0.0
            for j in range(i + 1 if options.get("causal") else length):
                apart = (j // 6 - i // 6 + 5, j % 6 - i % 6 + 5) if options.get("grid") else (j - i + length - 1,)
                bias = 0.0 if module.bias is None else module.bias[(h, *apart)]
                weight = torch.exp(1.5 * a[0, h, i] @ b[0, h, j] + bias)
                top, bottom = top + weight * v[0, h, j], bottom + weight
            expected[0, h, i] = top / bottom
    with torch.no_grad():
        assert torch.allclose(module(q, k, v), expected, atol=1e-9)
        assert torch.allclose(module.reference(q, k, v), expected, atol=1e-9)
        settings = {"temperature": 1.5, "features": 8192, "form": "direct", **options}
        many = kernel_attention(length=length, heads=2, width=4, **settings)
        if module.bias is not None:
            many.bias.data.copy_(module.bias)
        assert torch.allclose(many.double()(q, k, v), expected, atol=0.1)
    assert module.declares(q, k, v) == {"fourier_operations": 0.0}


def test_a_causal_row_without_a_bias_goes_through_the_transform_that_its_form_names():
    """No square of 64 x 64 is multiplied: the products are those with a bias, and the declared transforms are there."""
    module = kernel_attention(length=64, heads=2, width=8, features=16, relative=False, causal=True)
    given = module.example_inputs(1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*given)
    assert counter.get_total_flops() // 2 == file.macs(64, 2, 8, 16, relative=True)
    # 2 x 2 heads x (16 x 8 + 16) columns there and back and 2 kernels, 2.5 x 128 x 7 each
    assert module.declares(*given) == {"fourier_operations": (2 * 2 * 144 + 2) * 2.5 * 128 * 7}


def test_no_bias_is_plain_kernelised_attention():
    module = kernel_attention(length=25, heads=2, width=8, features=16)
    plain = kernel_attention(length=25, heads=2, width=8, features=16, relative=False)
    module.bias.data.zero_()
    q, k, v = module.example_inputs(1)
    with torch.no_grad():
        assert torch.allclose(module(q, k, v), plain(q, k, v), atol=1e-4)


@pytest.mark.parametrize("axes", [(11,), (3, 4)])
def test_a_single_offset_shifts_the_columns(axes):
    tokens = torch.tensor(axes).prod()
    x = torch.randn(1, 2, tokens, 3, dtype=torch.double)
    grid = x.unflatten(2, axes)
    for offset in (-2, -1, 0, 1, 2):
        c = torch.zeros(2, *(2 * n - 1 for n in axes), dtype=torch.double)
        c[(slice(None), *(n - 1 + offset for n in axes))] = 1.0
        out = file.toeplitz(c, x, axes).unflatten(2, axes)
        padded = F.pad(grid, (0, 0, *([2, 2] * len(axes))))
        for axis, n in enumerate(axes):
            padded = padded.narrow(2 + axis, 2 + offset, n)
        assert torch.allclose(out, padded, atol=1e-10)


def test_the_mean_over_draws_approaches_the_exponential():
    q, k = (F.normalize(torch.randn(1, 1, 4, 8, dtype=torch.double), dim=-1) for _ in range(2))
    total = 0
    for seed in range(256):
        w = file.orthogonal_gaussian(32, 8, torch.Generator().manual_seed(seed)).double()[None]
        total = total + file.features(q, w) @ file.features(k, w).transpose(-2, -1)
    assert torch.allclose(total / 256, torch.exp(q @ k.transpose(-2, -1)), rtol=0.1)


def test_orthogonal_rows_are_orthogonal_within_a_block():
    w = file.orthogonal_gaussian(6, 8, torch.Generator().manual_seed(0))
    assert torch.allclose(w @ w.t(), torch.diag((w * w).sum(1)), atol=1e-4)


def test_counts_are_those_of_the_brief():
    assert file.macs(512, 4, 32, 32) == 6_356_992
    assert file.forward_ffts(4, 32, 32) == 4224
    assert file.macs(512, 4, 32, 32, relative=False) == 8_454_144
    assert file.fft_operations(1024, 2) == 2 * 5 * 1024 * 10


@pytest.mark.parametrize("relative", [True, False])
def test_executed_products_are_the_closed_form(relative):
    module = kernel_attention(length=64, heads=2, width=8, features=16, relative=relative)
    given = module.example_inputs(1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*given)
    assert counter.get_total_flops() // 2 == file.macs(64, 2, 8, 16, relative)


@pytest.mark.parametrize(
    "options", [{"length": 17}, {"length": 16, "grid": True}, {"relative": False}, {"form": "direct"}]
)
def test_what_is_declared_of_fourier_transforms_is_what_macs_hold_beside_the_products(options):
    module = kernel_attention(**{"length": 33, "heads": 3, "width": 8, "features": 5, **options})
    given = module.example_inputs(2)
    counted = macs.count(module, given, second_count=False, self_check=False).macs
    if module.form == "direct":
        assert module.declares(*given) == {"fourier_operations": 0.0}
        return
    products = 2 * file.macs(module.tokens, 3, 8, 5, module.bias is not None)
    left = counted - module.declares(*given)["fourier_operations"] / 2
    assert left == pytest.approx(products, abs=3)  # each call is counted in whole products


def test_a_grid_that_is_no_square_says_so():
    with pytest.raises(ValueError, match="take a square number"):
        kernel_attention(length=24, grid=True)
