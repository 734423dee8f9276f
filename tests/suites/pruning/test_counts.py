"""Networks of the suite against what papers print and what follows from their shapes."""

import pytest
import torch
from torch import nn

from bench.meters import macs as counter
from bench.meters.three_counts import readings
from bench.testing import Subject
from bench.testing.trial import count, on_meta, parts_of, running, trial_of
from bench.workloads.counting import counter as counted_part
from suites.common import bert, mlp
from suites.pruning import formats
from suites.pruning.allocation import shared_budget
from suites.pruning.block_sparse import nm_sparse
from suites.pruning.fast_sparse import fast_sparse
from suites.pruning.lottery import left_after, lottery
from suites.pruning.lpvit import lpvit
from suites.pruning.nets import gpt, mobilenet, resnet_cifar, resnet_imagenet, revit, vgg, yolov8
from suites.pruning.nets.published import resnet34_l1, resnet56_hrank, resnet56_l1
from suites.pruning.operator import sparse_linear
from suites.pruning.rounding import dropped, kept, kept_width
from suites.pruning.spa import full_numbers, learned_numbers
from suites.pruning.sparse_ift import doped_rank, factor_rank, resnet18_cifar
from suites.pruning.ssvi import ssvi

L1_A = [32, 64, 128, 128, *[256] * 9]
THINET = [32] * 3 + [64] * 4 + [128] * 6 + [256] * 3
GAP = [32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512]
PRINTED = {
    "resnet56": (lambda: resnet_cifar.resnet_cifar(depth=56), 853_018, 125_485_696),
    "resnet110": (lambda: resnet_cifar.resnet_cifar(depth=110), 1_727_962, 252_887_680),
    "l1_a": (lambda: resnet56_l1(variant="a"), 773_336, 112_435_840),
    "hrank": (resnet56_hrank, 485_413, 65_168_128),
    # 20 of 64, 39 of 128 and 77 of 256 filters go in 2, 2 and 4 blocks, 2 x 9 c p^2 products each: 563,576,832 in all
    "l1_34_a": (lambda: resnet34_l1(variant="a"), 20_151_764, 3_663_761_408 - 563_576_832),
    "l1_34_b": (lambda: resnet34_l1(variant="b"), 19_469_372, 3_663_761_408 - 881_491_968),
    "vgg16": (vgg.vgg16_cifar, 14_987_722, 313_463_808),
    "vgg16_l1": (lambda: vgg.vgg16_cifar(channels=L1_A), 5_397_034, 206_279_680),
    "vgg16_hrank": (lambda: vgg.vgg16_cifar(conv_bias=True, rates=[0.45] * 7 + [0.78] * 5), 1_901_836, 66_521_088),
    "vgg_gap": (lambda: vgg.vgg16(head="pool", channels=GAP), 8_322_696, 4_668_084_224),
    "resnet50": (resnet_imagenet.resnet50, 25_557_032, 4_089_184_256),
    "resnet50_v1": (resnet_imagenet.resnet50_v1, 25_557_032, 3_857_973_248),
    "thinet_50": (lambda: resnet_imagenet.resnet50_v1(widths=THINET), 12_381_864, 1_706_426_368),
    "mobilenet_v1": (mobilenet.mobilenet_v1, 4_231_976, 568_740_352),
    "resnet18_cifar": (resnet18_cifar, 11_220_132, 555_468_800),
    "revit_384": (revit.revit, 23_123_280, 4_705_190_400),
    "bert_base": (bert.bert, 109_482_240, 11_173_625_856 + 768 * 768),
    "lenet": (mlp.lenet_300_100, 266_610, 266_200),
}


def counted(build):
    with torch.device("meta"):
        model = build()
        example = model.example_inputs(1)
    return model, counter.count(model, example, second_count=False)


@pytest.mark.parametrize("name", PRINTED)
def test_a_network_has_the_printed_size(name):
    build, params, macs = PRINTED[name]
    model, count = counted(build)
    assert (sum(p.numel() for p in model.parameters()), count.macs) == (params, macs)


@pytest.mark.parametrize(
    "halved, params, macs", [(False, 25_845_550, 39_355_468_800), (True, 6_725_710, 10_433_126_400)]
)
def test_yolov8m_has_the_size_of_its_fused_form(halved, params, macs):
    with torch.device("meta"):
        model = yolov8.yolov8(size="m", nc=10, halved=halved)
        example = model.example_inputs(1)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    fused = sum(p.numel() for p in model.parameters()) - sum(norm.num_features for norm in norms)
    assert fused == params
    assert counter.count(model, example, second_count=False).macs == macs


def three(build):
    model, count = counted(build)
    return {reading.metric: reading.value for reading in readings(count, model, "mask", "forward", 1)}, model, count


@pytest.mark.parametrize(
    "family, sparsity, params, nonzero",
    [("wide", 0.75, 44_755_172, 557_289_472), ("factorized", 0.5, 22_232_206, 553_822_208)],
)
def test_sparse_ift_keeps_the_products_of_the_dense_network(family, sparsity, params, nonzero):
    found, model, count = three(lambda: resnet18_cifar(family=family, sparsity=sparsity))
    assert sum(p.numel() for p in model.parameters()) == params
    assert found["macs_nonzero"] == nonzero
    assert found["macs_dense"] == count.macs


def test_ranks_of_the_families_by_hand():
    assert factor_rank(64, 64, 0.5) == 116  # 9 64 64 / (0.5 x 640) = 115.2
    assert doped_rank(64, 64, 0.5) == 28  # 0.5 x 57.6 = 28.8


def test_mobilenet_with_a_tenth_of_its_pointwise_weights():
    found, _, count = three(lambda: fast_sparse(mobilenet.mobilenet_v1(), sparsity=0.9, kernel="mask"))
    assert found["macs_dense"] == count.macs == 568_740_352
    pointwise = mobilenet.pointwise_weights()
    rest = 568_740_352 - sum(weights * side**2 for weights, side in pointwise)
    assert found["macs_nonzero"] == rest + sum(kept(weights, 0.9) * side**2 for weights, side in pointwise)
    assert abs(found["macs_nonzero"] - 83_197_235) < 13 * 112**2


def test_deit_base_with_one_of_eight_in_its_mlps():
    from suites.common.vit import vit

    found, _, count = three(lambda: nm_sparse(vit(width=768, heads=12), n=1, m=8, where="ff"))
    assert count.macs == 17_563_828_224
    assert found["macs_nonzero"] == 7_803_420_672


@pytest.mark.parametrize("size, sparsity, left", [(32, 0.5, 9_139_961_856), (64, 0.75, 4_928_028_672)])
def test_deit_base_in_blocks_loses_its_share_of_every_layer_but_the_head(size, sparsity, left):
    """A share of 144 d^2 products of 197 tokens and d^2 of 196 patches; no block divides 1000 classes."""
    from suites.common.vit import vit

    settings = {"sparsity": sparsity, "block": [size, size], "allocation": "uniform", "balanced": True}
    found, _, count = three(lambda: lpvit(vit(width=768, heads=12), kernel="mask", **settings))
    assert found["macs_nonzero"] == left == 17_563_828_224 - sparsity * 768**2 * (197 * 144 + 196)
    assert count.macs == 17_563_828_224


def test_products_of_a_layer_that_runs_in_parts_stay_whole_numbers():
    """Groups of rows that keep unlike many inputs run in buckets, whose shares of the layer are no whole numbers."""
    torch.manual_seed(0)
    shape = {"outputs": 132, "inputs": 77, "columns": 3, "structure": "block", "block": [4, 1], "sparsity": 0.43}
    model = sparse_linear(**shape, balanced=False, kernel="gather")
    assert len(model.product.buckets) > 2
    count = counter.count(model, model.example_inputs(1), second_count=False)
    found = {reading.metric: reading.value for reading in readings(count, model, "gather", "forward", 1)}
    gone = 1092  # of 33 x 77 blocks at 43 %
    assert found == {"macs_dense": 132 * 77 * 3, "macs_nonzero": 4 * (33 * 77 - gone) * 3}
    assert count.macs == found["macs_nonzero"]


def test_ssvi_keeps_a_tenth_but_for_the_first_layer():
    found, model, count = three(lambda: ssvi(resnet18_cifar(classes=10), density=0.1))
    weights = sum(p.numel() for name, p in model.named_parameters() if name.endswith("mean"))
    assert (weights, count.macs) == (11_164_352, 555_422_720)
    assert sum(part.weight_counts["nonzero"] for part in model.modules() if hasattr(part, "weight_counts")) == 1_118_000
    assert found["macs_nonzero"] == 57_138_032


def test_an_answer_of_k_drawn_networks_takes_k_times_the_products():
    """Weights are drawn, not outputs: one product a layer and network, of the weights that are there."""
    found, _, count = three(lambda: ssvi(mlp.digits_mlp(), density=0.1, samples=3))
    assert count.macs == 3 * (256 * 300 + 300 * 100 + 1000) == 3 * 107_800
    assert found["macs_nonzero"] == 3 * (76_800 + 3000 + 100)  # the first layer is whole


def test_counts_of_bert_by_unit():
    assert bert.encoder_macs(768, [12] * 12, 64, [3072] * 12, 128) == 11_173_625_856
    assert bert.encoder_macs(768, [1], 64, [0], 128) == 27_262_976
    assert bert.encoder_macs(768, [0], 64, [1], 128) == 196_608


def test_the_counter_of_hranks_table_adds_two_for_each_element_of_a_norm():
    model, found = counted(resnet56_hrank)
    elements = list[int]()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_hook(lambda _, __, y: elements.append(y.numel()))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert found.macs + 2 * sum(elements) == 65_935_872  # printed as 65.94 M


def test_twenty_times_fewer_training_products_are_eighteen_point_nine():
    found, _, count = three(lambda: ssvi(resnet18_cifar(classes=10), density=0.05))
    assert count.macs / found["macs_nonzero"] == pytest.approx(18.86, abs=0.005)


def test_adapters_of_resnet50_learn_what_follows_from_its_shapes():
    with torch.device("meta"):
        convolutions = [part for part in resnet_imagenet.resnet50().modules() if isinstance(part, nn.Conv2d)]
    shapes = [(conv.in_channels, conv.out_channels, conv.kernel_size[0]) for conv in convolutions]
    assert len(shapes) == 53
    assert sum(k * k * inner * outer for inner, outer, k in shapes) == 23_454_912
    assert sum(inner + outer for inner, outer, _ in shapes) == 49_091
    assert sum(learned_numbers(inner, outer, 8, k) for inner, outer, k in shapes) == 392_728
    keep = 0.3**0.5  # of channels, so that 30 % of the weights stay
    kept_sides = [(round(keep * inner), round(keep * outer)) for inner, outer, _ in shapes]
    for rank, factor in ((8, 32.7), (16, 16.3)):
        own = sum(learned_numbers(inner, outer, rank) for inner, outer in kept_sides)
        assert full_numbers(shapes, keep) / own == pytest.approx(factor, abs=0.1)


def test_a_step_is_three_forwards_and_the_scores_once_more():
    """Fused attention keeps no scores and computes them again in its backward: one product of [L, L] a head."""
    model = "gpt(width=16, layers=2, heads=2, vocabulary=11, length=12)"
    subject = Subject("step", model=model, method="spdf(sparsity=0.75)", shape={"batch": 2}, workload="training_step")
    forward = 2 * gpt.token_macs(16, 2, 12, 11) * 12
    again = 2 * 2 * 2 * 12 * 12 * 8  # images, layers, heads, scores, numbers of a head
    trial = trial_of(subject)
    assert 3 * forward == 510_336
    assert trial.macs.macs == 3 * forward + again == 519_552
    assert count(on_meta(trial)).macs == 3 * forward  # no fused kernel there
    # papers of sparse training count both products of the backward for the weights that are there alone
    sparse = 3 * 2 * gpt.token_macs(16, 2, 12, 11, 0.75) * 12 + again
    built = trial.built
    with running(built.case.workload):
        step = counted_part(built.counted, counter.count)(parts_of(built)[0])
    found = {one.metric: one.value for one in readings(step, built.counted, "mask", "step", 2)}
    assert (found["macs_dense"], found["macs_nonzero"]) == (519_552 / 2, sparse / 2)
    parts = readings(step, built.counted, "mask", "backward", 2)
    assert parts[1].value is None and "whole step" in parts[1].method_note


def test_spdf_on_gpt3_xl_saves_what_is_printed():
    dense, sparse = (gpt.token_macs(2048, 24, 2048, 50257, s) for s in (0.0, 0.75))
    assert round(dense / sparse, 3) == 2.494


def test_lottery_rounds_leave_what_is_printed():
    left = left_after([784 * 300, 300 * 100, 100 * 10], [0.2, 0.2, 0.1], 3)
    assert sum(left) == 136_512
    assert round(100 * sum(left) / 266_200, 2) == 51.28
    for rounds, printed in ((7, 21.1), (15, 3.6)):
        assert round(sum(left_after([235_200, 30_000, 1000], [0.2, 0.2, 0.1], rounds)) / 2662, 1) == printed


def test_a_ticket_is_counted_without_values():
    found, _, count = three(lambda: lottery(mlp.lenet_300_100(), rounds=3, steps=0))
    assert (found["macs_nonzero"], count.macs) == (136_512, 266_200)
    with pytest.raises(ValueError, match="scope='layer' and steps=0"):
        three(lambda: lottery(mlp.lenet_300_100(), rounds=3))


def test_rounding_is_decimal():
    assert dropped(100, 0.29) == 29
    assert kept_width(20, 0.9) == 2
    assert kept_width(16, 0.4) == 9
    assert kept(25_502_912, 0.9) == 2_550_292


def test_stored_bytes_by_hand():
    assert formats.lscd_plain_bytes(49152, 12288, 0.8) == 483_183_824
    assert formats.dense_bytes(49152, 12288, 2) == 1_207_959_552
    assert formats.csr_bytes(3072, kept(3072 * 768, 0.9)) == 1_899_732
    assert formats.dense_bytes(3072, 768) == 9_437_184
    assert formats.nm_bits(2, 4) == 9
    assert formats.bitmask_bytes(100, 10) == 53
    assert formats.lscd_bytes([5, 0, 4]) == 4 * 12 + 12
    assert formats.csr_break_even(4, 8) == pytest.approx(2 / 3)
    assert formats.lscd_bytes([5, 0, 4], value=4) == 6 * 12 + 12
    # 3:5 of fp16: 3 (16 + 3) bits in 5, of 35 weights 7 groups: 399 bits
    assert formats.nm_bytes(35, 3, 5) == 50
    # 7 blocks of 4 x 3, int64: 7 (48 + 8) + 3 x 8; 3 groups of 4 rows, 5 columns: 3 (80 + 40)
    assert formats.bsr_bytes(8, (4, 3), 7, index=formats.INT64) == 416
    assert formats.gather_bytes(12, 4, 5) == 360
    for wrong in (
        lambda: formats.nm_bytes(34, 3, 5), lambda: formats.nm_bits(3, 2),
        lambda: formats.bsr_bytes(9, (4, 3), 7), lambda: formats.gather_bytes(10, 4, 5),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"divide|wanted"):
            wrong()


def test_a_shared_budget_is_exact_and_within_bounds():
    sizes, scores = [100, 300, 200], [1.0, 5.0, 0.0]
    keep = shared_budget(sizes, scores, 0.5)
    assert sum(keep) == 300
    assert all(0.4 * size <= k <= size for size, k in zip(sizes, keep, strict=True))
    assert keep == [50, 170, 80]  # 40, 120, 80 at first; 60 more as 1 : 5 : 0
    assert shared_budget([10, 10], [1.0, 0.0], 0.0) == [10, 10]
    # without reach each of two blocks of three starts with ceil(1.5) = 2, and 3 of 6 are wanted
    assert sorted(shared_budget([3, 3], [1.0, 1.0], 0.5, 0.0)) == [1, 2]
    assert sum(shared_budget([7, 9, 11], [0.0, 0.0, 0.0], 0.37, 0.0)) == 17  # int(0.63 x 27)
