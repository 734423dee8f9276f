"""Whole networks: relevance, prompts, patches, a search; closed forms of their costs."""

import copy
import math
from random import Random

import pytest
import torch
from torch import nn

from bench.meters import macs, nominal
from suites.common.digits_vit import digits_vit
from suites.common.patches import StageLayer, every_tile, mobilenet_v2_stage, sides, tile_elements, tile_macs
from suites.quantization import apq, apq_space
from suites.quantization.apq_net import apq_net, apq_supernet
from suites.quantization.fp_diffusion import fp_diffusion, same_noise_sqnr
from suites.quantization.lrp import relevances, scores, through_linear, through_product, through_sum
from suites.quantization.lrp_qvit import channel_ratios, log2_rounded, moved_into_affine
from suites.quantization.mixdq import by_two_lists, kind_of, mixdq, prompt_unet, structural_similarity
from suites.quantization.products import FORMS, product
from suites.quantization.quantmcu import (
    at_the_peak,
    entropy,
    grid_of,
    mixed,
    modelled_bit_operations,
    outlying,
    patch_net,
    quantmcu,
    tile_memory,
)

# ---------------------------------------------------------------------------------------------- relevance


def test_relevance_is_conserved_layer_by_layer():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.rand(3, 8, generator=generator).double() + 0.1, torch.rand(5, 8, generator=generator).double() + 0.1
    r = torch.rand(3, 5, generator=generator).double()
    torch.testing.assert_close(through_linear(x, w, r, 1e-12).sum(1), r.sum(1))
    a, b = torch.rand(2, 4, 6).double() + 0.1, torch.rand(2, 6, 3).double() + 0.1
    whole = torch.rand(2, 4, 3).double()
    of_a, of_b = through_product(a, b, whole, 1e-12)
    torch.testing.assert_close(of_a.sum() + of_b.sum(), whole.sum())
    torch.testing.assert_close(of_a.sum(), of_b.sum())
    c, d = through_sum(x, 2 * x, x)
    torch.testing.assert_close(c + d, x)
    torch.testing.assert_close(d, 2 * c)


def test_relevance_of_a_vit_without_biases_reaches_the_input():
    torch.manual_seed(0)
    model = digits_vit(width=16, heads=2, depth=2).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
    found = relevances(model, model.example_inputs(3)[0].double())
    start = found["head"].sum(dim=1)
    for path in ("blocks.0.mlp.fc2", "blocks.1.attn.qkv"):
        assert found[path].shape[0] == 3
    torch.testing.assert_close(found["input"].sum(dim=(1, 2)), start, rtol=1e-3, atol=1e-4)
    sums = {}
    for path, value in scores(found).items():
        sums[path.rpartition(".")[2]] = sums.get(path.rpartition(".")[2], 0) + value
    assert all(value == pytest.approx(1) for value in sums.values()) and len(sums) == 4


def test_channel_ratios_move_into_the_affine_and_leave_the_function():
    torch.manual_seed(0)
    norm, reader, x = nn.LayerNorm(8), nn.Linear(8, 5), torch.randn(4, 8)
    nn.init.normal_(norm.weight)
    wanted = reader(norm(x))
    ratios = channel_ratios(norm(x).abs().amax(dim=0).detach(), 0.9)
    assert torch.equal(torch.log2(ratios), torch.log2(ratios).round())
    moved_into_affine(norm, reader, ratios)
    torch.testing.assert_close(reader(norm(x)), wanted, rtol=1e-5, atol=1e-5)


def test_shares_are_rounded_to_powers_of_two():
    p = torch.tensor([1.0, 0.5, 0.26, 0.3, 1e-9, 0.0])
    assert log2_rounded(p, 4).tolist() == [1, 0.5, 0.25, 0.25, 0, 0]


# ---------------------------------------------------------------------------------------------- prompts


def test_the_first_word_is_kept_in_floats_and_the_rest_is_rounded():
    torch.manual_seed(0)
    plain = prompt_unet(width=8, heads=2, resolution=8)
    layer = copy.deepcopy(plain.middle_attention.cross_attention.key)
    words = plain.words(torch.tensor([1, 2]))
    assert words.shape == (2, 3, 8) and torch.equal(words[0, 0], words[1, 0])
    made = mixdq(copy.deepcopy(plain), calibration_samples=8)
    assert made.execution == "real-int"
    key = made.middle_attention.cross_attention.key
    wanted, found = layer(words), key(words)
    torch.testing.assert_close(found[:, 0], wanted[:, 0])
    assert not torch.equal(found[:, 1:], wanted[:, 1:])


def test_the_first_words_outlier_is_not_in_the_range_of_the_others():
    """Its vector is four times as large: with it inside, the others would have a quarter of the codes."""
    torch.manual_seed(0)
    plain = prompt_unet(width=8, heads=2, resolution=8)
    words = plain.words(torch.arange(11))
    rest = float(words[:, 1:].max().clamp(min=0) - words[:, 1:].min().clamp(max=0))
    first = float(words[:, 0].max().clamp(min=0) - words[:, 0].min().clamp(max=0))
    assert first > 1.5 * rest
    for settings, module in (({}, "layer"), ({"bits": "4"}, "layer.rounding")):
        made = mixdq(copy.deepcopy(plain), calibration_samples=8, **settings)
        key = made.get_submodule(f"middle_attention.cross_attention.key.{module}")
        scale = key.input_scale if module == "layer" else key.scale
        assert 0 < float(scale) * 255 <= rest * (1 + 1e-5)
    whole = mixdq(copy.deepcopy(plain), calibration_samples=8, first_word=False)
    assert float(whole.middle_attention.cross_attention.key.input_scale) * 255 > rest


@pytest.mark.parametrize("settings", [None, {}, {"first_word": False}, {"bits": "4"}, {"bits": "off"}], ids=str)
def test_a_plan_tells_the_products_of_a_prompt_of_three_words(settings):
    """Each of 3 cross-attentions has keys and values of 3 words, or of 2 where the first's are kept."""
    plain = prompt_unet(width=8, heads=2, resolution=8)
    made = plain if settings is None else mixdq(plain, calibration_samples=4, **settings)
    traced = macs.count(made, made.example_inputs(1)).value("matmul")
    assert made.evaluation_macs(8) == traced == made.plan({"steps": 2})[0]["macs"]


def test_two_lists_have_means_of_their_own():
    """Content 50 + 50 at a mean of 3: one of 2, one of 4. Quality 3 x 100 at 16/3: one of 8. Together 1/4 x 3 + 3/4 x
    16/3 = 4.75, at k = 3 / (16/3) = 0.5625. More bits help b and d most.
    """
    content = {p: {2: loss, 4: 0.0, 8: 0.0} for p, loss in (("a.gated", 0.1), ("b.gated", 0.2))}
    quality = {p: {4: loss, 8: 0.0} for p, loss in (("c.conv1", 1.0), ("d.conv1", 3.0), ("e.conv1", 2.0))}
    losses = {**content, **quality}
    sizes = {p: 50 if p in content else 100 for p in losses}
    found = by_two_lists(losses, sizes, 4.75, 0.5625)
    assert found == {"a.gated": 2, "b.gated": 4, "c.conv1": 4, "d.conv1": 8, "e.conv1": 4}
    with pytest.raises(ValueError, match="asks a mean of 3 of the quality list, which has 4, 8 bits"):
        by_two_lists(losses, sizes, 3.0, 1.0)
    with pytest.raises(ValueError, match="of the content list"):
        by_two_lists(losses, sizes, 6.0, 3.0)


def test_activations_are_mixed_and_the_most_sensitive_stay_floats():
    torch.manual_seed(0)
    plain = prompt_unet(width=8, heads=2, resolution=8)
    made = mixdq(plain, activation_target=6.0, steps=1, calibration_samples=4)
    assert made.execution == "simulated" and set(made.widths.values()) == {8}
    bits = made.activation_widths
    assert set(bits.values()) == {4, 8, 16} and list(bits.values()).count(16) == 1  # ceil of 1 % of its layers
    for path, width in bits.items():
        layer = made.get_submodule(path)
        layer = getattr(layer, "layer", layer) if hasattr(layer, "first") else layer
        assert layer.nominal_activation_bits == width and (layer.rounding is None) == (width == 16)


def test_layers_are_content_or_quality_and_similar_pictures_are_alike():
    assert kind_of("middle_attention.cross_attention.key") == "content" and kind_of("up1.conv1") == "quality"
    assert (
        kind_of("middle_attention.gated") == "content" and kind_of("middle_attention.self_attention.key") == "quality"
    )
    x = torch.rand(2, 1, 16, 16) * 2 - 1
    assert structural_similarity(x, x) == pytest.approx(1) and structural_similarity(x, x.flip(-1)) < 0.4


def test_pictures_from_the_same_noise_tell_eight_bits_from_four():
    torch.manual_seed(0)
    plain = prompt_unet(width=8, heads=2, resolution=8)
    assert same_noise_sqnr(plain, plain, batch=2, steps=2) == float("inf")
    made = {bits: fp_diffusion(copy.deepcopy(plain), bits=bits, calibration_samples=4) for bits in (4, 8)}
    apart = {bits: same_noise_sqnr(plain, each, batch=2, steps=2) for bits, each in made.items()}
    assert apart[8] > apart[4] + 3 and made[4].zero_shares["up1.conv1"] > made[8].zero_shares["up1.conv1"]


@pytest.mark.slow
def test_a_mixture_keeps_its_mean_of_bits():
    torch.manual_seed(0)
    made = mixdq(prompt_unet(width=8, heads=2, resolution=8), bits="mixed", target=6.0, steps=1, calibration_samples=4)
    sizes = {path: made.get_submodule(path).weight.numel() for path in made.widths}
    mean = sum(width * sizes[p] for p, width in made.widths.items()) / sum(sizes.values())
    assert abs(mean - 6.0) <= 0.03


# ---------------------------------------------------------------------------------------------- patches


def test_counts_of_the_patch_stage():
    stage = mobilenet_v2_stage(4)
    tiles = every_tile(stage, 224, 4)
    assert sides(stage, 224)[-1] == 28 and len(tiles) == 16
    assert sum(tile_macs(stage, 224, *tiles[5])) == 8_094_848
    assert 64 * sum(sum(tile_macs(stage, 224, *tile)) for tile in tiles) == 7_628_930_048


def test_more_tiles_than_places_are_refused():
    """32 px through strides 2 (stem) and 2 (second block) leave 8 places a side."""
    with pytest.raises(ValueError, match="tiles=9: the stage's last map has 8 places a side"):
        quantmcu(patch_net(width=0.25, blocks=2), tiles=9, bits=32)
    plain = patch_net(width=0.25, blocks=2)
    (x,) = plain.example_inputs(1)
    wanted = plain(x)
    torch.testing.assert_close(quantmcu(plain, tiles=8, bits=32)(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tiles", [1, 2, 3, 4])
def test_patches_compute_the_whole_picture(tiles):
    torch.manual_seed(0)
    plain = patch_net(width=0.25, blocks=3)
    (x,) = plain.example_inputs(2)
    wanted = plain(x)
    made = quantmcu(copy.deepcopy(plain), tiles=tiles, bits=32)
    torch.testing.assert_close(made(x), wanted, rtol=1e-4, atol=1e-5)


def test_products_do_not_depend_on_bits_and_are_those_of_the_tiles():
    plain = patch_net(width=0.25, blocks=2)
    args = plain.example_inputs(1)
    stage = mobilenet_v2_stage(2, 0.25)
    wanted = sum(sum(tile_macs(stage, 32, *tile)) for tile in every_tile(stage, 32, 2)) + plain.head.weight.numel()
    for bits in (2, 8, 32):
        made = quantmcu(copy.deepcopy(plain), tiles=2, bits=bits, calibration_samples=4)
        assert macs.count(made, args).value("matmul") == wanted


def test_without_outliers_every_patch_mixes_and_with_them_all_keep_eight_bits():
    torch.manual_seed(0)
    plain = patch_net(width=0.25, blocks=2)
    far = quantmcu(copy.deepcopy(plain), tiles=2, sigmas=1e6, calibration_samples=8)
    near = quantmcu(copy.deepcopy(plain), tiles=2, sigmas=0.1, calibration_samples=8)
    eight = quantmcu(copy.deepcopy(plain), tiles=2, bits=8, calibration_samples=8)
    assert all(min(each) < 8 for each in far.stage.bits) and all(set(each) == {8} for each in near.stage.bits)
    (x,) = plain.example_inputs(2)
    assert torch.equal(near(x), eight(x)) and far.nominal_bit_operations < near.nominal_bit_operations


def test_outliers_are_found_in_the_tiles_that_see_them():
    stage = mobilenet_v2_stage(1, 0.25)
    tiles = every_tile(stage, 32, 4)
    x = torch.randn(4, 3, 32, 32).clamp(-2, 2)
    x[0, 0, 1, 30] = 50.0
    found = outlying(x, stage, 32, tiles, 10.0)
    assert found == [place == 3 for place in range(16)]


def test_entropy_and_memory_of_maps():
    assert entropy(torch.tensor([0, 1, 2, 3])) == 2 and entropy(torch.zeros(9)) == 0
    assert tile_memory([100, 50, 10], [8, 8, 8]) == 150 and tile_memory([100, 50, 10], [4, 8, 2]) == 100
    stage = mobilenet_v2_stage(2, 0.25)
    tile = every_tile(stage, 32, 2)[0]
    bits = mixed(stage, 32, tile, [{2: 1.5, 4: 3.0, 8: 5.0}] * (len(stage) + 1), 0.5, 1.0)
    assert set(bits) == {8}
    assert min(mixed(stage, 32, tile, [{2: 1.5, 4: 3.0, 8: 5.0}] * (len(stage) + 1), 0.5, 0.4)) < 8


def test_steps_down_are_the_best_scored_ones_by_hand():
    """Maps of 8, 16 and 4 numbers, 32 and 16 products, 24 bytes that have to become 18. To 4 bits the entropy falls by
    a quarter, to 2 by three: the scores are 1/24 and -1/8 of the first map, -1/24 and -1/4 of the second, -1/8 and -3/8
    of the last. 4, 8, 8 bits take 20 bytes; then the first to 2 scores -1/6, the second to 4 the same -1/24: 12 bytes.
    """
    shapes = [StageLayer(2, 4), StageLayer(4, 1)]
    (tile,) = every_tile(shapes, 2, 1)
    assert mixed(shapes, 2, tile, [{2: 1.0, 4: 3.0, 8: 4.0}] * 3, 0.5, 0.75) == [4, 4, 8]
    assert modelled_bit_operations(shapes, 2, [tile], [[4, 4, 8]]) == 8 * 4 * (32 + 16)


def test_only_maps_at_the_peak_take_a_step():
    """Three maps of 2, 32 and 32 numbers: the last two hold 64 bytes. The first would lose no entropy at all and save
    products, and frees nothing; of the others the one whose entropy falls less goes to 4 bits, then 48 bytes are alive.
    """
    assert at_the_peak([2, 32, 32], [8, 8, 8]) == [1, 2] and at_the_peak([2, 32, 32], [8, 8, 4]) == [1, 2]
    assert at_the_peak([4, 4, 4], [8, 8, 8]) == [0, 1, 2]
    shapes = [StageLayer(1, 16), StageLayer(16, 16)]
    (tile,) = every_tile(shapes, 2, 1)
    free, dear, dearer = {2: 4.0, 4: 4.0, 8: 4.0}, {2: 1.0, 4: 3.0, 8: 4.0}, {2: 0.5, 4: 1.0, 8: 4.0}
    assert tile_elements(shapes, 2, *tile) == [4, 64, 64]
    assert mixed(shapes, 2, tile, [free, dear, dearer], 0.9, 0.75) == [8, 4, 8]


def test_a_maps_grid_has_the_range_of_the_least_squared_error():
    """A hundred thousand uniform numbers in [0, 1] and one of 20, in 4 bits: 15 steps of 20 would round all to 0 or
    4/3, with a squared error of 0.1 to 0.3 each; steps of 1/15 err by 1/2700, and lose 19 once.
    """
    values = torch.cat([torch.rand(100_000, generator=torch.Generator().manual_seed(0)), torch.tensor([20.0])])
    grid = grid_of(values, 4, patch_net().stage)
    # the candidates are fiftieths of the largest: 1.2 is the least that cuts nothing else off
    assert 0.8 <= float(grid(torch.tensor([100.0]))) <= 1.6
    assert float((grid(values[:-1]) - values[:-1]).square().mean()) < 1e-3


def test_memory_of_patches_is_the_largest_tiles_and_the_whole_output():
    """32 px, 8 -> 8 -> 8 channels at 16 px: a picture of 3072 B and a map of 2048. The lower half of a side needs
    places 7 to 15 of the stem's and 13 to 31 of the picture's: 3 x 361 + 8 x 81 B, more than 8 x (81 + 64); the output
    has 2048.
    """
    plain = patch_net(width=0.25, blocks=1)
    assert [(s.inputs, s.outputs) for s in plain.stage.shapes] == [(3, 8), (8, 8), (8, 8)]
    assert plain.engine_peak_bytes == max(3 * 1024 + 8 * 256, 2 * 8 * 256)
    made = quantmcu(copy.deepcopy(plain), tiles=2, bits=8, calibration_samples=4)
    assert made.engine_peak_bytes == max(3 * 19 * 19 + 8 * 81, 8 * (81 + 64)) + 8 * 256
    assert made.weight_sqnr_db > 30


# ---------------------------------------------------------------------------------------------- a search


def test_the_papers_space_has_its_counts_and_codes():
    one = apq_space.uniform(apq_space.PAPER, 2, 3, 4.0)
    assert apq_space.macs(one) == 191_472_128
    plain, bits = apq_space.code_length()
    assert (plain, plain + bits, apq_space.PAPER.blocks) == (520, 772, 21)
    predictor = apq.Predictor(520, 0)
    assert sum(p.numel() for p in predictor.parameters()) == 529_601
    assert predictor.with_bits(252).branch.weight.shape == (400, 252)


def test_a_counted_network_is_its_closed_form():
    space = apq_space.DIGITS
    net = apq_net(size="digits", depth=2, expansion=3, kernel=5)
    count = macs.count(net, net.example_inputs(1))
    assert count.value("matmul") == apq_space.macs(net.architecture, space)
    random = Random(3)
    for _ in range(3):
        one = apq_space.random_architecture(space, random)
        made = apq.quantised_net(apq_supernet().taken_out(one), one, [torch.randn(1, 2, 3, 16, 16).unbind(0)])
        count = macs.count(made, made.example_inputs(1))
        (reading,) = nominal.operations(count, made, "forward", 1)
        assert reading.value == apq_space.bit_operations(one, space)


def test_a_network_taken_out_is_the_part_of_the_shared_one():
    torch.manual_seed(0)
    shared, random = apq_supernet(), Random(1)
    (x,) = shared.example_inputs(2)
    for _ in range(3):
        one = apq_space.random_architecture(apq_space.DIGITS, random)
        torch.testing.assert_close(shared.taken_out(one)(x), shared.run(x, one), rtol=1e-4, atol=1e-5)


def test_codes_are_one_hot_and_children_are_in_the_space():
    space, random = apq_space.PAPER, Random(0)
    a, b = (apq_space.random_architecture(space, random) for _ in range(2))
    code = apq_space.encoded(a, space)
    running = len(a.active(space))
    assert sum(code[:520]) == 2 * running and sum(code[520:]) == 4 * running and set(code) <= {0.0, 1.0}
    child = apq_space.crossed(a, b, random)
    assert all(k in (x, y) for k, x, y in zip(child.kernels, a.kernels, b.kernels, strict=True))
    assert apq_space.mutated(a, space, random, 0.0) == a


def test_evolution_finds_the_best_below_its_limit():
    space = apq_space.DIGITS
    limit = 0.3 * apq_space.bit_operations(apq_space.uniform(space, kernel=7), space)
    score = lambda members: torch.tensor([float(apq_space.macs(m, space)) for m in members])  # noqa: E731
    one, seen = apq.evolved(score, space, limit, population=40, generations=15)
    assert apq_space.bit_operations(one, space) <= limit and seen == 40 + 15 * 40
    first, _ = apq.evolved(score, space, limit, population=40, generations=0)
    assert apq_space.macs(one, space) > apq_space.macs(first, space)
    with pytest.raises(ValueError, match="below the smallest"):
        apq.evolved(score, space, 1.0)


@pytest.mark.slow
def test_a_predictor_that_is_carried_over_ranks_networks():
    torch.manual_seed(0)
    net = apq_supernet()
    images = torch.randn(32, 3, 16, 16)
    judge = apq.Judge(net, images, torch.randint(0, 10, (32,)))
    found = apq.transfer_correlation(judge, apq_space.DIGITS, 10, pairs=20, held_out=10, steps=50)
    assert -1 <= found <= 1


def test_a_search_says_how_well_its_predictor_ranks():
    torch.manual_seed(0)
    few = {"pairs": 2, "quantised_pairs": 2, "population": 2, "generations": 0, "predictor_steps": 2}
    made = apq.apq(apq_supernet(), calibration_samples=4, held_out=3, **few)
    assert "2 + 2 networks scored, 2 predicted; " in made.method_cost["note"]
    assert "rank correlation" in made.method_cost["note"] and "on 3 networks" in made.method_cost["note"]
    assert "correlation" not in apq.apq(apq_supernet(), calibration_samples=4, **few).method_cost["note"]


def test_a_branch_for_bits_says_nothing_before_it_learns():
    torch.manual_seed(0)
    plain = apq.Predictor(6, 0, hidden=8)
    more = plain.with_bits(4)
    code = torch.rand(5, 10)
    torch.testing.assert_close(more(code), plain(code[:, :6]))
    assert apq.rank_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 4, 9])) == 1


def test_pictures_tell_apart_what_the_shared_network_makes_of_them_before_it_learns():
    """Without norms behind its first layers its biases drowned the picture, and it learned nothing of the digits."""
    torch.manual_seed(0)
    net = apq_supernet()
    features = []
    net.head.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    with torch.no_grad():
        net(torch.randn(32, 3, 16, 16))
    (found,) = features
    assert float(found.std(dim=0).mean() / found.std()) > 0.12


# ---------------------------------------------------------------------------------------------- one product


@pytest.mark.parametrize(
    "settings",
    [
        {"form": form}
        for form in (
            "fp32",
            "bf16",
            "int8",
            "int8dynamic",
            "int8pack",
            "int4pack",
            "ternary",
            "bitmod",
            "fp8",
            "simulated",
        )
    ]
    + [{"form": "fp8", "granularity": each} for each in ("tensor", "row")]
    + [{"form": "fp8", "accumulate": each} for each in ("promote", "fp16-like")]
    + [{"form": "simulated", "grid": "int8", "values": each} for each in ("uniform", "heavy")]
    + [{"form": "fp8", "scale": "ue8m0"}, {"form": "simulated", "grid": "e3m4"}, {"form": "int8", "outputs": 48}],
    ids=str,
)
def test_every_form_is_the_product_of_what_its_codes_stand_for(settings):
    torch.manual_seed(0)
    made = product(length=8, width=192, **settings)
    args = made.check_args(0)
    found, wanted = made(*args).double(), made.reference(*args)
    assert float((found - wanted).norm() / wanted.norm()) < made.tolerance
    assert found.shape == (8, settings.get("outputs", 192))
    assert made.execution == FORMS[settings["form"]][0]


def test_whole_numbers_are_for_even_values_and_floats_for_a_tail():
    found = {}
    for values in ("uniform", "normal", "heavy"):
        for grid in ("int8", "e4m3"):
            made = product(form="simulated", grid=grid, length=64, width=192, values=values)
            found[grid, values] = made.activation_sqnr_db
            assert made.weight_sqnr_db < math.inf and made.product_sqnr_db < made.weight_sqnr_db
    assert found["int8", "uniform"] == pytest.approx(48.1, abs=0.2)  # 6.02 x 8 bits: the range ends where values do
    assert found["int8", "uniform"] > found["int8", "normal"] > found["int8", "heavy"]
    assert found["e4m3", "uniform"] < found["int8", "uniform"] - 6
    assert found["e4m3", "heavy"] > found["e4m3", "normal"] - 3.5
    assert found["int8", "heavy"] < found["e4m3", "heavy"] + 6
    assert product(width=192).weight_sqnr_db == math.inf


def test_eight_bit_float_products_ask_for_a_gpu():
    with pytest.raises(NotImplementedError, match="GPU"):
        made = product(form="fp8_gpu", granularity="row", length=2, width=32)
        made(*made.example_inputs(1))
