"""ToMe, EViT and DiffRate against slow references, against the plain model, and on wrong settings."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suites.common.vit import vit
from suites.vit_tokens.diffrate import diffrate
from suites.vit_tokens.evit import evit
from suites.vit_tokens.tome import tome
from tests.suites.conftest import spread
from tests.suites.vit_tokens import references

DEPTH, TOKENS = 4, 26


def agree(model, reduced, reference):
    images = torch.randn(2, 3, model.resolution, model.resolution, dtype=torch.double)
    with torch.no_grad():
        fast = reduced(images)
        slow = [references.forward(model, image, reference) for image in images]
    assert torch.allclose(fast, torch.stack([logits for logits, _ in slow]), atol=1e-6)
    assert reduced.token_counts == slow[0][1]


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("r", [3, 9, [2, 0, 5, 1], (4, -1.0)])
def test_tome_agrees_with_the_reference(small, r, proportional, distilled):
    model = small(distilled=distilled)
    reduced = tome(copy.deepcopy(model), r=r, proportional=proportional)
    merges = {3: [3] * 4, 9: [9] * 4, (4, -1.0): [8, 5, 2, 0]}.get(r if not isinstance(r, list) else None, r)
    agree(model, reduced, references.tome(merges, 1 + distilled, proportional))


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("rate", [0.9, 0.5, 0.1])
def test_evit_agrees_with_the_reference(small, rate, fuse, distilled):
    model = small(distilled=distilled)
    reduced = evit(copy.deepcopy(model), keep_rate=rate, fuse_token=fuse, at=[1, 3])
    agree(model, reduced, references.evit(rate, (1, 3), fuse, 1 + distilled))


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize(
    "prune, merge",
    [
        ([26, 26, 22, 9], [26, 23, 15, 9]),
        ([26, 20, 12, 6], [26, 26, 26, 26]),
        ([26, 26, 26, 26], [26, 20, 12, 6]),
        ([10, 24, 24, 24], [10, 24, 20, 30]),
        ([26, 15, 10, 4], [26, 12, 7, 3]),
    ],
)
def test_diffrate_agrees_with_the_reference(small, prune, merge, distilled):
    model = small(distilled=distilled)
    reduced = diffrate(copy.deepcopy(model), prune=prune, merge=merge)
    agree(model, reduced, references.diffrate(prune, merge, 1 + distilled))


@given(
    heads=st.sampled_from([1, 2, 4]),
    depth=st.integers(1, 4),
    resolution=st.sampled_from([4, 8, 16, 28]),
    distilled=st.booleans(),
    data=st.data(),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_schedule_on_any_shape_agrees_with_the_reference(small, heads, depth, resolution, distilled, data):
    model, special = small(heads=heads, depth=depth, resolution=resolution, distilled=distilled), 1 + distilled
    merges = data.draw(st.lists(st.integers(0, 30), min_size=depth, max_size=depth))
    agree(model, tome(copy.deepcopy(model), r=merges), references.tome(merges, special))
    rate, at = data.draw(st.floats(0.02, 1)), sorted(data.draw(st.sets(st.integers(1, depth), min_size=1)))
    agree(model, evit(copy.deepcopy(model), keep_rate=rate, at=at), references.evit(rate, at, True, special))
    kept = st.lists(st.integers(special + 1, 60), min_size=depth, max_size=depth)
    prune, merge = data.draw(kept), data.draw(kept)
    agree(model, diffrate(copy.deepcopy(model), prune=prune, merge=merge), references.diffrate(prune, merge, special))


@pytest.mark.parametrize(
    "method, chosen",
    [
        (tome, {"r": 0}),
        (tome, {"r": [0, 0, 0, 0]}),
        (evit, {"keep_rate": 1.0, "at": [1, 2, 3]}),
        (diffrate, {"prune": [26] * 4, "merge": [99] * 4}),
    ],
)
def test_removing_nothing_gives_the_plain_model_bit_for_bit(method, chosen):
    model = spread(vit(width=16, heads=2, depth=4, patch=4, resolution=20, classes=5))
    images = torch.randn(3, 3, 20, 20)
    with torch.no_grad():
        plain = model(images)
        assert torch.equal(method(model, **chosen)(images), plain)


@pytest.mark.parametrize(
    "method, chosen", [(tome, {"r": 4}), (evit, {"at": [1, 3]}), (diffrate, {"merge": [26, 20, 14, 8]})]
)
def test_images_of_a_batch_do_not_touch_each_other(small, method, chosen):
    model = method(small(), **chosen)
    images = torch.randn(3, 3, 20, 20, dtype=torch.double)
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-10)


@given(seed=st.integers(0, 99), r=st.integers(0, 20), distilled=st.booleans())
@settings(max_examples=25, deadline=None)
def test_merging_keeps_the_number_of_patches(seed, r, distilled):
    torch.manual_seed(seed)
    model = tome(vit(width=8, heads=2, depth=3, patch=4, resolution=20, classes=3, distilled=distilled), r=r)
    model.trace_sources = True
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, tokens: seen.append(tokens.sizes.sum(dim=1)))
    with torch.no_grad():
        model(torch.randn(2, 3, 20, 20))
    assert all(torch.equal(total, torch.full((2,), 26.0 + distilled)) for total in seen)
    assert torch.equal(model.source_maps[-1][:, 0], torch.zeros(2, dtype=torch.long)) or r > 0


def test_source_map_says_which_patches_a_token_is_the_mean_of(small):
    """With attention and MLP silenced a merged token is the mean of its patches' embeddings."""
    model = small()
    for block in model.blocks:
        for linear in (block.attn.proj, block.mlp.fc2):
            linear.weight.data.zero_()
            linear.bias.data.zero_()
    model = tome(model, r=5)
    model.trace_sources = True
    images, out = torch.randn(1, 3, 20, 20, dtype=torch.double), []
    model.blocks[-1].register_forward_hook(lambda _, __, tokens: out.append(tokens.x))
    with torch.no_grad():
        model(images)
        start = model.embed(images).x[0]
    owner = model.source_maps[-1][0]
    for token in range(out[0].shape[1]):
        assert torch.allclose(out[0][0, token], start[owner == token].mean(0), atol=1e-6)


def test_dropped_patches_have_no_owner_and_fused_ones_share_one(small):
    for fuse in (True, False):
        model = evit(small(), keep_rate=0.5, at=[2], fuse_token=fuse)
        model.trace_sources = True
        with torch.no_grad():
            model(torch.randn(1, 3, 20, 20, dtype=torch.double))
        owner = model.source_maps[-1][0]
        gone = 14 if fuse else -1
        assert int((owner == gone).sum()) == 25 - 13
        assert sorted(owner[owner != gone].tolist()) == list(range(14))


def test_dropped_tokens_of_tome_have_no_owner_where_merged_ones_have():
    for mode, gone in (("merge", 0), ("drop", 4 + 4)):
        model = tome(vit(width=8, heads=2, depth=2, patch=4, resolution=20, classes=3), r=4, mode=mode)
        model.trace_sources = True
        with torch.no_grad():
            model(torch.randn(3, 3, 20, 20))
        for owner in model.source_maps[-1]:
            assert int((owner < 0).sum()) == gone
            assert set(owner[owner >= 0].tolist()) == set(range(26 - 8))


def test_dropping_instead_of_merging_removes_as_many_tokens(small):
    merged, dropped = tome(small(), r=4), tome(small(), r=4, mode="drop")
    images = torch.randn(1, 3, 20, 20, dtype=torch.double)
    with torch.no_grad():
        assert not torch.allclose(merged(images), dropped(images))
    assert merged.token_counts == dropped.token_counts == [22, 18, 14, 10]


@pytest.mark.parametrize(
    "method, chosen, message",
    [
        (tome, {"r": -1}, r"r=-1: .* >= 0 \(depth 4\)"),
        (tome, {"r": [1, 2, 3]}, "3 entries for 4 blocks"),
        (tome, {"r": (4, 2.0)}, r"inflect in -1\.\.1 \(depth 4\)"),
        (tome, {"r": [1, 2, 3, -4]}, r">= 0 \(depth 4\)"),
        (evit, {"at": [4, 7, 10]}, r"at=\[4, 7, 10\]: .* 1\.\.4 .*leave it out for \[2, 3, 4\]"),
        (evit, {"at": [0, 1]}, r"1\.\.4 \(depth 4\)"),
        (evit, {"at": [3, 2]}, "must increase"),
        (evit, {"at": [2], "keep_rate": 0.0}, "keep_rate=0.0: .* 0 < rate <= 1"),
        (evit, {"at": [2], "keep_rate": 1.5}, "keep_rate=1.5"),
        (evit, {"at": [2], "keep_rate": [0.5, 0.5]}, "2 entries for 1 stages"),
        (diffrate, {}, "needs either prune=.* and merge=.*4 blocks"),
        (diffrate, {"prune": [26, 20]}, "prune has 2 entries for 4 blocks"),
        (diffrate, {"merge": [26, 20, 10, 1]}, "merge=.* >= 2"),
    ],
)
def test_wrong_settings_name_setting_range_and_depth(small, method, chosen, message):
    with pytest.raises(ValueError, match=message):
        method(small(), **chosen)


def test_other_networks_and_second_methods_are_refused(small):
    with pytest.raises(ValueError, match=r"not on Linear: take deit_small.*native=True"):
        tome(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="class_token=True"):
        evit(small(class_token=False, pool="mean"), at=[2])
    with pytest.raises(ValueError, match="block 1 already has Merge"):
        evit(tome(small(), r=2), at=[2])


@pytest.mark.parametrize(
    "method, chosen", [(tome, {"r": 4}), (evit, {"at": [1, 3]}), (diffrate, {"merge": [26, 20, 14, 8]})]
)
def test_gradients_reach_every_weight(small, method, chosen):
    model = method(small(), **chosen).train()
    model(torch.randn(2, 3, 20, 20, dtype=torch.double)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "method, chosen", [(tome, {"r": 4}), (evit, {"at": [1, 3]}), (diffrate, {"merge": [26, 20, 14, 8]})]
)
def test_reduced_models_run_in_bfloat16(method, chosen):
    model = method(vit(width=16, heads=2, depth=4, patch=4, resolution=20, classes=5), **chosen).bfloat16()
    with torch.no_grad():
        out = model(*model.example_inputs(2))
    assert out.dtype == torch.bfloat16 and torch.isfinite(out.float()).all()
