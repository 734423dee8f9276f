"""NAT and DiNAT: printed sizes, the bias by its definition, and a network that equals its slow self."""

import pytest
import torch
import torch.nn.functional as F

from suites.attention.nat import SIZES, NeighborhoodBlockAttention, macs, nat, window_offsets
from suites.attention.neighborhood import grid_neighbors


@pytest.mark.parametrize(
    "size, parameters, billions",
    [("mini", 20e6, 2.7), ("tiny", 28e6, 4.3), ("small", 51e6, 7.8), ("base", 90e6, 13.7)],
)
def test_sizes_are_the_printed_ones(size, parameters, billions):
    with torch.device("meta"):
        model = nat(size=size)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.006)
    assert round(macs(SIZES[size])[0] / 1e9, 1) == billions


def test_mini_is_the_number_of_the_brief():
    with torch.device("meta"):
        plain, dilated = nat(), nat(dilated=True)
    assert sum(p.numel() for p in plain.parameters()) == 19_984_174
    assert sum(p.numel() for p in dilated.parameters()) == 19_984_174
    total, attention = macs(SIZES["mini"])
    assert (round(total / 1e9, 4), round(attention / 1e9, 4)) == (2.6948, 0.1401)


@pytest.mark.parametrize("side, kernel, dilation", [(7, 3, 1), (8, 3, 2), (9, 5, 1), (6, 3, 2)])
def test_attention_is_the_masked_square_with_a_bias_per_offset(side, kernel, dilation):
    torch.manual_seed(0)
    attention = NeighborhoodBlockAttention(8, 2, side, kernel, dilation)
    x = torch.randn(2, side**2, 8)
    index, _ = grid_neighbors([side, side], [kernel, kernel], [dilation, dilation], [False, False])
    q, k, v = attention.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    seen = torch.full((2, side**2, side**2), -torch.inf)
    for i in range(side**2):
        for j in index[i].tolist():
            down, right = (j // side - i // side) // dilation, (j % side - i % side) // dilation
            place = (down + kernel - 1) * (2 * kernel - 1) + right + kernel - 1
            seen[:, i, j] = attention.bias[:, place]
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[None])
    wanted = attention.proj(wanted.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x), wanted, atol=1e-5)


def test_offsets_fill_the_table_and_no_more():
    index, _ = grid_neighbors([9, 9], [5, 5], [1, 1], [False, False])
    offsets = window_offsets(index, 9, 5, 1)
    assert offsets.min() == 0 and offsets.max() == 80
    assert all(len(set(row)) == 25 for row in offsets.tolist())


def test_dilation_alternates_and_is_as_large_as_the_grid_allows():
    model = nat(size="mini", width=32, depths=[2, 2, 2, 2], kernel=3, dilated=True, resolution=96, classes=3)
    steps = [m.dilation for m in model.modules() if isinstance(m, NeighborhoodBlockAttention)]
    assert steps == [1, 8, 1, 4, 1, 2, 1, 1]


def test_a_window_as_large_as_the_grid_is_full_attention():
    torch.manual_seed(0)
    attention = NeighborhoodBlockAttention(8, 2, 5, 5, relative=False)
    x = torch.randn(2, 25, 8)
    q, k, v = attention.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    whole = attention.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x), whole, atol=1e-5)


def test_layerscale_is_there_from_small_on():
    with torch.device("meta"):
        names = {size: {n for n, _ in nat(size=size).named_parameters()} for size in ("tiny", "small")}
    assert not any("scale" in name for name in names["tiny"])
    assert sum("scale" in name for name in names["small"]) == 2 * 30


def test_wrong_settings_say_what_to_do():
    with pytest.raises(ValueError, match="odd window"):
        nat(kernel=9)
    with pytest.raises(ValueError, match="multiple of 32"):
        nat(width=40)
    with pytest.raises(ValueError, match="four stages"):
        nat(depths=[1, 1])
