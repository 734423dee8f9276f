"""Neighborhood attention: windows by their definition, forms that agree, and counts."""

import pytest
import torch

from suites.attention.neighborhood import neighborhood_attention, neighbors
from suites.attention.operator import masked_attention


def window(i, n, k, dilation, causal, stride=1):
    """Keys of query i by the definition, in the coordinates of its dilation group."""
    group = [j for j in range(n) if j % dilation == i % dilation]
    place = group.index(i)
    first = place // stride * stride
    leader = min(first + (stride - 1 if causal else stride // 2), len(group) - 1)
    if causal:
        return group[max(0, leader - k + 1) : place + 1]
    start = min(max(leader - k // 2, 0), len(group) - k)
    return group[start : start + k]


@pytest.mark.parametrize(
    "n, k, dilation, causal",
    [
        (9, 3, 1, False),
        (9, 5, 1, False),
        (9, 9, 1, False),
        (10, 3, 2, False),
        (11, 3, 3, False),
        (7, 1, 1, False),
        (9, 4, 1, True),
        (10, 3, 2, True),
    ],
)
def test_windows_are_those_of_the_definition(n, k, dilation, causal):
    index, there = neighbors(n, k, dilation, causal)
    for i in range(n):
        assert sorted(index[i][there[i]].tolist()) == window(i, n, k, dilation, causal)


@pytest.mark.parametrize("n, k, dilation, causal, stride", [(12, 3, 1, False, 3), (13, 5, 1, False, 2),
                                                            (12, 4, 1, True, 4), (14, 5, 2, True, 3)])  # fmt: skip
def test_queries_of_a_stride_share_the_window_of_their_leader(n, k, dilation, causal, stride):
    index, there = neighbors(n, k, dilation, causal, stride)
    for i in range(n):
        assert sorted(index[i][there[i]].tolist()) == window(i, n, k, dilation, causal, stride)


def test_a_stride_of_the_whole_window_is_blocked_attention():
    """12 tokens in windows of 3: four blocks, 12 x 3 pairs; causal they are the triangles, 4 x (1 + 2 + 3) = 24."""
    blocks = torch.block_diag(*[torch.ones(3, 3)] * 4) > 0
    row = neighborhood_attention(sizes=[12], kernel=[3], stride=[3], heads=2, size=5)
    assert torch.equal(row.seen(), blocks) and row.pairs == 36
    causal = neighborhood_attention(sizes=[12], kernel=[3], stride=[3], causal=[True], heads=2, size=5)
    assert torch.equal(causal.seen(), blocks.tril()) and causal.pairs == 24
    assert causal.macs_nonzero == causal.required_macs == 2 * 24 * 5 * 2 and causal.macs_dense == 2 * 144 * 5 * 2
    for module in (row, causal):
        q, k, v = module.example_inputs(2)
        assert torch.allclose(module(q, k, v), module.reference(q, k, v), atol=1e-5)
    for wrong in (0, 4):
        with pytest.raises(ValueError, match=f"stride={wrong}"):
            neighborhood_attention(sizes=[12], kernel=[3], stride=[wrong])


AXES = [
    {"sizes": [20], "kernel": [5]},
    {"sizes": [20], "kernel": [5], "dilation": [3]},
    {"sizes": [20], "kernel": [6], "causal": [True]},
    {"sizes": [6, 7], "kernel": [3, 5]},
    {"sizes": [6, 8], "kernel": [3, 3], "dilation": [2, 1], "causal": [False, True]},
    {"sizes": [3, 4, 5], "kernel": [3, 1, 3], "causal": [True, False, False]},
]


@pytest.mark.parametrize("axes", AXES)
def test_a_mask_is_the_product_of_its_axes(axes):
    module = neighborhood_attention(**axes, heads=2, size=8)
    sizes, rank = axes["sizes"], len(axes["sizes"])
    dilation, causal = axes.get("dilation", [1] * rank), axes.get("causal", [False] * rank)
    places = torch.cartesian_prod(*(torch.arange(n) for n in sizes)).reshape(-1, rank).tolist()
    expected = [
        [
            all(b[a] in window(i[a], sizes[a], axes["kernel"][a], dilation[a], causal[a]) for a in range(rank))
            for b in places
        ]
        for i in places
    ]
    assert module.seen().tolist() == expected
    assert module.pairs == sum(map(sum, expected))
    if not any(causal):
        assert all(sum(row) == module.index.shape[1] for row in expected)


@pytest.mark.parametrize("form", ["gather", "masked", pytest.param("flex", marks=pytest.mark.slow)])
@pytest.mark.parametrize("axes", AXES)
def test_forms_agree_with_the_reference(axes, form):
    module = neighborhood_attention(**axes, heads=2, size=16, form=form)
    q, k, v = module.example_inputs(2)
    assert torch.allclose(module(q, k, v), module.reference(q, k, v), atol=module.tolerance)


def test_the_whole_axis_is_full_attention_and_a_window_of_one_is_the_value():
    module = neighborhood_attention(sizes=[9], kernel=[9], heads=2, size=8)
    q, k, v = module.example_inputs(1)
    assert torch.allclose(module(q, k, v), masked_attention(q, k, v), atol=1e-5)
    one = neighborhood_attention(sizes=[3, 3], kernel=[1, 1], heads=2, size=8)
    assert torch.allclose(one(q, k, v), v, atol=1e-6)


def test_an_axis_of_one_token_changes_nothing():
    flat = neighborhood_attention(sizes=[9], kernel=[3], heads=2, size=8)
    wide = neighborhood_attention(sizes=[1, 9], kernel=[1, 3], heads=2, size=8)
    q, k, v = flat.example_inputs(1)
    assert torch.equal(flat(q, k, v), wide(q, k, v))


def test_counts_are_those_of_the_brief():
    for dilation in (1, 2, 8):
        module = neighborhood_attention(sizes=[56, 56], kernel=[7, 7], dilation=[dilation] * 2, heads=2, size=32)
        assert module.required_macs == 19_668_992
    assert module.dense_macs == 2 * (56 * 56) ** 2 * 64


def test_windows_that_do_not_fit_say_so():
    for wrong in (
        {"sizes": [9], "kernel": [11]},
        {"sizes": [9], "kernel": [4]},
        {"sizes": [9], "kernel": [5], "dilation": [2]},
    ):
        with pytest.raises(ValueError, match="does not fit an axis of 9"):
            neighborhood_attention(**wrong)
    with pytest.raises(ValueError, match="one entry per axis"):
        neighborhood_attention(sizes=[9, 9], kernel=[3])


@pytest.mark.slow
@pytest.mark.parametrize("axes", [([9], [3], [2]), ([6, 8], [3, 5], [2, 1])])
def test_the_package_of_the_authors_agrees_where_it_is_installed(axes):
    from suites.common.torchvision_remedy import NotInstalled

    sizes, kernel, dilation = axes
    try:
        row = neighborhood_attention(sizes=sizes, kernel=kernel, dilation=dilation, heads=2, size=32, form="natten")
    except NotInstalled as reason:
        pytest.skip(str(reason))
    args = row.example_inputs(2)
    assert torch.allclose(row(*args), row.reference(*args), atol=1e-5)
