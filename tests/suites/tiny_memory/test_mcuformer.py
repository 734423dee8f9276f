"""MCUFormer: the formula, weights of factors, and slices that reproduce the plain forward with less alive."""

import copy

import pytest
import torch

from suites.tiny_memory.mcuformer import mcuformer, recomputed_macs
from suites.tiny_memory.mcuformer_net import (
    BUDGET,
    LowRank,
    engine_bytes,
    low_rank_vit,
    low_rank_weights,
    operator_bytes,
    rank_of,
    scheduled_bytes,
)
from tests.suites.tiny_memory.live import live_peak


def net(**settings):
    torch.manual_seed(0)
    made = low_rank_vit(**{"width": 24, "heads": 2, "head_width": 16, "depth": 2, "patch": 8, "resolution": 64,
                           "classes": 5, "rho": 0.6, **settings})  # fmt: skip
    return made


def test_the_formula_is_that_of_the_check_case():
    assert engine_bytes(192, 225, 4, 0.9) == pytest.approx(349_670.4)
    assert engine_bytes(192, 225, 4, 0.4) == pytest.approx(275_942.4)
    assert engine_bytes(192, 225, 4, 0.4) < BUDGET == 327_680 < engine_bytes(192, 225, 4, 0.9)
    # slices of 16: the MLP's 192 (226 + 16 x 5 + 460.8); of 1: attention's 3 x 226 x 192 + 192 + 192 + 226
    assert scheduled_bytes(192, 226, 4, 0.6, 192, 16) == pytest.approx(147_225.6)
    assert scheduled_bytes(192, 226, 4, 0.05, 192, 1) == 130_786
    with torch.device("meta"):
        made = low_rank_vit(rho=0.6, depth=1)
    assert mcuformer(made, slice=16).engine_peak_bytes == pytest.approx(147_225.6)
    assert mcuformer(made, slice=0).engine_peak_bytes == made.engine_peak_bytes == engine_bytes(192, 225, 4, 0.6)


def test_weights_of_factors_are_those_of_the_check_case_and_cross_where_the_brief_says():
    assert [low_rank_weights(192, 768, 0.9, factors) for factors in (3, 2, 1)] == [194_704, 165_120, 147_456]
    for inner, outer, three, two in ((1000, 4000, 0.70, 0.80), (1000, 3000, 0.65, 0.75), (1000, 1000, 0.41, 0.50)):
        for factors, edge in ((3, three), (2, two)):
            assert low_rank_weights(inner, outer, edge - 0.01, factors) < inner * outer
            assert low_rank_weights(inner, outer, edge + 0.01, factors) > inner * outer


def test_a_rank_is_whole_although_its_product_is_a_hair_below():
    assert [rank_of(100, 400, rho) for rho in (0.29, 0.57, 0.58)] == [29, 57, 58]


def test_parameters_are_those_of_the_formula():
    made = net()
    block = made.blocks[0]
    pairs = {"attn.qkv": (24, 96), "attn.proj": (32, 24), "mlp.fc1": (24, 96), "mlp.fc2": (96, 24)}
    for name, (inner, outer) in pairs.items():
        layer = block.get_submodule(name)
        assert sum(p.numel() for p in layer.parameters()) == low_rank_weights(inner, outer, 0.6) + outer
    assert made.engine_peak_bytes == engine_bytes(24, 64, 4, 0.6)
    assert not any(isinstance(part, LowRank) for part in net(rho=1.0).modules())


@pytest.mark.parametrize("patch, grid", [(16, 15), (20, 12), (24, 10), (28, 8), (32, 7)])
def test_every_patch_of_the_papers_space_is_built_at_240_pixels(patch, grid):
    with torch.device("meta"):
        made = low_rank_vit(patch=patch, resolution=240, rho=0.4, depth=1)
    assert made.tokens == grid**2 + 1 and made.resolution == 240
    # C [(N + 1)(1 + r) + C r rho] with C 192, r 4, rho 0.4: 960 (N + 1) + 58,982.4
    assert made.engine_peak_bytes == pytest.approx(960 * (grid**2 + 1) + 58_982.4)
    with pytest.raises(ValueError, match="larger than the picture"):
        low_rank_vit(patch=241, resolution=240)


def test_slices_agree_where_a_patch_does_not_divide_the_picture():
    made = net(patch=12)  # 64 = 5 x 12 and 4 pixels that belong to no patch
    (x,) = made.example_inputs(2)
    assert x.shape[-1] == 64 and made.tokens == 26
    with torch.no_grad():
        torch.testing.assert_close(mcuformer(copy.deepcopy(made), slice=7)(x), made(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rho", [0.6, 1.0])
@pytest.mark.parametrize("rows", [0, 65, 17, 8, 1])
@pytest.mark.parametrize("fold", [False, True])
def test_slices_give_what_the_plain_forward_gives(rho, rows, fold):
    made = net(rho=rho)
    (x,) = made.example_inputs(2)
    with torch.no_grad():
        wanted = made(x)
    torch.testing.assert_close(mcuformer(copy.deepcopy(made), slice=rows, fold=fold)(x), wanted, rtol=1e-4, atol=1e-5)


def test_more_is_alive_in_larger_slices_and_an_mlp_needs_its_formula():
    made = net(rho=1.0)
    (x,) = made.example_inputs(1)
    peaks = [live_peak(mcuformer(copy.deepcopy(made), slice=rows), x) for rows in (65, 33, 16, 8, 4, 1)]
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == 6
    assert peaks[-1] < live_peak(made, x)
    floor = 3 * 65 * 24 * 4  # tokens, keys and values of heads wider than the tokens
    assert floor < peaks[-1]


def test_an_mlp_over_slices_holds_tokens_and_one_slice():
    made = net(rho=1.0)
    scheduled, tokens = mcuformer(made, slice=8), torch.randn(1, 64, 24)
    made.engine_peak_bytes = 0.0

    class Alone(torch.nn.Module):
        def forward(self, tokens):
            scheduled.widen(made.blocks[0], tokens)

    known = Alone()
    known.scheduled = scheduled
    # beside the tokens: the slice's norm, hidden tokens and their activation: the formula and one more hidden slice
    found = live_peak(known, tokens)
    wanted = operator_bytes(24, 64, 4, 8, 4) - 4 * 64 * 24
    assert wanted <= found <= wanted + 4 * 8 * 24 * 5


def test_products_are_the_plain_ones_and_queries_ranks_again():
    from torch.utils.flop_counter import FlopCounterMode

    def counted(module, x):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(x)
        return counter.get_total_flops() // 2

    for rho, fold in ((1.0, False), (0.6, False), (0.6, True)):
        made = net(rho=rho)
        (x,) = made.example_inputs(1)
        scheduled = mcuformer(made, slice=8, fold=fold)
        again = recomputed_macs(24, 65, 2, 0 if rho == 1 else rank_of(24, 96, rho), fold)
        products = 2 * 2 * 65 * 65 * 32  # q k^T and the product with v, which a fused kernel may hide from the counter
        plain = counted(made, x)
        assert counted(scheduled, x) - plain in (again, again + products)


def test_what_is_not_such_a_network_is_refused():
    from suites.common.vit import vit

    with pytest.raises(ValueError, match="mcuformer"):
        mcuformer(vit(width=16, heads=2, depth=1, patch=4, resolution=8))
    with pytest.raises(ValueError, match="no rank"):
        net(width=4, rho=0.1)


@pytest.mark.parametrize("rho", [0.6, 1.0])
def test_digits_are_learned_and_run_over_slices_with_the_learned_weights(tmp_path, rho):
    from suites.common.tasks.digits import Digits, Training

    task = Digits(tmp_path, 0, training=Training(steps=3, grown_steps=2, copies=2))

    def build():
        torch.manual_seed(0)
        return low_rank_vit(width=16, heads=2, depth=2, patch=8, resolution=16, rho=rho, digits=True)

    notes = task.prepare("digits_mcuformer", build)
    assert 0 <= notes["test_accuracy"] <= 100
    made = build()
    task.load(made, "digits_mcuformer")
    images = next(iter(task.batches(4)))[0]
    with torch.no_grad():
        wanted = made(images)
    torch.testing.assert_close(mcuformer(made, slice=2)(images), wanted, rtol=1e-4, atol=1e-4)
