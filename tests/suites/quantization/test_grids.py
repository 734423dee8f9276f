"""Grids, packing, ranges: printed values, slow references, and what rounding must never do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from suites.common.vit import vit
from suites.quantization import bitmod, bitnet158, crossquant, fp8_block, int16_dfp
from suites.quantization.fp8_vs_int8 import rounding_of, sqnr_of
from suites.quantization.grids import (
    affine_grid,
    code_range,
    float_format,
    float_rounded,
    kmeans_grid,
    nearest,
    ocp_rounded,
    ocp_values,
    power_of_two_rounded,
    symmetric_grid,
)
from suites.quantization.network_bytes import network_bytes
from suites.quantization.packing import (
    effective_bits,
    matrix_bytes,
    packed,
    packed_ternary,
    unpacked,
    unpacked_ternary,
)
from suites.quantization.ranges import (
    SEARCHED,
    Observer,
    best_range,
    best_range_of_all,
    grouped,
    places,
    ungrouped,
)
from suites.quantization.rounding import int_rounded

SINES = torch.sin(torch.arange(4096, dtype=torch.float64))


def test_printed_float_grids():
    assert float_format("e4m3").bias(480.0) == 7 and float_format("e5m2").bias(114_688.0) == 15
    assert float_format("e2m1").bias(6.0) == 1
    positive = float_format("e2m1").values(6.0)[7:].tolist()
    assert positive == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert float_format("e1m2").values(7.0).tolist() == list(range(-7, 8))
    assert float_format("e3m0").values(16.0)[7:].tolist() == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    halves = torch.tensor([2.5, 3.5, 5.0, 0.25, 1.25, 1.75, 7.0, -5.0])  # between neighbours, to the even multiple
    assert float_rounded(halves, float_format("e2m1"), 6.0).tolist() == [2, 4, 4, 0, 1, 2, 6, -4]
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    assert torch.equal(float_rounded(x, float_format("e1m2"), 7.0), int_rounded(x, 4, 7.0))


def test_ocp_formats_end_where_their_standard_says():
    assert ocp_values()[-1] == 448 and ocp_values("ocp_e5m2")[-1] == 57_344
    for name, least in (("ocp_e4m3", 2**-9), ("ocp_e5m2", 2**-16)):
        values = ocp_values(name)
        assert values[values > 0][0] == least
    # 256 codes less two NaN and a second zero; less two infinities, six NaN and a second zero
    assert (len(ocp_values()), len(ocp_values("ocp_e5m2"))) == (253, 247)
    assert ocp_rounded(torch.tensor([17.0, 0.3, 1e6, -1e6])).tolist() == [16, 0.3125, 448, -448]


@pytest.mark.parametrize("name", ["e2m1", "e3m0", "e1m2", "e4m3", "e5m2", "e3m4", "e2m5"])
@pytest.mark.parametrize("largest", [1.0, 6.0, 0.37])
def test_rounding_to_a_float_grid_is_the_nearest_of_its_values(name, largest):
    form = float_format(name)
    x = 1.3 * largest * SINES[:500]
    wanted = nearest(x, form.values(largest))
    made = float_rounded(x, form, largest)
    torch.testing.assert_close((made - x).abs(), (wanted - x).abs(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(float_rounded(made, form, largest), made, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["e2m1", "e3m4", "e4m3", "e5m2"])
def test_rounding_twice_is_rounding_once_and_no_value_is_beyond_the_largest(name, dtype):
    """Bit for bit, whatever the range: 1e30 needs a step of 23 bits, and zeros have no range at all."""
    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(5), dtype=dtype)
    x *= torch.logspace(-3, 30, 64, dtype=dtype)[:, None]
    x[3] = 0
    form, largest = float_format(name), x.abs().amax(dim=1, keepdim=True)
    once = float_rounded(x, form, largest)
    assert torch.equal(float_rounded(once, form, largest), once)
    assert torch.equal(once.abs().amax(dim=1, keepdim=True), largest)
    assert all(len(row.unique()) <= 2**form.bits - 1 for row in once)
    with pytest.raises(ValueError, match="largest=0"):
        float_rounded(x, form, 0.0)


def test_check_cases_of_sines():
    error = (float_rounded(SINES, float_format("e2m1"), 1.0) - SINES).square().mean()
    assert float(error) == pytest.approx(4.41955e-3, abs=5e-9)
    x = torch.sin(torch.arange(128, dtype=torch.float64))
    for bits, special, wanted in ((3, -3.0, 8.15405e-3), (4, 10.0, 2.95545e-3)):
        _, _, pick, total = bitmod.chosen(x, bits)
        assert bitmod.SPECIAL[bits][int(pick)] == special
        assert float(total) / 128 == pytest.approx(wanted, abs=5e-8)


def test_ternary_by_mean_of_the_check_case():
    r, c = torch.arange(64, dtype=torch.float64)[:, None], torch.arange(96, dtype=torch.float64)
    w = torch.sin(96 * r + c) * (1 + torch.cos(r) / 2)
    codes, scale = bitnet158.ternary(w, "mean")
    assert float(1 / scale) == pytest.approx(0.642278, abs=5e-7)
    assert [int((codes == each).sum()) for each in (-1, 0, 1)] == [2317, 1505, 2322]
    assert float((codes / scale - w).square().mean()) == pytest.approx(0.110474, abs=5e-7)


def test_crossquant_of_the_check_case():
    i, j = torch.arange(32, dtype=torch.float64)[:, None], torch.arange(64, dtype=torch.float64)
    x = torch.sin(64 * i + j) * (1 + i / 10)
    x[:, 5] *= 60
    x[:, 40] *= 25
    for bits, alpha, zeros, error in ((8, 0.15, 14, 3.37505e-3), (8, 1.0, 202, 5.90185e-2), (4, 0.15, 254, 1.166527)):
        made = crossquant.cross_rounded(x[None], alpha, bits)[0]
        assert round(crossquant.zero_share(x[None], alpha, bits) * x.numel()) == zeros
        assert float((made - x).square().mean()) == pytest.approx(error, rel=2e-6)
        assert torch.equal(crossquant.cross_rounded(x, alpha, bits), made)  # a matrix is tokens x channels as well


def test_crossquant_of_a_matrix_by_hand_and_a_sample_alone_is_rounded_as_in_a_batch():
    """Columns 2 and 8, 4 bits: steps 2/7 and 8/7; 1.2 is 4.2 of the first, 5 4.375 of the second, -8 and 2 are 7."""
    x = torch.tensor([[1.2, -8.0], [2.0, 5.0]])
    torch.testing.assert_close(crossquant.cross_rounded(x, 0.0, 4), torch.tensor([[8 / 7, -8.0], [2.0, 32 / 7]]))
    inputs = crossquant.CrossInputs(0.15, 4)
    assert torch.equal(inputs(x)[1:], inputs(x[1:]))  # [batch, channels]: no sample sees another's columns


def test_zeros_are_counted_for_each_layer():
    """Per token at 4 bits, the largest 7: step 1, so that 0.4 becomes zero and 0.6 does not: 1 of 4."""
    model = nn.Sequential(nn.Linear(2, 1))
    batches = [(torch.tensor([[7.0, 0.4], [7.0, 0.6]]),)]
    assert crossquant.zero_counts(model, {"0": model[0]}, batches, 1.0, 4) == {"0": (1, 4)}
    # columns 7 and 0.7 from elsewhere: steps of the second 0.1, and nothing becomes zero
    columns = {"0": torch.tensor([7.0, 0.7])}
    assert crossquant.zero_counts(model, {"0": model[0]}, batches, 0.0, 4, columns) == {"0": (0, 4)}


def test_crossquant_ends_are_per_token_and_per_channel_and_nothing_is_clipped():
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    row = int_rounded(x, 8, x.abs().amax(dim=-1, keepdim=True))
    column = int_rounded(x, 8, x.abs().amax(dim=-2, keepdim=True))
    torch.testing.assert_close(crossquant.cross_rounded(x, 1.0, 8), row)
    torch.testing.assert_close(crossquant.cross_rounded(x, 0.0, 8), column)
    assert float((x / crossquant.cross_step(x, 0.15, 8)).abs().max()) <= 127 + 1e-9


@pytest.mark.parametrize(
    "kind, wanted",
    [("normal", {"int8": 40.54, "e4m3": 31.56, "e2m1": 18.97}), ("uniform", {"int8": 48.13})],
)
def test_sqnr_of_distributions(kind, wanted):
    n = 200_000
    share = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x = torch.special.ndtri(share) if kind == "normal" else 2 * share - 1
    for name, value in wanted.items():
        assert sqnr_of(x, name, 100) == pytest.approx(value, abs=0.12), name


def test_a_heavy_tail_is_better_held_by_a_float_grid():
    """Student's t with five degrees of freedom, cut at 100, by its density: samples of it would miss the tail."""
    x = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 200
    density = (1 + x.square() / 5) ** -3

    def best(name):
        rounding = rounding_of(name)
        noise = [(density * (rounding(x, x.new_tensor(top)) - x).square()).sum() for top in range(5, 101)]
        return 10 * math.log10(float((density * x.square()).sum() / min(noise)))

    assert best("e3m4") == pytest.approx(37.19, abs=0.02) and best("e3m4") > best("int8") + 8


def test_chains_of_worst_case_products():
    assert [int16_dfp.longest_chain(16), int16_dfp.longest_chain(13), int16_dfp.longest_chain(16, 8)] == [2, 128, 516]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 2**16))
def test_packing_is_undone_and_takes_its_bytes(bits, count, seed):
    codes = torch.randint(0, 2**bits, (3, count), generator=torch.Generator().manual_seed(seed))
    stored = packed(codes, bits)
    assert stored.shape == (3, math.ceil(count * bits / 8)) and stored.dtype is torch.uint8
    assert torch.equal(unpacked(stored, bits, count).long(), codes)


def test_five_ternary_weights_share_a_byte():
    codes = torch.randint(-1, 2, (4, 13), generator=torch.Generator().manual_seed(0))
    stored = packed_ternary(codes)
    assert stored.shape == (4, 3) and int(stored.max()) < 243
    assert torch.equal(unpacked_ternary(stored, 13).long(), codes)


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit 2 bits"):
        packed(torch.tensor([4]), 2)
    with pytest.raises(ValueError, match="bits=9"):
        packed(torch.tensor([4]), 9)
    with pytest.raises(ValueError, match="bits=1"):
        code_range(1, symmetric=True)
    with pytest.raises(ValueError, match="write a float as e4m3"):
        float_format("e0m7")


@pytest.mark.parametrize("granularity, size", [("tensor", 4), ("channel", 4), ("group", 4), ("block", 4), ("block", 3)])
def test_groups_are_put_back_where_they_came_from(granularity, size):
    w = torch.randn(5, 3, 2, 2)
    assert torch.equal(ungrouped(grouped(w, granularity, size), w, granularity, size), w)


def test_whole_number_grids():
    x = torch.tensor([-1.0, -0.3, 0.0, 0.7, 2.0])
    grid = symmetric_grid(torch.tensor(2.0), 8)
    assert (grid.low, grid.high) == (-127, 127) and grid.codes(x).tolist() == [-64, -19, 0, 44, 127]
    grid = affine_grid(x.amin(), x.amax(), 8)
    assert float(grid(torch.zeros(()))) == 0 and grid.codes(x).min() == 0 and grid.codes(x).max() == 255
    torch.testing.assert_close(grid(grid(x)), grid(x))
    # -0.5 to 1.5 in 4 bits: steps of 2/15, of which 3.75 are below zero
    grid = affine_grid(torch.tensor(-0.5), torch.tensor(1.5), 4)
    assert grid.codes(torch.tensor([-0.5, 0.0, 0.7, 1.5, 9.0])).tolist() == [0, 4, 9, 15, 15]
    assert float(affine_grid(torch.tensor(-2.0), torch.tensor(-0.5), 4).zero) == 15  # all below zero: zero is the last


def test_other_levels():
    w = torch.linspace(-1, 1, 999, dtype=torch.float64)
    made = power_of_two_rounded(w, 4, 1.0)
    assert len(made.unique()) == 15 and torch.equal(made.abs().unique()[1:], 2.0 ** -torch.arange(6, -1, -1).double())
    grid = kmeans_grid(torch.tensor([0.0, 0.0, 1.0, 1.0, 5.0, 5.0, 9.0]), 2)
    assert grid.tolist() == [0, 1, 5, 9]


def test_few_bits_and_a_far_value_ask_for_a_small_range():
    """20 000 normal numbers and a 30 in 4 bits. At T = 6, a fifth: 20 000 (6/7)^2 / 12 + 24^2 = 1800; at 2.4 to 3, a
    tenth or less: 20 000 (2.7/7)^2 / 12 + 27.3^2 + some clipping, about 1040.
    """
    share = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x = torch.cat([torch.special.ndtri(share), torch.tensor([30.0], dtype=torch.float64)])
    best = best_range(x, lambda y, top: int_rounded(y, 4, top))
    error = lambda top: float((int_rounded(x, 4, top) - x).square().sum())  # noqa: E731
    assert 0.06 <= float(best) / 30 <= 0.12 and error(best) < 0.65 * error(6.0) == pytest.approx(0.65 * 1800, rel=0.02)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_places_are_one_of_each_equal_stretch(total, most):
    found = places(total, most)
    assert len(found) == min(total, most) and found.tolist() == places(total, most).tolist()
    if total > most:
        # exact bounds: place i lies in [floor(i total / most), ceil((i + 1) total / most))
        assert all(i * total // most <= place < -(-(i + 1) * total // most) for i, place in enumerate(found.tolist()))
    else:
        assert found.tolist() == list(range(total))


@pytest.mark.parametrize("width", [8, 32, 96, 128, 512])
def test_places_keep_no_step_with_the_channels(width):
    """Of so many numbers that the distance is the width, and its multiples, each channel has its share, within six
    standard deviations of chance: evenly spaced places would all be of the first one.
    """
    for times in (1, 3):
        drawn = places(4096 * width * times, 4096) % width
        of_each = torch.bincount(drawn, minlength=width)
        expected = 4096 / width
        assert bool((of_each - expected).abs().max() <= 6 * math.sqrt(expected))


def test_the_range_of_activations_is_of_all_channels_and_not_of_the_first():
    """Channel 0 lies in [-0.1, 0.1] and 31 others in [-1, 1], 2^16 numbers of each: evenly spaced samples are of
    channel 0 alone, whose range cuts the others off. Of a uniform tensor no clipping is best in 8 bits: a step of
    T / 127 errs by T^2 / 12 127^2, a cut at 0.98 by 0.02 (0.02)^2 / 3, half as much as that on top.
    """
    x = (torch.rand(2**16, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1) * torch.tensor([0.1] + [1.0] * 31)
    assert x.numel() // SEARCHED == 32
    found = best_range_of_all(x, lambda y, top: int_rounded(y, 8, top))
    assert float(found) >= 0.97


def test_a_searched_range_is_never_worse_than_the_largest():
    x = torch.randn(3, 200)
    best = best_range(x, lambda y, top: int_rounded(y, 3, top))
    whole = x.abs().amax(dim=-1, keepdim=True)
    error = lambda top: (int_rounded(x, 3, top) - x).square().sum(dim=-1)  # noqa: E731
    assert bool((error(best) <= error(whole)).all()) and bool((best < whole).any())


def test_observers():
    seen = Observer()
    seen.see(torch.tensor([1.0, -2.0]))
    seen.see(torch.tensor([5.0, 0.0]))
    assert (float(seen.least), float(seen.largest)) == (-2, 5)
    moving = Observer(decay=0.5)
    moving.see(torch.tensor([0.0, 4.0]))
    moving.see(torch.tensor([0.0, 8.0]))
    assert float(moving.largest) == 6
    cut = Observer(percentile=90)
    cut.see(torch.arange(101.0))
    assert float(cut.largest) == 90


def test_bytes_of_formats():
    assert matrix_bytes(10, 300, 4, granularity="group", group=128, scale_bytes=2) == 1500 + 30 * 2
    assert matrix_bytes(576, 128, 8, granularity="block") == 576 * 128 + 5 * 4
    # 7 x 45 codes of 3 bits: 118.125 bytes; 3 groups of 16 a row: 21 scales, zero points and selectors
    odd = matrix_bytes(7, 45, 3, granularity="group", group=16, scale_bytes=2, zero_bytes=1, selector_bits=2)
    assert odd == 119 + 42 + 21 + 6
    assert effective_bits(matrix_bytes(1, 128, 4, granularity="group", scale_bytes=1, selector_bits=2), 128) == 4.125
    assert bitmod.stored_bits(4) == 4 + 10 / 128 and bitmod.stored_bits(3, selector=False) == 3.0625
    assert fp8_block.weight_bytes(2048, 7168) == 14_683_648 and fp8_block.activation_bytes(4096, 7168) == 30_277_632


def test_bytes_of_deit_small_in_whole_numbers():
    with torch.device("meta"):
        model = vit(width=384, heads=6, depth=12, patch=16, resolution=224, classes=1000)
    eight = network_bytes(model, 8)
    assert (eight.total, eight.scales, eight.others) == (22_636_352, 42_856, 4 * 138_088)
    assert network_bytes(model, 4, granularity="group", scale_bytes=2).total == 11_851_024
    assert network_bytes(model, 32, scale_bytes=0).total == 88_202_656


def test_counts_of_deepseek_v3_in_blocks():
    assert fp8_block.quantised_counts(fp8_block.DEEPSEEK_V3) == (669_065_609_216, 40_838_232)
