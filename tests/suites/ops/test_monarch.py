"""Transforms as matrix products: torch's FFT in any order of factors, the way back, and counts of check cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.ops import monarch

FACTORS = [(16, 16), (4, 3, 5), (5, 4, 3), (7,), (2, 9, 2, 3), (1, 6)]


def spectrum_and_fft(factors, kept=None):
    size = math.prod(factors)
    x = torch.randn(2, 3, size, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    transform = monarch.Transform(factors, torch.zeros((), dtype=torch.float64), kept)
    made = transform.forward(torch.stack([x.real, x.imag], -2))
    expected = torch.fft.fft(x, norm="ortho")
    axes = len(factors)
    stacked = expected.reshape(2, 3, *reversed(factors)).permute(0, 1, *range(axes + 1, 1, -1))  # k = k1 + f1 k2 + ...
    return transform, x, torch.complex(*made.unbind(2)), stacked


@pytest.mark.parametrize("factors", FACTORS)
def test_it_is_the_fft_in_the_layout_of_the_factors(factors):
    _, _, found, expected = spectrum_and_fft(factors)
    torch.testing.assert_close(found, expected)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_the_inverse_undoes_it_for_any_factors(factors):
    transform, x, _, _ = spectrum_and_fft(tuple(factors))
    pairs = torch.stack([x.real, x.imag], -2)
    torch.testing.assert_close(transform.inverse(transform.forward(pairs)), pairs)


def test_rows_that_are_not_kept_are_not_made_and_count_as_zeros():
    transform, _, found, expected = spectrum_and_fft((4, 5, 3), (3, 2, 3))
    torch.testing.assert_close(found, expected[:, :, :3, :2, :3])
    whole = torch.zeros_like(expected)
    whole[:, :, :3, :2, :3] = expected[:, :, :3, :2, :3]
    full = monarch.Transform((4, 5, 3), torch.zeros((), dtype=torch.float64))
    back = full.inverse(torch.stack([whole.real, whole.imag], 2))
    torch.testing.assert_close(transform.inverse(torch.stack([found.real, found.imag], 2)), back)


@pytest.mark.parametrize("size", [2, 97, 512, 2048, 65536, 1 << 20])
def test_factors_make_the_size(size):
    assert math.prod(monarch.factors_for(size)) == size
    assert monarch.factors_for(97) == (97,)


def test_the_papers_sizes_have_the_papers_factors():
    assert monarch.factors_for(4096) == (16, 16, 16) and monarch.factors_for(8192) == (32, 16, 16)


def test_products_of_a_transform():
    assert monarch.macs((16, 16)) == 4 * 256 * 32
    assert monarch.macs((16, 16, 16)) == 4 * 4096 * 48
    assert monarch.macs((4, 4), (2, 4)) == 4 * (
        2 * 4 * 4 + 2 * 4 * 4
    )  # two rows of the first axis, then theirs of the second
