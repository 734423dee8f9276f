"""Multiply-accumulates: closed form against published numbers, and executed against closed form."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from suites.common.vit import vit
from suites.vit_tokens import schedules
from suites.vit_tokens.analytic import Shape, fvcore_macs, matmul_macs, tome_matching_macs
from suites.vit_tokens.diffrate import diffrate
from suites.vit_tokens.evit import evit
from suites.vit_tokens.tome import tome

T = Shape(192, 12, 16, 224, heads=3)
S = Shape(384, 12, 16, 224, heads=6)
B = Shape(768, 12, 16, 224, heads=12)
L = Shape(1024, 24, 16, 224, heads=16)
H = Shape(1280, 32, 14, 224, heads=16)
DIFFRATE_S = [197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3]


def executed(model):
    """MACs of one forward of one image as torch's own counter sees them with attention written out."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(*model.example_inputs(1))
    return counter.get_total_flops() / 2


def plain(shape):
    return [shape.tokens] * shape.depth


@pytest.mark.parametrize(
    "shape, matmul, fvcore",
    [(T, 1.2537, 1.2584), (S, 4.5989, 4.6083), (B, 17.5638, 17.5827)],
)
def test_plain_deit_counts_as_published(shape, matmul, fvcore):
    assert round(matmul_macs(shape, plain(shape)) / 1e9, 4) == matmul
    assert round(fvcore_macs(shape, plain(shape)) / 1e9, 4) == fvcore


@pytest.mark.parametrize(
    "shape, published",
    [
        (Shape(768, 12, 16, 384, heads=12), 55.5),  # ViT-B/16 at 384, timm's table: 55.54
        (L, 61.6),  # ViT-L/16 at 224: 61.60
        (Shape(1024, 24, 16, 384, heads=16), 191.2),  # ViT-L/16 at 384: 191.21
        (H, 167.4),  # ViT-H/14 at 224: 167.40
        (Shape(192, 12, 16, 384, heads=3), 4.7),  # ViT-T/16 at 384: 4.70
        (Shape(384, 12, 16, 384, heads=6), 15.5),  # ViT-S/16 at 384: 15.52
    ],
)
def test_other_sizes_and_resolutions_count_as_timm_publishes(shape, published):
    assert fvcore_macs(shape, plain(shape)) / 1e9 == pytest.approx(published, rel=0.002)


def test_tome_at_13_counts_as_published():
    counts = schedules.tome_counts([13] * 12, 197)
    assert counts == list(range(184, 40, -13))
    assert round(matmul_macs(S, counts) / 1e9, 4) == 2.7027
    assert round(tome_matching_macs(S, counts) / 1e9, 4) == 0.0034


def test_tome_on_large_models_counts_as_published():
    """ToMe's table on MAE and AugReg models at 224: ViT-L r=8 31.0, ViT-H r=7 92.9 GMACs."""
    assert matmul_macs(L, schedules.tome_counts([8] * 24, 197)) / 1e9 == pytest.approx(31.0, rel=0.005)
    assert matmul_macs(H, schedules.tome_counts([7] * 32, 257)) / 1e9 == pytest.approx(92.9, rel=0.005)


def test_evit_at_07_counts_as_published():
    counts = schedules.evit_counts([0.7] * 3, [4, 7, 10], 12, 197)
    assert counts == [197] * 3 + [140] * 3 + [100] * 3 + [72] * 3
    assert round(matmul_macs(S, counts) / 1e9, 4) == 3.0293


def test_diffrate_at_29_counts_as_published():
    assert schedules.diffrate_counts(DIFFRATE_S, [None] * 12, 197) == DIFFRATE_S
    assert matmul_macs(S, DIFFRATE_S) / 1e9 == pytest.approx(2.9053, rel=2e-4)


def test_distillation_token_is_one_more_token_and_one_more_head():
    shape = Shape(192, 12, 16, 224, heads=3, special=2, head_count=2)
    assert executed(vit(width=192, heads=3, depth=12, patch=16, distilled=True)) == matmul_macs(shape, plain(shape))


@pytest.mark.parametrize(
    "width, heads, depth, patch, resolution", [(192, 3, 12, 16, 224), (64, 4, 5, 8, 64), (48, 3, 3, 14, 56)]
)
def test_executed_count_of_the_plain_model_is_the_closed_form(width, heads, depth, patch, resolution):
    model = vit(width=width, heads=heads, depth=depth, patch=patch, resolution=resolution)
    shape = Shape(width, depth, patch, resolution, heads)
    assert executed(model) == matmul_macs(shape, plain(shape))
    assert model.token_counts == plain(shape)


def test_executed_count_of_tome_is_closed_form_and_matching():
    model = tome(vit(width=192, heads=3, depth=12, patch=16), r=13)
    assert executed(model) == matmul_macs(T, model.token_counts) + tome_matching_macs(T, model.token_counts)


def test_what_is_charged_to_the_method_is_all_that_exceeds_the_closed_form():
    """Reducers carry `charged_to = "method"`; without their paths the executed count is the matmul convention's."""
    for method, chosen in [(tome, {"r": 13}), (evit, {}), (diffrate, {"merge": DIFFRATE_S})]:
        model = method(vit(width=96, heads=3, depth=12, patch=16), **chosen)
        counter = FlopCounterMode(display=False, depth=None)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(*model.example_inputs(1))
        own = sum(
            sum(flops.values()) / 2 for path, flops in counter.get_flop_counts().items() if path.endswith(".reduce")
        )
        shape = Shape(96, 12, 16, 224, heads=3)
        assert own > 0
        assert counter.get_total_flops() / 2 - own == matmul_macs(shape, model.token_counts)
        assert all(block.reduce is None or block.reduce.charged_to == "method" for block in model.blocks)


SMALL = vit(width=16, heads=2, depth=6, patch=4, resolution=24, classes=7)
SMALL_SHAPE = Shape(16, 6, 4, 24, heads=2, classes=7)


@given(
    r=st.one_of(
        st.integers(0, 40),
        st.lists(st.integers(0, 20), min_size=6, max_size=6),
        st.tuples(st.integers(0, 9), st.floats(-1, 1)),
    )
)
@settings(max_examples=20, deadline=None)
def test_any_tome_schedule_leaves_the_tokens_it_says(r):
    model = tome(copy.deepcopy(SMALL), r=r)
    total = executed(model)
    expected = schedules.tome_counts(schedules.merges_per_block(r, 6), 37)
    assert model.token_counts == expected
    assert total == matmul_macs(SMALL_SHAPE, expected) + tome_matching_macs(SMALL_SHAPE, expected)


@given(rate=st.floats(0.01, 1.0), fuse=st.booleans(), at=st.sets(st.integers(1, 6), min_size=1).map(sorted))
@settings(max_examples=20, deadline=None)
def test_any_evit_schedule_leaves_the_tokens_it_says(rate, fuse, at):
    model = evit(copy.deepcopy(SMALL), keep_rate=rate, at=at, fuse_token=fuse)
    with torch.no_grad():
        model(*model.example_inputs(1))
    assert model.token_counts == schedules.evit_counts([rate] * len(at), at, 6, 37, 1, fuse)


counts = st.lists(st.integers(2, 40), min_size=6, max_size=6)


@given(prune=counts, merge=counts)
@settings(max_examples=20, deadline=None)
def test_any_diffrate_schedule_leaves_the_tokens_it_says(prune, merge):
    model = diffrate(copy.deepcopy(SMALL), prune=prune, merge=merge)
    with torch.no_grad():
        assert torch.isfinite(model(*model.example_inputs(1))).all()
    assert model.token_counts == schedules.diffrate_counts(prune, merge, 37)


@given(r=st.integers(0, 30), depth=st.integers(1, 32))
def test_a_ramp_without_inflection_is_constant(r, depth):
    assert schedules.merges_per_block((r, 0.0), depth) == [r] * depth


def test_a_decreasing_ramp_starts_at_twice_r_and_ends_at_zero():
    assert schedules.merges_per_block((13, -1.0), 12) == [26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0]
    assert schedules.merges_per_block([13, -1.0], 12) == schedules.merges_per_block((13, -1.0), 12)


def test_a_schedule_of_another_depth_is_refused():
    with pytest.raises(ValueError, match="12 blocks, got 3"):
        matmul_macs(S, [197] * 3)
