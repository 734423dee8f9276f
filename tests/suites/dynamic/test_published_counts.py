"""Counts that papers print or that follow from them, to the last digit."""

import re
from pathlib import Path

import pytest
import torch

from suites.common.decoder import published_decoder
from suites.common.digits_resnet import digits_resnet
from suites.common.digits_vit import digits_vit
from suites.common.vit import vit
from suites.dynamic import closed_forms
from suites.dynamic import elasticvit_space as evit
from suites.dynamic import pcsr as pixels
from suites.dynamic.canvas import mean_side, sketchy_features
from suites.dynamic.cbnet import breakeven, cbnet
from suites.dynamic.elasticvit import elasticvit_net
from suites.dynamic.ftwt import ftwt
from suites.dynamic.jei_dnn import jei_dnn
from suites.dynamic.lenet import b_lenet, lenet
from suites.dynamic.matformer import combinations, matformer, non_decreasing, training_share
from suites.dynamic.ofa import ofa, ofa_net
from suites.dynamic.ofa_space import (
    choice,
    deps_work,
    digits_space,
    expected_macs,
    fixed_kernel,
    macs,
    mobilenet_v3_space,
    sandwich_work,
    smallest,
    steps_of_work,
)  # fmt: skip
from suites.dynamic.sortednet import sorted_lm
from suites.dynamic.sr_nets import sr_net
from suites.dynamic.t2t import t2t_vit
from suites.dynamic.vgg_bn import vgg_bn
from suites.pruning.nets.resnet_cifar import resnet_cifar

from . import counting

PIXEL_58MS = {
    "depth": [2, 3, 3, 3, 4],
    "expand": [3, 3, 4, 3, 3, 6, 4, 3, 4, 4, 3, 6, 6, 6, 4],
    "kernel": [3, 3, 7, 5, 3, 5, 5, 5, 3, 7, 5, 5, 7, 3, 3],
}
PIXEL_79MS = {
    "depth": [2, 2, 3, 4, 4],
    "expand": [3, 3, 3, 4, 4, 4, 3, 6, 4, 4, 3, 6, 6, 6, 3],
    "kernel": [3, 3, 5, 3, 7, 5, 3, 5, 3, 3, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize(
    "net, of, products, parameters",
    [
        ({}, {}, 566_170_656, 7_664_760),
        ({"resolution": 128}, {"depth": 2, "expand": 3, "kernel": 3}, 41_476_224, 3_410_792),
        ({"resolution": 220}, PIXEL_58MS, 229_846_296, 5_809_576),
        ({"width": 1.2}, PIXEL_79MS, 355_469_648, 8_168_608),
    ],
)
def test_sub_networks_of_once_for_all_cost_what_is_published(net, of, products, parameters):
    assert counting.on_meta(lambda: ofa(ofa_net(**net), **of)) == (products, 0, parameters)
    space = mobilenet_v3_space(net.get("width", 1.0))
    assert macs(space, choice(space, **of), net.get("resolution", 224)) == products


def test_the_space_has_as_many_members_as_the_paper_says_and_its_mean_cost_is_that_of_all_of_them():
    space = mobilenet_v3_space()
    assert space.size == 7371**5
    small = fixed_kernel(space, 7)
    assert deps_work(small, 224) == pytest.approx(1.608476, abs=5e-7)
    # two units of two depths and two expansions, all 36 of them by hand
    from dataclasses import replace
    from itertools import product

    tiny = replace(small, widths=(24, 40), strides=(2, 1), gated=(False, True), hswish=(False, True), depths=(1, 2),
                   expands=(3, 6))  # fmt: skip
    total, weight = 0.0, 0.0
    for depths in product((1, 2), repeat=2):
        options = list(product((3, 6), repeat=sum(depths)))
        for expands in options:
            total += macs(tiny, choice(tiny, list(depths), list(expands), 7), 64) / len(options)
        weight += 1
    assert expected_macs(tiny, 64) == pytest.approx(total / weight)
    assert macs(tiny, smallest(tiny), 64) < expected_macs(tiny, 64) < macs(tiny, choice(tiny), 64)


def test_schedules_of_delayed_shrinking_in_the_grid_are_worth_the_same_work():
    space = digits_space()
    # largest 1,228,288, smallest 484,672, a random one 777,376 on average: a later step is worth
    # (1,228,288 + 484,672 + 2 x 777,376) / 1,228,288 = 2.660379 steps of the largest
    assert macs(space, choice(space), 32) == 1_228_288 and macs(space, smallest(space), 32) == 484_672
    assert expected_macs(space, 32) == pytest.approx(777_376)
    assert sandwich_work(space, 32) == pytest.approx(2.660379, abs=5e-7)
    # 300 steps of which half are later ones: 150 + 150 x 2.660379 = 549.06; from the first step 549.06 / 2.660379 = 206
    assert [steps_of_work(space, 32, warm, 549.06) for warm in (0, 0.25, 0.5, 0.75)] == [206, 245, 300, 388]
    text = (Path(__file__).parents[3] / "suites" / "dynamic" / "suite.yaml").read_text()
    rows = set(re.findall(r"deps\(warm=([\d.]+), .*?training_steps=(\d+)\)", text))
    assert rows == {("0", "206"), ("0.25", "245"), ("0.5", "300"), ("0.75", "388")}


def test_elasticvit_s1_costs_what_is_derived_and_its_own_formula_leaves_out_gates_and_taps():
    products, _, _ = counting.on_meta(elasticvit_net)
    assert products == evit.macs(evit.S1, 192) == 221_549_056
    assert evit.released_flops(evit.S1, 192) == 217_641_922


def test_sizes_of_elasticvit_may_be_given_for_all_a_stage_or_a_block():
    as_published = {"expansions": [1, 3, 3, 3, 3, 3, 3], "kernels": 3, "mlp": [2, 2, 2, 2, 3, 3, 4, 4], "values": 2}
    assert elasticvit_net(**as_published).shape == evit.S1
    assert elasticvit_net(mlp=[2, 2, 3, 4], expansions=3).shape == evit.S1
    plain = evit.macs(evit.S1, 192)
    # MLP ratio 3 for 2 in the second block of the third stage, 12 x 12 tokens of 64: 144 x 2 x 64^2
    # kernel 5 for 3 in the second block of the first stage, 48 x 48 places of 72 channels: 48^2 x 72 x (25 - 9)
    # a third block of the last stage, 9 tokens of 272, values of 544, ratio 4 as the block before:
    # 9 (2 x 272^2 + 2 x 272 x 544 + 8 x 272^2) + 9 x 544 x 9 + 81 (272 + 544)
    for settings, more in (
        ({"mlp": [2, 3, 2, 2, 3, 3, 4, 4]}, 1_179_648), ({"kernels": [3, 3, 5, 3, 3, 3, 3]}, 2_654_208),
        ({"depths": [1, 3, 3, 2, 2, 2, 3]}, 9_432_144),
    ):  # fmt: skip
        products, _, _ = counting.on_meta(lambda settings=settings: elasticvit_net(**settings))
        assert products == plain + more == closed_forms.elasticvit(settings, {})
    with pytest.raises(ValueError, match=r"4 \(a stage\) or 8 \(a block\)"):
        elasticvit_net(mlp=[2, 2, 3])
    with pytest.raises(ValueError, match="stem"):
        elasticvit_net(expansions=[2, 3, 3])


def test_t2t_and_its_exits_cost_what_is_derived():
    assert counting.on_meta(t2t_vit)[0] == 1_146_863_616
    with torch.device("meta"):
        assert sum(p.numel() for p in t2t_vit().parameters() if p.requires_grad) == 4_255_694
    exits = [counting.on_meta(lambda e=e: jei_dnn(t2t_vit(classes=10), exit=e))[:2] for e in (1, 2, 7)]
    assert [round(cost / 1e6, 3) for cost, _ in exits] == [407.681, 530.838, 1146.626]
    assert [gates for _, gates in exits] == [4, 8, 24]
    # prices of exits are these products over those of the last: 407,680,512 / 1,146,625,536 for the first
    with torch.device("meta"):
        prices = jei_dnn(t2t_vit(classes=10)).costs()
    assert prices[::6] == pytest.approx([407_680_512 / 1_146_625_536, 1.0], rel=1e-12)
    assert prices[1] - prices[0] == pytest.approx(123_157_504 / 1_146_625_536, rel=1e-9)


def test_b_lenet_and_cbnet_cost_what_is_derived():
    assert counting.on_meta(lenet)[0] == 1_140_070
    assert counting.on_meta(lambda: b_lenet(lenet(), exit=1)) == (220_150, 0, 74_694)
    assert counting.on_meta(lambda: b_lenet(lenet(), exit=2))[0] == 1_247_720
    assert counting.on_meta(lambda: cbnet(lenet()))[0] == 220_150 + 267_264 == closed_forms.cbnet({}, {})
    plain = counting.on_meta(lambda: cbnet(lenet(), convert=False))[0]
    assert plain == 220_150 == closed_forms.cbnet({}, {"convert": False})
    assert breakeven() == pytest.approx(0.74, abs=5e-4)


def test_networks_of_predicted_filters_cost_what_is_derived():
    assert counting.on_meta(vgg_bn) == (313_201_664, 0, 14_728_266)
    assert counting.on_meta(lambda: ftwt(vgg_bn(), keep=0.5))[:2] == (78_741_504 + 5_120, 1_634_496)
    assert counting.on_meta(lambda: ftwt(resnet_cifar(depth=56), keep=1.0))[:2] == (125_485_696, 94_208)
    assert counting.on_meta(lambda: resnet_cifar(depth=56)) == (125_485_696, 0, 853_018)
    assert counting.on_meta(lambda: digits_resnet(resolution=32)) == (40_813_184, 0, 272_474)


@pytest.mark.parametrize("share, products", [(0.0, 275_156), (1.0, 576_180)])
def test_pixel_networks_cost_what_the_released_log_says(share, products):
    found, _, parameters = counting.on_meta(lambda: pixels.pcsr(sr_net(kind="carn", side=8), heavy=share))
    assert found == 64 * products == 64 * pixels.macs("carn", share)
    assert parameters == 168_970


def test_fsrcnn_counted_at_its_true_size_is_cheaper_than_pixel_networks():
    assert counting.on_meta(lambda: sr_net(side=8))[0] == 64 * 24_336
    assert counting.on_meta(lambda: sr_net(kind="carn", side=8))[::2] == (64 * 563_904, 294_915)
    light, unit = pixels.macs("fsrcnn", 0.0), pixels.macs("fsrcnn", 1.0) - pixels.macs("fsrcnn", 0.0)
    assert (light, unit) == (23_600, 200_512)
    assert (24_336 - light) / unit == pytest.approx(0.0037, abs=5e-5)


def test_the_backbones_of_sketches_are_those_of_the_abstract():
    def counted(network, side):
        with torch.device("meta"):
            module = sketchy_features(network=network)
            images = torch.empty(1, 3, side, side)
        return counting.of(module, (images,))[0], sum(p.numel() for p in module.parameters())

    small, few = counted("mobilenet_v2", 256)
    large, many = counted("vgg16", 256)
    assert (small, few, many) == (391_176_192, 2_223_872, 14_714_688)
    assert counted("mobilenet_v2", 224)[0] + 1_280_000 == 300_774_272
    assert 1 - few / many == pytest.approx(0.8489, abs=5e-5)
    assert 2 * large / 1e9 == pytest.approx(40.18, rel=0.003)
    assert small / 256**2 == counted("mobilenet_v2", 224)[0] / 224**2
    assert mean_side(0.254 / 0.82) == pytest.approx(142, abs=1)


def test_nested_networks_cost_what_is_derived():
    base = {"width": 768, "heads": 12}
    assert counting.on_meta(lambda: vit(**base))[::2] == (17_563_828_224, 86_567_656)
    assert counting.on_meta(lambda: matformer(vit(**base), granularity="S"))[::2] == (7_803_420_672, 36_990_184)
    assert counting.on_meta(digits_vit)[0] == 26_580_576
    assert counting.on_meta(lambda: matformer(digits_vit(), granularity="S"))[0] == 14_000_736
    assert combinations(12) == (16_777_216, 455) and len(non_decreasing(12)) == 455
    assert training_share(1, 1) == pytest.approx((4 + 1.875) / 2)


def test_twelve_layers_of_a_13b_decoder_are_those_of_the_paper():
    def at(depth):
        with torch.device("meta"):
            decoder = sorted_lm(published_decoder(name="llama2_13b", layers=3), depth=depth)
            ids = torch.zeros(1, 1, dtype=torch.long)
        attention_to_itself = depth * 2 * 5120
        return sum(p.numel() for p in decoder.parameters()), counting.of(decoder, (ids,))[0] - attention_to_itself

    # layers are alike, so what one more costs says what twelve of forty cost; all of them are in grid=paper
    one, two = at(1), at(2)
    assert [a + 11 * (b - a) for a, b in zip(one, two, strict=True)] == [4_134_138_880, 3_970_170_880]
