"""Each method against a slow, obvious reference, a closed form or a setting whose result is known."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from bench.meters import macs
from suites.common.rectified_flow import noise
from suites.diffusion import cache_schedule as cq
from suites.diffusion import ecar as ec
from suites.diffusion import scale_dit as sd
from suites.diffusion import var as varnet
from suites.diffusion.banded import band_mask, band_pairs, banded_attention, executed_pairs, half_width
from suites.diffusion.bottleneck import bottleneck
from suites.diffusion.cachequant import cache_bytes as map_bytes
from suites.diffusion.cachequant import cachequant
from suites.diffusion.code import code
from suites.diffusion.fake_quantised import Rounded, Rounding, best_scale, rounded
from suites.diffusion.fewer_steps import fewer_steps
from suites.diffusion.flexdit import PoolingBlock, RecoveryBlock
from suites.diffusion.lambda_eclipse import prior
from suites.diffusion.mosaic_dit import mosaic_dit
from suites.diffusion.pattern_operator import macs as pattern_macs
from suites.diffusion.pattern_operator import pairs, pattern_attention
from suites.diffusion.patterns import PATTERNS, Layout
from suites.diffusion.rettention import WindowAttention, cache_bytes, rettention
from suites.diffusion.sparse_vdit import Search, agreement, sparse_vdit
from suites.diffusion.stages import fresh_noise, resized
from suites.diffusion.sun import Branch, adapters_of, sun
from suites.diffusion.vin import chunks_of, vin, weights_of
from suites.diffusion.windows import windowed
from tests.suites.diffusion.sampling import images, small_dit, small_unet, small_video, spread


def qkv(tokens, heads=2, size=4, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, heads, tokens, size, generator=generator).double() for _ in range(3)]


# ------------------------------------------------------------------------------------------ bands and re-ttention


@pytest.mark.parametrize("tokens, half", [(12, 0), (12, 1), (24, 4), (17, 3), (16, 7), (16, 40)])
def test_a_band_read_by_blocks_is_the_masked_dense_attention(tokens, half):
    q, k, v = qkv(tokens)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~band_mask(tokens, half), float("-inf"))
    out, mass = banded_attention(q, k, v, half)
    assert torch.allclose(out, scores.softmax(-1) @ v) and torch.allclose(mass, scores.logsumexp(-1))
    assert band_pairs(tokens, half) == int(band_mask(tokens, half).sum()) <= executed_pairs(tokens, half)


@pytest.mark.parametrize("frames, places, half", [(3, 8, 1), (2, 12, 2), (4, 5, 0), (3, 6, 9)])
def test_the_window_of_a_video_is_the_same_places_of_all_frames(frames, places, half):
    q, k, v = qkv(frames * places)
    mask = band_mask(places, half).repeat(frames, frames)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~mask, float("-inf"))
    out, mass = windowed(q, k, v, half, frames)
    assert torch.allclose(out, scores.softmax(-1) @ v) and torch.allclose(mass, scores.logsumexp(-1))
    kept = frames**2 * band_pairs(places, half)
    assert kept == int(mask.sum()) <= executed_pairs(frames * places, half, frames) <= (frames * places) ** 2


@pytest.mark.parametrize(
    "tokens, share, half", [(100, 0.29, 14), (50, 0.14, 3), (64, 0.25, 8), (33, 0.125, 2), (9, 0.1, 0)]
)
def test_half_of_the_window_is_that_of_the_whole_number_below_the_share(tokens, share, half):
    """0.29 x 100 = 29 and 0.14 x 50 = 7, of which floats make 28.999999999999996 and 7.000000000000001."""
    assert half_width(tokens, share) == half


def test_the_window_of_the_paper_keeps_its_share():
    half = half_width(4096, 1 / 32)
    assert 2 * half + 1 == 129 and band_pairs(4096, half) / 4096**2 == pytest.approx(0.0312462, abs=1e-7)


def attention(s=0.5, **changes):
    torch.manual_seed(0)
    plain = small_dit().blocks[0].attn.double()
    return WindowAttention(plain, s, **{"increment": 0.0, "use_ratio": True, "use_residual": True, **changes}), plain


def test_at_a_refresh_the_sparse_output_and_the_residual_are_the_full_output():
    layer, plain = attention()
    x = torch.randn(2, 16, 16, dtype=torch.double)
    with torch.no_grad():
        layer.mode = "refresh"
        full = layer(x)
        layer.mode = "sparse"
        assert torch.allclose(full, plain(x)) and torch.allclose(layer(x), full)


def test_a_window_over_everything_has_ratio_one_and_no_residual():
    layer, _ = attention(s=2.0)
    layer.mode = "refresh"
    with torch.no_grad():
        layer(torch.randn(2, 16, 16, dtype=torch.double))
    assert torch.allclose(layer.memory["ratio"], torch.ones(2, 2, 16, dtype=torch.double))
    assert layer.memory["residual"].abs().max() < 1e-12


def test_without_increment_the_rows_of_the_sparse_map_sum_to_the_mass_they_had():
    layer, _ = attention(use_residual=False)
    x = torch.randn(1, 16, 16, dtype=torch.double)
    layer.mode = "refresh"
    with torch.no_grad():
        layer(x)
    q, k, _ = layer.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    maps = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    inside = maps.masked_fill(~band_mask(16, half_width(16, 0.5)), 0).sum(-1)
    assert torch.allclose(layer.memory["ratio"], inside)


def test_the_ratio_grows_and_stops_at_one():
    layer, _ = attention(increment=0.3)
    x = torch.randn(1, 16, 16, dtype=torch.double)
    with torch.no_grad():
        layer.mode = "refresh"
        layer(x)
        layer.mode, before = "sparse", layer.memory["ratio"].clone()
        layer(x)
        assert torch.allclose(layer.memory["ratio"], (before + 0.3).clamp(max=1))


def test_what_lives_between_steps_is_a_residual_and_a_ratio_a_layer_and_branch():
    model = rettention(small_dit(), s=0.25, warmup=0, refresh=4)
    model.plan({"steps": 4, "guidance": 2.0})
    with torch.no_grad():
        state = model.step(0, model.start(model.example_noise(1, 0), model.example_cond(1)))
    held = sum(tensor.numel() * 4 for memory in state["memory"] for tensor in memory.values())
    assert held == cache_bytes(layers=2, branches=2, tokens=64, width=16, heads=2)
    model = cachequant(small_unet(), interval=2, schedule="uniform", correction=False)
    model.plan({"steps": 4, "guidance": 2.0})
    with torch.no_grad():
        state = model.step(1, model.step(0, model.start(model.example_noise(1, 0), model.example_cond(1))))
    assert 4 * state["feature"].numel() == map_bytes(branches=2, channels=16, side=8)


def test_the_plan_of_the_paper_has_eight_full_steps_of_twenty():
    course = rettention(small_dit(), s=1 / 32).course
    modes = [course.mode(index) for index in range(20)]
    assert (modes.count("full"), modes.count("refresh"), modes.count("sparse")) == (5, 3, 12)
    assert [index for index, mode in enumerate(modes) if mode == "refresh"] == [5, 10, 15]


# ------------------------------------------------------------------------------------------ bottleneck, flexdit


@pytest.mark.parametrize("side", [4, 6, 8, 12, 16])
def test_resizing_keeps_the_mean(side):
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    assert torch.allclose(resized(x, side).mean((2, 3)), x.mean((2, 3)))


def test_fresh_noise_is_normal_and_tells_nothing_of_the_first():
    first = noise(range(64), 0, (1, 16, 16))
    fresh = fresh_noise(first, 8, 3)
    assert abs(float(fresh.mean())) < 0.05 and abs(float(fresh.std()) - 1) < 0.05
    assert abs(float((fresh * first[:, :, :8, :8]).mean())) < 0.05
    assert torch.equal(fresh[5:6], fresh_noise(first[5:6], 8, 3)) and not torch.equal(fresh, fresh_noise(first, 8, 4))


def test_a_stage_begins_at_the_size_and_time_that_the_plan_says():
    model = bottleneck(small_dit(), scales=[1.0, 0.5, 1.0], steps=[2, 2, 2], strengths=[0.0, 0.5, 0.0])
    plan = model.plan({"steps": 6})
    assert [step["side"] for step in plan] == [8, 8, 4, 4, 8, 8]
    assert plan[2]["t"] == pytest.approx(2 / 3 + 0.5 / 3) and plan[4]["t"] == pytest.approx(1 / 3)
    assert plan[-1]["t"] - plan[-1]["dt"] == pytest.approx(0)


def test_a_stage_begins_no_lower_than_the_one_before_ended_whatever_its_shift():
    """Times of a stage bend by its shift; a strength of 0 goes on where the stage before ended."""
    sizes = {"scales": [1.0, 0.5, 1.0], "steps": [2, 2, 2]}
    model = bottleneck(small_dit(), **sizes, strengths=[0.0, 0.0, 0.5], shifts=[1.0, 2.0, 1.0])
    plan = model.plan({"steps": 6})
    ends = [step["t"] - step["dt"] for step in plan]
    assert plan[2]["t"] == pytest.approx(ends[1]) == pytest.approx(2 / 3)
    assert ends[3] == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))  # a third of the even chain, shifted by 2: a half
    assert plan[4]["t"] == pytest.approx(0.5 + 0.5 * 0.5) and ends[5] == pytest.approx(0)
    with pytest.raises(ValueError, match=r"stage 2 would begin at time 0\.667 .*: choose a shift below 10"):
        bottleneck(small_dit(), **sizes, strengths=[0.0] * 3, shifts=[1.0, 10.0, 1.0])


def test_equal_shifts_of_all_stages_are_the_grid_of_one():
    staged = bottleneck(small_dit(), scales=[1.0] * 3, steps=[1, 3, 2], strengths=[0.0] * 3, shifts=[3.0] * 3)
    whole = bottleneck(small_dit(), scales=[1.0], steps=[6], strengths=[0.0], shifts=[3.0])
    for one, two in zip(staged.plan({}), whole.plan({}), strict=True):
        assert one["t"] == pytest.approx(two["t"]) and one["dt"] == pytest.approx(two["dt"]) and "next_t" not in one
    assert torch.allclose(images(staged), images(whole), atol=1e-5)


def test_a_pooling_block_is_attention_with_equal_weights():
    block = small_dit().blocks[0]
    pooled = PoolingBlock(block)
    width = 16
    with torch.no_grad():
        block.attn.qkv.weight[: 2 * width] = 0
        block.attn.qkv.bias[: 2 * width] = 0
        x, condition = torch.randn(2, 9, width), torch.randn(2, width)
        assert torch.allclose(pooled(x, condition), block(x, condition), atol=1e-5)


def test_a_fresh_recovery_passes_the_dense_tokens_through():
    block = small_dit().blocks[0]
    recovery = RecoveryBlock(block, 16)
    dense, condition = torch.randn(2, 16, 16), torch.randn(2, 16)
    with torch.no_grad():  # with all tokens sparse, and the same as the dense ones, it is the plain block
        assert torch.allclose(recovery(dense, dense, condition), block(dense, condition), atol=1e-5)


# ------------------------------------------------------------------------------------------ cachequant


def random_features(steps=8):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(steps, 2, 3, 2, 2, generator=generator).cumsum(0)


@pytest.mark.parametrize("steps, interval", [(8, 2), (8, 3), (10, 5), (7, 3), (4, 20)])
def test_the_dynamic_program_finds_what_trying_everything_finds(steps, interval):
    distance = cq.distances(random_features(steps))
    groups = -(-steps // interval)
    least, most = cq.bounds(steps, groups, interval)
    tried = []
    for rest in itertools.combinations(range(1, steps), groups - 1):
        ends = [*rest, steps]
        lengths = [b - a for a, b in zip([0, *rest], ends, strict=True)]
        if all(least <= length <= most for length in lengths):
            tried.append(cq.schedule_cost(distance, [0, *rest]))
    best = cq.best_firsts(distance, groups, interval)
    assert cq.schedule_cost(distance, best) == pytest.approx(min(tried))
    assert min(tried) <= cq.schedule_cost(distance, cq.even_firsts(steps, groups)) + 1e-9


def test_the_correction_never_raises_the_error_and_is_least_squares():
    features = random_features().double()
    for index, factors in cq.corrections(features, [0, 4]).items():
        kept, wanted = features[4 * (index // 4)], features[index]
        after = cq.corrected(kept, factors)
        assert (after - wanted).square().sum() <= (kept - wanted).square().sum() + 1e-9
        rest = (after - wanted).transpose(0, 1).flatten(1)
        assert rest.mean(1).abs().max() < 1e-9  # what is left is orthogonal to 1 and to what was kept
        assert (rest * kept.transpose(0, 1).flatten(1)).sum(1).abs().max() < 1e-8
    assert torch.equal(cq.corrected(kept, (torch.ones(3), torch.zeros(3))), kept)


def test_rounded_values_lie_on_the_grid_and_few_bits_are_worse():
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    errors = []
    for bits in (8, 4):
        scale = best_scale(x, bits)
        found = rounded(x, scale, bits)
        assert torch.allclose(found / scale[:, None], (found / scale[:, None]).round(), atol=1e-4)
        errors.append(float((found - x).square().mean()))
    assert errors[0] < errors[1] / 20


def test_many_bits_are_the_plain_layer():
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 4, 3, padding=1)
    layer = Rounded(plain, 20, 20, Rounding(1, False))
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        layer.rounding.learning = "scales"
        layer(x)
        layer.rounding.learning = None
        assert torch.allclose(layer(x), plain(x), atol=1e-4)


# ------------------------------------------------------------------------------------------ videos


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("layout", [Layout(4, 6, 5, 1, 4), Layout(3, 9, 2, 2, 7), Layout(2, 4, 99, 9, 99)])
def test_a_pattern_attends_as_its_mask_says(name, layout):
    q, k, v = qkv(layout.tokens)
    pattern = PATTERNS[name]
    mask = pattern.mask(layout)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~mask, float("-inf"))
    wanted = scores.softmax(-1).nan_to_num(0) @ v
    assert torch.allclose(pattern.attend(q, k, v, layout), wanted)
    assert pattern.pairs(layout) == int(mask.sum()) <= pattern.executed(layout)


def test_multi_diagonals_lie_around_every_multiple_of_a_frame():
    mask = PATTERNS["multi_diagonal"].mask(Layout(3, 10, 0, 1, 1))
    i, j = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    near = torch.stack([(i - j - m * 10).abs() <= 1 for m in range(-3, 4)]).any(0)
    assert torch.equal(mask, near)


def test_heads_that_run_together_give_what_each_gives_alone():
    model = sparse_vdit(small_video(), band=5, columns=4)
    layer = model.blocks[0].attn
    layer.chosen = ("diagonal", "stripe", "diagonal", "skip")
    x = torch.randn(2, 96, 16)
    with torch.no_grad():
        q, k, v = layer.qkv(x).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        heads = [
            PATTERNS[kind].attend(q[:, i : i + 1], k[:, i : i + 1], v[:, i : i + 1], layer.layout)
            for i, kind in enumerate(layer.chosen)
        ]
        wanted = layer.proj(torch.cat(heads, dim=1).transpose(1, 2).flatten(2))
        assert torch.allclose(layer(x), wanted, atol=1e-5)


def test_the_choice_weighs_error_and_price_within_its_bounds():
    search = Search(lam=0.1, bound=0.5, skip_bound=0.02, videos=1)
    prices = {"full": 0.1, "diagonal": 0.02, "stripe": 0.01, "skip": 0.0}
    assert search.choice({"full": 0, "diagonal": 0.01, "stripe": 0.3, "skip": 1}, prices) == "diagonal"
    assert search.choice({"full": 0, "diagonal": 0.6, "stripe": 0.7, "skip": 1}, prices) == "full"
    assert search.choice({"full": 0, "diagonal": 0.03, "stripe": 0.03, "skip": 0.01}, prices) == "skip"
    assert search.choice({"full": 0, "diagonal": 0.09, "stripe": 0.2, "skip": 0.03}, prices) == "full"


def test_a_free_dense_head_is_always_kept_and_two_searches_can_be_compared():
    model = sparse_vdit(small_video(), lam=0.0, skip_bound=0.0, band=5, columns=4)
    chosen = Search(0.0, 0.5, 0.0, 1).run(model)
    assert chosen == [("full",) * 4] * 2
    other = Search(1.0, 1.0, 1.0, 1).run(model, seed=2)
    assert agreement(chosen, chosen) == 1.0 and 0 <= agreement(chosen, other) < 1


def test_chunks_cover_a_video_once_and_their_weights_are_positive_where_they_look():
    chunks = chunks_of(10, 4, 2)
    assert [(c.begin, c.end, c.low, c.after) for c in chunks] == [(0, 4, 0, 2), (4, 8, 2, 6), (8, 10, 6, 10)]
    for each in chunks:
        assert (weights_of(each, True) > 0).all() and weights_of(each, True).max() <= 1
        assert weights_of(each, False).sum() == each.end - each.begin


@pytest.mark.parametrize("frames, chunk, context", [(10, 4, 2), (40, 20, 8), (9, 3, 3), (7, 7, 2), (11, 5, 0)])
def test_early_and_late_the_weights_of_a_frame_add_up_to_one(frames, chunk, context):
    for early in (True, False):
        total = torch.zeros(frames)
        for each in chunks_of(frames, chunk, context):
            total[each.low : each.end] += weights_of(each, early)
        assert torch.allclose(total, torch.ones(frames))


def test_the_context_of_a_chunk_is_the_end_of_the_one_before_it_and_its_weight_rises():
    chunks = chunks_of(40, 20, 8)
    assert [(c.low, c.end) for c in chunks] == [(0, 20), (12, 40)]  # the first chunk has no neighbour before it
    assert torch.allclose(weights_of(chunks[1], True)[:9], torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9]) / 9)
    assert torch.allclose(weights_of(chunks[0], True)[-9:], torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1]) / 9)


def test_equal_velocities_of_all_chunks_are_averaged_to_themselves():
    model = vin(small_video(), chunk=2, context=1, global_tokens=3)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(0.7)
        model.plan({"steps": 2})
        x = model.example_noise(1, 0)
        found = model.course.velocity(model, x, torch.ones(1), torch.zeros(1, dtype=torch.long))
    assert torch.allclose(found, torch.full_like(x, 0.7))


def test_the_order_of_chunks_and_their_batch_change_nothing(monkeypatch):
    model = spread(vin(small_video(), chunk=2, context=1, global_tokens=3))
    model.plan({"steps": 1})
    x, t, classes = model.example_noise(2, 0), torch.full((2,), 0.8), torch.tensor([1, 2])
    with torch.no_grad():
        together = model.course.velocity(model, x, t, classes)
        apart = torch.cat([model.course.velocity(model, x[i : i + 1], t[:1], classes[i : i + 1]) for i in range(2)])
        shared = model.course._shared(model, x, model.condition(t, classes), chunks_of(6, 2, 1))
        monkeypatch.setattr(type(model.course), "_shared", staticmethod(lambda *_: shared))
        monkeypatch.setattr("suites.diffusion.vin.chunks_of", lambda *sizes: chunks_of(*sizes)[::-1])
        backwards = model.course.velocity(model, x, t, classes)
    assert torch.allclose(together, apart, atol=1e-5) and torch.allclose(together, backwards, atol=1e-5)


def test_global_tokens_carry_what_happens_in_other_chunks():
    alone = vin(small_video(), chunk=3, context=0, global_tokens=0)
    together = spread(vin(small_video(), chunk=3, context=0, global_tokens=4))
    for model, reaches in ((alone, False), (together, True)):
        model.plan({"steps": 1})
        x, y = model.example_noise(1, 0), model.example_noise(1, 0)
        y[:, :, 4] += 1  # a key frame of the second chunk
        t, classes = torch.full((1,), 0.2), torch.zeros(1, dtype=torch.long)
        with torch.no_grad():
            change = model.course.velocity(model, x, t, classes) - model.course.velocity(model, y, t, classes)
        assert bool(change[:, :, :3].abs().max() > 1e-6) is reaches


LAYOUTS = [Layout(4, 6, 5, 1, 4), Layout(3, 9, 2, 2, 7), Layout(2, 4, 99, 9, 99)]


@pytest.mark.parametrize("words", [0, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PATTERNS)
def test_a_bare_pattern_is_its_definition_and_counts_what_runs(name, layout, words):
    sizes = {"frames": layout.frames, "places": layout.places, "band": layout.band, "near": layout.near}
    settings = {**sizes, "columns": layout.columns, "pattern": name, "words": words, "heads": 2, "width": 4}
    operator = pattern_attention(**settings)
    inputs = operator.example_inputs(2)
    with torch.no_grad():
        torch.testing.assert_close(operator(*inputs).double(), operator.reference(*inputs), rtol=1e-4, atol=1e-5)
        counted = macs.count(operator, inputs, {}, second_count=False, inspect_values=False).macs / 2
    tokens = words + layout.tokens
    kept = 0 if name == "skip" else int(operator._seen(torch.arange(tokens), tokens).sum())
    assert pairs(name, layout, words) == kept and operator.macs_nonzero == 2 * 2 * 4 * kept
    assert counted == pattern_macs(settings, {}) >= operator.macs_nonzero
    assert operator.macs_dense == 2 * 2 * 4 * tokens**2


def test_the_lengths_of_the_papers_videos():
    assert 13 * 1350 + 226 == 17_776 and 11 * 4080 + 226 == 45_106
    with torch.device("meta"):
        operator = pattern_attention(frames=13, places=1350, words=226, heads=48, near=16, pattern="multi_diagonal")
    # words 226 x 17,776 and the video's 17,550 with them; 13 frames x 33 places for each of 17,550
    assert operator.macs_nonzero == 2 * 48 * 64 * (226 * 17_776 + 17_550 * 226 + 17_550 * 13 * 33)


# ------------------------------------------------------------------------------------------ scale-dit, sun


def test_a_crop_has_the_places_of_the_whole_and_nothing_larger_is_learned_from():
    torch.manual_seed(0)
    model, x = mosaic_dit(width=16, heads=2, depth=1, resolution=16), torch.randn(2, 1, 16, 16)
    whole, sides = model.embedded(x).unflatten(1, (8, 8)), set()
    model.crop = (3, 2)
    assert torch.allclose(model.embedded(x[:, :, 6:14, 4:12]).unflatten(1, (4, 4)), whole[:, 3:7, 2:6], atol=1e-6)
    model.crop = None
    model.register_forward_pre_hook(lambda _, inputs: sides.add(inputs[0].shape[-1]))
    loss = model.learning_loss(x, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(loss(x, torch.tensor([1, 2]))) for _ in range(6))
    assert sides == {8} and model.crop is None


def test_heun_follows_velocities_that_change_evenly_without_error():
    """Of v = 1 + 3 t the chain from 1 to 0 takes away 1 + 3 / 2; Euler's four steps take 1 + 3 (4 + 3 + 2 + 1) / 16."""
    for solver, taken in (("heun", 2.5), ("euler", 1 + 30 / 16)):
        model = fewer_steps(small_dit(), steps=4, solver=solver)
        model.velocity = lambda x, t, classes: torch.ones_like(x) * (1 + 3 * t[:, None, None, None])
        assert torch.allclose(model.example_noise(2, 0) - images(model), torch.tensor(taken), atol=1e-5)


def test_one_window_over_all_without_anchors_is_the_plain_network():
    plain = images(small_dit(), guidance=2.0)
    for order in ("window", "raster", "hilbert"):
        found = images(sd.scale_dit(small_dit(), window=8, anchor=0, order=order), guidance=2.0)
        assert torch.allclose(plain, found, atol=1e-4)


def test_orders_change_nothing_but_what_runs():
    runs = [
        images(sd.scale_dit(small_dit(), window=4, anchor=4, low_steps=2, order=order))
        for order in ("raster", "window", "hilbert")
    ]
    assert torch.allclose(runs[0], runs[1], atol=1e-4) and torch.allclose(runs[0], runs[2], atol=1e-4)


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_the_hilbert_order_is_a_bijection_whose_steps_are_neighbours(side):
    places = sd.ordered(side, 2, "hilbert").tolist()
    assert sorted(places) == list(range(side**2))
    for one, two in itertools.pairwise(places):
        assert abs(one // side - two // side) + abs(one % side - two % side) == 1


def test_a_raster_executes_more_blocks_than_windows_in_a_row():
    orders = {order: sd.executed_blocks(32, 16, order, block=128) for order in ("raster", "window", "hilbert")}
    assert orders["window"] == orders["hilbert"] == 4 * 2**2  # 256 tokens of a window are two blocks
    assert orders["raster"] == 2 * 4 * 4
    assert sd.pairs(16, 4, 4, 2) == 2 * 18 + 16 * 10 + 4 * 6


def test_adapters_that_give_nothing_are_the_conditional_branch():
    model = sun(small_unet(), steps=6, positive=True)
    with torch.no_grad():
        for each in adapters_of(model):
            for branch in each.adapter.values():
                branch.alpha.zero_()
                branch.beta.zero_()
    assert torch.equal(images(model, guidance=3.0), images(small_unet()))
    assert torch.equal(images(sun(small_unet(), steps=6, offset=False)), images(small_unet()))


class Learning:
    """A task that gives random samples and makes everything anew; what it was asked to remember."""

    def __init__(self, *shape):
        self.shape, self.asked = shape, []

    def training_batches(self, batch, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            yield torch.randn(2, *self.shape, generator=generator), torch.tensor([1, 2])

    def remembered(self, what, key, make):
        self.asked.append((what, key))
        return make()


def learning_unet():
    model = small_unet()
    model.task = Learning(1, 8, 8)
    return model


def test_adapters_of_another_number_of_steps_are_other_weights():
    """One long step learns two short ones of half its length, so that the length is part of what is remembered."""
    keys = []
    for steps in (2, 4):
        model = learning_unet()
        sun(model, steps=steps, training_steps=1)
        keys += model.task.asked
    (first, one), (second, two) = keys
    assert first == second == "sun" and one != two and one["steps"] == two["steps"] == 1


def test_another_base_draws_inverted_digits_which_are_turned_back():
    model = sun(learning_unet(), steps=6, offset=False, other_base=1)
    assert [what for what, _ in model.task.asked] == ["tuned_elsewhere"]
    plain = small_unet()
    before = images(plain)
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(images(model), -images(plain)) and not torch.allclose(images(plain), before, atol=1e-4)
    with pytest.raises(ValueError, match="set other_base=0"):
        sun(small_unet(), other_base=1)


def test_adapters_are_plugged_into_another_base_as_they_are():
    own, other = (sun(learning_unet(), steps=6, training_steps=1, other_base=batches) for batches in (0, 1))
    mine, theirs = own.state_dict(), other.state_dict()
    apart = {name for name, value in mine.items() if not torch.equal(value, theirs[name])}
    assert apart and not any("adapter" in name for name in apart)
    assert any("cross_attention.query" in name for name in apart)


def test_chunks_without_global_tokens_learn_as_well():
    model = small_video()
    model.task = Learning(1, 6, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = vin(model, chunk=3, context=1, global_tokens=0, training_steps=1)
    assert [what for what, _ in model.task.asked] == ["vin"] and not hasattr(found, "untrained")
    assert any(not torch.equal(value, before[name]) for name, value in found.state_dict().items())


def test_a_branch_has_the_norm_of_what_it_is_taken_from_sample_by_sample():
    layer = small_unet().middle_attention.cross_attention
    branch = Branch(layer.key.in_features, layer.key.out_features)
    q, context = torch.randn(2, 2, 5, 8), torch.randn(2, 1, layer.key.in_features)
    like = torch.randn(2, 5, 16)
    with torch.no_grad():
        found = branch(q, context, like)
        assert torch.allclose(found.flatten(1).norm(dim=1), like.flatten(1).norm(dim=1), rtol=1e-4)
        like[1] *= 100  # a neighbour changes nothing
        assert torch.allclose(branch(q, context, like)[0], found[0])


# ------------------------------------------------------------------------------------------ maps of codes and numbers


def small_var(**changes):
    torch.manual_seed(0)
    return spread(varnet.var(**{"width": 16, "heads": 2, "depth": 2, "scales": [1, 2, 4], "codes": 16, **changes}))


@torch.no_grad()
def test_scales_one_by_one_equal_all_at_once_under_the_mask():
    model = small_var().double()
    maps = [torch.randn(2, 4, side, side, dtype=torch.double) for side in model.scales]
    condition = model.class_embed(torch.tensor([1, 2]))
    together = model.run(maps, 0, condition, None, None)
    caches, apart = [[] for _ in model.blocks], []
    for k in range(3):
        apart.append(model.run(maps[k : k + 1], k, condition, caches, None))
    assert torch.allclose(together, torch.cat(apart, dim=1))
    prefix = [[] for _ in model.blocks]
    model.run(maps[:2], 0, condition, prefix, None)
    assert torch.allclose(model.run(maps[2:], 2, condition, prefix, None), apart[2])


@pytest.mark.parametrize("drafted", [1, 2])
def test_a_refiner_that_is_the_drafter_draws_the_plain_picture(drafted):
    plain, model = small_var(), code(small_var(), N=drafted, width=16, depth=2, heads=2)
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(("refiner.", "codebook"))}
    model.refiner.load_state_dict(own)
    assert torch.allclose(images(plain, guidance=1.0), images(model, guidance=1.0), atol=1e-5)


def test_codes_are_drawn_with_their_probabilities_and_unlikely_ones_never():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(1, 4000, 4)
    uniform = (torch.arange(4000)[None] + 0.5) / 4000
    shares = torch.bincount(varnet.drawn(logits, uniform, 900, 1.0)[0], minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=1e-3)
    assert set(varnet.drawn(logits, uniform, 2, 1.0)[0].tolist()) == {0, 1}
    assert set(varnet.drawn(logits, uniform, 900, 0.79)[0].tolist()) == {0, 1}


def test_codes_of_pictures_come_back_as_the_sum_that_the_sampler_makes():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(40, 4, 4, 4, generator=generator)
    book = varnet.codebook_of(maps, [1, 2, 4], 16, generator)
    inputs, codes = varnet.encoded(maps, book, [1, 2, 4])
    assert codes.shape == (40, 21) and [each.shape[-1] for each in inputs] == [1, 2, 4]
    total = sum(
        varnet.enlarged(F.embedding(part, book).transpose(1, 2).unflatten(-1, (side, side)), 4)
        for part, side in zip(codes.split([1, 4, 16], dim=1), [1, 2, 4], strict=True)
    )
    assert (maps - total).square().mean() < 0.5 * maps.square().mean()


def test_a_doubled_map_has_exactly_the_next_stage_s_mean_and_covariance():
    """On basis vectors: the map is linear in noise, and A A^T + B B^T has to be t^2 I."""
    t = 0.6
    end = ec.end_before(t)
    assert 2 * end / (1 + end) == pytest.approx(t)
    old, new = torch.eye(4).reshape(4, 1, 2, 2), torch.eye(16).reshape(16, 1, 4, 4)
    kept = ec.doubled(end * old, end, t, torch.zeros(4, 1, 4, 4)).flatten(1)
    added = ec.doubled(torch.zeros(16, 1, 2, 2), end, t, new).flatten(1)
    assert torch.allclose(kept.T @ kept + added.T @ added, t**2 * torch.eye(16), atol=1e-6)
    clean = ec.doubled((1 - end) * torch.ones(1, 1, 2, 2), end, t, torch.zeros(1, 1, 4, 4))
    assert torch.allclose(clean, torch.full((1, 1, 4, 4), 1 - t))


@torch.no_grad()
def test_one_stage_is_the_transformer_once_and_plain_euler_steps_of_the_flow():
    torch.manual_seed(0)
    model = spread(ec.ecar(width=16, heads=2, depth=1, flow_depth=1, S=1, K=4))
    found = images(model)
    x, classes = model.example_noise(2, 0), model.example_cond(2)
    told = model.emitted(None, 0, classes, [[]])
    for place in range(4):
        x = x - 0.25 * model.velocity(x, torch.full((2,), 1 - place / 4), classes, told)
    assert torch.allclose(found, x, atol=1e-5)


@torch.no_grad()
def test_the_slices_of_all_stages_cover_the_whole_interval():
    """Velocities that lead straight to a flat grey bring it exactly where the last slice ends at the picture."""
    model = ec.ecar(S=3, K=2)
    grey = 0.3
    model.velocity = lambda x, t, classes, told: (x - grey) / t[:, None, None, None]
    assert torch.allclose(images(model), torch.full((2, 1, 16, 16), grey), atol=1e-5)


def test_slices_of_time_begin_at_equal_distances_and_reach_the_picture():
    slices = ec.ecar(S=3).slices()
    assert [begin for begin, _ in slices] == pytest.approx([1, 2 / 3, 1 / 3]) and slices[-1][1] == 0
    assert ec.ecar(S=1).slices() == [(1.0, 0.0)]
    assert ec.flow_share(4) == pytest.approx(0.332, abs=1e-3) and ec.flow_share(1) == 1


@torch.no_grad()
def test_a_stage_s_condition_sees_earlier_maps_and_no_later_one():
    torch.manual_seed(0)
    model = spread(ec.ecar(width=16, heads=2, depth=2, flow_depth=1, S=3))
    maps = [torch.randn(1, 1, side, side) for side in model.sides]
    classes = torch.tensor([3])
    told = model._told(maps, classes)
    maps[1] = maps[1] + 1  # the map of the second stage is what the third is told
    again = model._told(maps, classes)
    assert torch.equal(told[0], again[0]) and torch.equal(told[1], again[1]) and not torch.equal(told[2], again[2])


# ------------------------------------------------------------------------------------------ the prior


@torch.no_grad()
def test_the_prior_reads_causally_and_answers_at_its_last_token():
    torch.manual_seed(0)
    model = spread(prior(embedding=12, width=16, heads=2, depth=2, words=5))
    block = model.blocks[0]
    x = torch.randn(1, 9, 16)
    y = x.clone()
    y[:, 6:] += 1
    assert torch.allclose(block(x)[:, :6], block(y)[:, :6], atol=1e-6)


@torch.no_grad()
def test_one_step_of_the_diffusion_prior_without_its_time_is_the_one_forward():
    torch.manual_seed(0)
    one = spread(prior(embedding=12, width=16, heads=2, depth=2, words=5))
    chain = spread(prior(embedding=12, width=16, heads=2, depth=2, words=5, chain=1))
    shared = {k: v for k, v in one.state_dict().items() if not k.startswith("edges")}
    chain.load_state_dict(shared, strict=False)
    for layer in (chain.time[2], one.edges):
        layer.weight.zero_()
        layer.bias.zero_()
    text, pooled, edges = one.example_cond(3)
    zeros = torch.zeros(3, 12)
    assert torch.allclose(one(zeros, text, pooled, edges), chain(zeros, text, pooled, torch.ones(3)), atol=1e-6)


@torch.no_grad()
def test_guidance_in_a_batch_of_two_is_two_forwards():
    torch.manual_seed(0)
    model = spread(prior(embedding=12, width=16, heads=2, depth=2, words=5, chain=4))
    model.plan({"steps": 4, "guidance": 3.0})
    (text, pooled, _), x = model.example_cond(2), torch.randn(2, 12)
    times = torch.full((2,), 0.5)
    aware = model(x, text, pooled, times)
    unaware = model(x, torch.zeros_like(text), torch.zeros_like(pooled), times)
    assert torch.allclose(model._guided(x, 0.5, text, pooled), unaware + 3 * (aware - unaware), atol=1e-5)
