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
from tests.suites.vit_tokens import published
from tests.suites.vit_tokens.published import L, S, T


def executed(model):
    """MACs of one forward of one image as torch's own counter sees them with attention written out."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(*model.example_inputs(1))
    return counter.get_total_flops() / 2


def on_meta(shape, method=None, **chosen):
    """The model of a shape, reduced, on the meta device: counted without computing, however large."""
    with torch.device("meta"):
        model = vit(
            width=shape.width,
            heads=shape.heads,
            depth=shape.depth,
            patch=shape.patch,
            resolution=shape.resolution,
            classes=shape.classes,
            mlp_ratio=shape.mlp_ratio,
            distilled=shape.special == 2,
        )
        return model if method is None else method(model, **chosen)


def plain(shape):
    return [shape.tokens] * shape.depth


@pytest.mark.parametrize(
    "shape, matmul, fvcore",
    [(T, 1.2537, 1.2584), (S, 4.5989, 4.6083), (published.B, 17.5638, 17.5827)],
)
def test_plain_deit_counts_as_published(shape, matmul, fvcore):
    assert round(matmul_macs(shape, plain(shape)) / 1e9, 4) == matmul
    assert round(fvcore_macs(shape, plain(shape)) / 1e9, 4) == fvcore


@pytest.mark.parametrize("name", published.TIMM)
def test_plain_models_count_as_timm_publishes_to_the_last_digit(name):
    shape, gmacs = published.TIMM[name]
    assert round(fvcore_macs(shape, plain(shape)) / 1e9, 2) == gmacs


@pytest.mark.parametrize("name", published.TORCHVISION)
def test_plain_models_count_as_torchvision_publishes_to_the_last_digit(name):
    shape, gmacs = published.TORCHVISION[name]
    assert round(matmul_macs(shape, plain(shape)) / 1e9, 2) == gmacs


@pytest.mark.parametrize("name", ["deit_base_distilled_patch16_384", "vit_huge_patch14_clip_336"])
def test_executed_counts_of_plain_models_are_the_closed_form(name):
    shape, _ = published.TIMM[name]
    assert executed(on_meta(shape)) == matmul_macs(shape, plain(shape))


@pytest.mark.parametrize("name", ["ViT-S (DeiT) 2.9", "ViT-H (MAE) 103.4"])
def test_executed_counts_of_diffrate_are_the_closed_form_and_its_own_work(name):
    """Its own: the class token's row for the importance, and cosines of the merged with the kept."""
    shape, _, prune, merge = published.DIFFRATE[name]
    model = on_meta(shape, diffrate, prune=prune, merge=merge)
    total = executed(model)
    own, before = 0, shape.tokens
    for prune_to, merge_to in zip(prune[1:], merge[1:], strict=True):
        kept, left = min(prune_to, before), min(prune_to, merge_to, before)
        own += before * shape.width if left < before else 0
        own += (kept - left) * (left - 1) * shape.width
        before = left
    assert model.token_counts == schedules.diffrate_counts(prune, merge, shape.tokens)
    assert total == matmul_macs(shape, model.token_counts) + own


@pytest.mark.parametrize("shape, rate, _", published.SWAG_EVIT[:1])
def test_executed_counts_of_evit_are_the_closed_form_and_its_own_work(shape, rate, _):
    """Its own: the class token's row, and the weighted sum of the dropped patches."""
    model = on_meta(shape, evit, keep_rate=rate)
    total, counts = executed(model), evit_at(shape, rate)
    assert model.token_counts == counts
    steps = [(n, m) for n, m in zip([shape.tokens, *counts[:-1]], counts, strict=True) if m < n]
    assert total == matmul_macs(shape, counts) + sum((n + n - (m - 1)) * shape.width for n, m in steps)


@pytest.mark.parametrize("shape, r, gmacs", published.TOME)
def test_tome_counts_as_published_to_the_last_digit(shape, r, gmacs):
    counts = schedules.tome_counts([r] * shape.depth, shape.tokens)
    assert round(matmul_macs(shape, counts) / 1e9, 1) == gmacs
    assert round(fvcore_macs(shape, counts, own=tome_matching_macs(shape, counts)) / 1e9, 1) == gmacs


def evit_at(shape, rate, fuse=True):
    at = schedules.quarters(shape.depth)
    return schedules.evit_counts([rate] * len(at), at, shape.depth, shape.tokens, fuse=fuse)


@pytest.mark.parametrize("rate, fuse, gmacs", published.EVIT)
def test_evit_counts_as_published_to_the_last_digit(rate, fuse, gmacs):
    """Its counter, torchprofile, counts norms as well: 3.45 G at 0.8 without the fused token, printed as 3.5."""
    assert round(fvcore_macs(S, evit_at(S, rate, fuse)) / 1e9, 1) == gmacs


@pytest.mark.parametrize("shape, gmacs", published.DYNAMICVIT)
def test_dynamicvit_counts_as_published_without_its_predictors(shape, gmacs):
    entering = [197] * 3 + [138] * 3 + [97] * 3 + [68] * 3
    assert round(matmul_macs(shape, entering, entering) / 1e9, 1) == gmacs


#: What that table's counter adds for softmax and norms: 0.6 to 0.7 % of the plain models, less where tokens go.
SWAG_EXTRA = 0.008


@pytest.mark.parametrize("shape, gmacs", published.SWAG_PLAIN)
def test_plain_models_at_512_pixels_count_as_published(shape, gmacs):
    assert 0 < gmacs / (fvcore_macs(shape, plain(shape)) / 1e9) - 1 < SWAG_EXTRA


@pytest.mark.parametrize("shape, r, gmacs", published.SWAG_TOME)
def test_tome_at_512_pixels_counts_as_published(shape, r, gmacs):
    counts = schedules.tome_counts([r] * shape.depth, shape.tokens)
    ours = fvcore_macs(shape, counts, own=tome_matching_macs(shape, counts)) / 1e9
    assert 0 < gmacs / ours - 1 < SWAG_EXTRA


@pytest.mark.parametrize("shape, rate, gmacs", published.SWAG_EVIT)
def test_evit_at_512_pixels_counts_as_published(shape, rate, gmacs):
    assert 0 < gmacs / (fvcore_macs(shape, evit_at(shape, rate)) / 1e9) - 1 < SWAG_EXTRA


@pytest.mark.parametrize("name", published.DIFFRATE)
def test_diffrate_counts_as_published_to_the_last_digit(name):
    """Its counter charges the patch embedding for the class token as well."""
    shape, gmacs, prune, merge = published.DIFFRATE[name]
    counts = schedules.diffrate_counts(prune, merge, shape.tokens)
    special = shape.special * shape.width * shape.channels * shape.patch**2
    assert round((matmul_macs(shape, counts) + special) / 1e9, 3) == gmacs


@pytest.mark.parametrize("name", published.DIFFRATE_BUDGETS)
def test_diffrate_schedules_cost_what_they_were_learned_for(name):
    shape, gmacs, prune, merge = published.DIFFRATE_BUDGETS[name]
    counts = schedules.diffrate_counts(prune, merge, shape.tokens)
    assert round(matmul_macs(shape, counts) / 1e9, 1) == gmacs


def test_tome_at_13_counts_as_published():
    counts = schedules.tome_counts([13] * 12, 197)
    assert counts == list(range(184, 40, -13))
    assert round(matmul_macs(S, counts) / 1e9, 4) == 2.7027
    assert round(tome_matching_macs(S, counts) / 1e9, 4) == 0.0034


def test_tome_on_large_models_counts_as_recomputed_by_hand():
    """No published table of these could be read: 24 blocks at r = 8 leave 189, 181, ..., 13 and in the end 7 tokens."""
    counts = schedules.tome_counts([8] * 24, 197)
    assert counts[:3] == [189, 181, 173] and counts[-3:] == [21, 13, 7]
    assert matmul_macs(L, counts) == 768 * 1024 * 196 + 1000 * 1024 + sum(
        4 * n * 1024**2 + 2 * n * n * 1024 + 8 * m * 1024**2 for n, m in zip([197, *counts[:-1]], counts, strict=True)
    )


def test_evit_at_07_counts_as_published():
    counts = schedules.evit_counts([0.7] * 3, [4, 7, 10], 12, 197)
    assert counts == [197] * 3 + [140] * 3 + [100] * 3 + [72] * 3
    assert round(matmul_macs(S, counts) / 1e9, 4) == 3.0293


def test_one_list_of_diffrate_may_be_left_out():
    _, _, prune, merge = published.DIFFRATE["ViT-S (DeiT) 2.9"]
    assert schedules.diffrate_counts(prune, merge, 197) == schedules.diffrate_counts(merge, [None] * 12, 197) == merge


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
    for method, chosen in [
        (tome, {"r": 13}),
        (evit, {}),
        (diffrate, {"merge": published.DIFFRATE["ViT-S (DeiT) 2.9"][3]}),
    ]:
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
