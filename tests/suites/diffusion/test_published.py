"""Counts that papers print, and closed forms beside networks on the meta device."""

from pathlib import Path

import pytest
import torch
import yaml

from bench.meters import macs
from suites.common.dit import dit
from suites.diffusion import closed_forms as forms
from suites.diffusion import flexdit as flex
from suites.diffusion.code import cache_bytes, code
from suites.diffusion.lambda_eclipse import params, prior
from suites.diffusion.sun import SD15_LAYERS, adapters
from suites.diffusion.var import SCALES, var_of_depth

SUITE = Path(__file__).parents[3] / "suites" / "diffusion"
PRINTED = [(1870.10, 3719.50), (1234.39, 3719.50), (311_319.54, 605_459)]
XL = {"width": 1152, "heads": 16, "depth": 28, "patch": 2, "channels": 4, "classes": 1000, "variances": True}


def counted(module, inputs):
    found = macs.count(module, inputs, {}, second_count=False, inspect_values=False)
    assert not found.at_least
    return found.macs


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_dit_xl_2_has_its_parameters_and_products():
    with torch.device("meta"):
        model = dit(**XL, resolution=32, stored_positions=True)
        assert size(model) == 675_129_632
        assert counted(model, model.example_inputs(1)) == forms.dit(256, 1152, 28)
    assert round(forms.dit(256, 1152, 28) / 1e6) == 118_621
    assert f"{forms.dit(1024, 1152, 28) / 1e9:.0f}" == "525"  # the table's 512 px


def test_flexdit_of_the_paper():
    with torch.device("meta"):
        model = flex.flexdit(
            dit(**XL, resolution=32, stored_positions=True), pooling=2, modules=4, top=2, sparse_blocks=3, fixed=64
        )
        found = counted(model, model.example_inputs(1))
        other = flex.flexdit(
            dit(**XL, resolution=32, stored_positions=True), pooling=1, modules=4, top=3, sparse_blocks=3
        )
    assert f"{found / 1e9:.2f}" == "68.15"
    assert found == flex.blocks_macs(flex.kinds(28, 2, 4, 2, 3), 256, 64, 1152) + model.ends_macs(256)
    plain, c = 675_129_632, 1152
    assert size(other) == 683_099_168 == plain + 8 * (c**2 + c) - (2 * c**2 + 2 * c)


def test_flexdit_s_sparse_sides_along_the_chain_are_those_of_the_paper():
    course = flex.Flex(0.61, 0.86, 0)
    sides = [course.side(16, done / 49) for done in range(50)]
    assert (sides[0], sides[-1]) == (6, 10) and sides == sorted(sides)
    assert set(sides[:13]) == {6}


def test_flux_and_its_bottleneck_print_what_the_papers_print():
    step = forms.flux(4096)
    assert step == 37_192_326_709_248
    assert f"{2 * 50 * step / 1e12:.1f}" == "3719.2"  # 3719.50 is printed
    plan = forms.staged([(6, step), (18, forms.flux(2304)), (9, step)])
    assert abs(2 * plan / 1e12 / 1870.10 - 1) < 2.5e-4


def test_hunyuan_video_s_blocks_are_the_printed_operations():
    tokens = forms.hunyuan_tokens()
    assert tokens == 118_800 + 256
    assert abs(2 * 50 * forms.blocks(60, tokens, 3072) / 605_459e12 - 1) < 0.005


@pytest.mark.parametrize("shape, whole, bare", [(forms.LDM4, 104.227, 99.776), (forms.SD15, 401.637, 338.6)])
def test_u_nets_with_and_without_the_products_of_attention(shape, whole, bare):
    assert forms.unet(shape) / 1e9 == pytest.approx(whole, abs=5e-4)
    assert forms.unet(shape, attention=False) / 1e9 == pytest.approx(bare, abs=0.05)


def test_a_skipped_step_of_ldm_4_and_five_of_them():
    skipped, full = forms.unet_skipped(forms.LDM4), forms.unet(forms.LDM4)
    assert skipped / 1e9 == pytest.approx(4.422, abs=5e-4)
    assert full / ((full + 4 * skipped) / 5) == pytest.approx(4.27, abs=0.01)
    sd, once = forms.unet(forms.SD15), forms.unet_skipped(forms.SD15)
    assert sd / ((sd + 4 * once) / 5) == pytest.approx(3.80, abs=0.01)


def test_attention_s_share_of_pixart_at_1024_px():
    whole = forms.pixart(4096)
    assert 28 * 2 * 4096**2 * 1152 / whole == pytest.approx(0.333, abs=5e-4)
    assert whole - forms.pixart(4096, attention=False) == 28 * 2 * 1152 * 4096 * (4096 + 120)


@pytest.mark.parametrize("depth, wanted", [(16, 310_283_520), (30, 2_010_020_356)])
def test_var_has_its_parameters(depth, wanted):
    with torch.device("meta"):
        assert size(var_of_depth(depth=depth)) == wanted


def test_var_of_512_px_has_one_map_of_the_class_for_all_blocks():
    """36 (12 C^2 + 14 C + 36) of blocks, 6 (C^2 + C) that they share, 2240 places; the rest as in the others."""
    c, scales = 2304, [1, 2, 3, 4, 6, 9, 13, 18, 24, 32]
    with torch.device("meta"):
        model = var_of_depth(depth=36, shared=True, scales=scales)
    ends = 33 * c + 1001 * c + c + 2240 * c + 10 * c + 2 * c**2 + 2 * c + 4096 * c + 4096
    assert size(model) == 36 * (12 * c**2 + 14 * c + 36) + 6 * c**2 + 6 * c + ends == 2_353_893_904
    assert sum(step["macs"] for step in model.plan({})) == forms.var(36, scales, shared=True)


def test_var_and_code_per_guided_image():
    assert f"{forms.var(30, SCALES) / 1e9:.2f}" == "1895.05"
    draft, refine = forms.codes_drafted(SCALES, 7, 30, 16)
    assert (f"{draft / 1e9:.2f}", f"{refine / 1e9:.2f}") == ("426.75", "300.54")
    assert f"{forms.var(30, SCALES) / (draft + refine):.3f}" == "2.606"
    with torch.device("meta"):
        model = code(var_of_depth(depth=30), N=7, width=1024, depth=16, heads=16)
        plan = model.plan({})
        plain = var_of_depth(depth=30).plan({})
    assert sum(step["macs"] for step in plan if step["mode"] == "draft") == draft
    assert sum(step["macs"] for step in plan if step["mode"] == "refine") == refine
    assert sum(step["macs"] for step in plain) == forms.var(30, SCALES)


def test_the_refiner_s_cache_is_the_printed_one():
    assert cache_bytes(680, 1024, 16) == 127.5 * 2**20
    assert 64 * cache_bytes(680, 1024, 16) / 2**20 == 8160


def test_lambda_eclipse_and_fifty_forwards_of_its_baseline():
    with torch.device("meta"):
        model = prior()
        assert size(model) == params(1280, 512, 10) == 34_849_536
        assert counted(model, model.example_inputs(1)) == model.forward_macs() == 2_668_308_480
    assert round(50 * 82_292_850_688 / model.forward_macs()) == 1542


def test_adapters_of_sd_1_5():
    params_of, extra = adapters(SD15_LAYERS, 77, 768)
    assert params_of == 19_194_240
    assert f"{extra / 1e9:.3f}" == "3.255" and f"{adapters(SD15_LAYERS, 77, 768, 2)[1] / 1e9:.3f}" == "6.510"


def test_scale_dit_saves_where_the_picture_is_large():
    def ratio(side, window, low):
        high = (side // 16) ** 2
        dense = forms.blocks(57, high + 512, 3072)
        return dense / forms.scale_dit(high, (window // 16) ** 2, (low // 16) ** 2)

    assert ratio(2048, 1024, 1024) == pytest.approx(1.07, abs=0.01)
    assert ratio(4096, 1024, 1024) == pytest.approx(2.91, abs=0.01)
    assert ratio(4096, 1024, 256) == pytest.approx(3.54, abs=0.01)


@pytest.mark.parametrize("frames, percent", [(40, 6), (80, -26), (160, -55)])
def test_chunks_save_only_past_a_length(frames, percent):
    """The second chunk of 40 frames has 28 x 240 + 512 tokens, the first 20 x 240 + 512: a context on one side."""
    found = forms.in_chunks(frames, 20, 8, 512, 240, 1152, 28) / forms.blocks(28, 240 * frames, 1152) - 1
    assert round(100 * found) == percent


def test_without_global_tokens_there_is_no_interface():
    both = forms.blocks(28, 20 * 240, 1152) + forms.blocks(28, 28 * 240, 1152)
    assert forms.in_chunks(40, 20, 8, 0, 240, 1152, 28) == both


def test_claims_of_ratios_are_what_their_tables_print():
    """FLUX.1-dev 3719.50 to 1870.10 and 1234.39 TFLOPs, HunyuanVideo 605,459 to 311,319.54."""
    claims = yaml.safe_load((SUITE / "claims.yaml").read_text())["claims"]
    of = {
        name: [c for c in claims if c["method"] == name and c["metric"] == "macs"]
        for name in ("bottleneck", "cachequant")
    }
    ratios = [c["value"] for c in of["bottleneck"] if c["relative_to_baseline"]]
    assert ratios == [round(part / whole, 4) for part, whole in PRINTED]
    (plan,) = (c for c in of["bottleneck"] if not c["relative_to_baseline"])
    third = forms.staged([(2, forms.flux(4096)), (6, forms.flux(2304)), (3, forms.flux(4096))])
    assert plan["value"] == pytest.approx(plan["factor"] * third, rel=2.5e-4)
    for claim, shape in zip(of["cachequant"], (forms.SD15, forms.LDM4), strict=True):
        full = forms.unet(shape)
        assert claim["value"] == pytest.approx((full + 4 * forms.unet_skipped(shape)) / (5 * full), abs=1e-6)
    (ratio,) = (c["value"] for c in claims if c["method"] == "code" and c["metric"] == "macs")
    draft, refine = forms.codes_drafted(SCALES, 7, 30, 16)
    assert ratio == pytest.approx((draft + refine) / forms.var(30, SCALES), abs=1e-6)
