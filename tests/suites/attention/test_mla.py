"""Latent attention as an operator: three equal forms, counts and bytes."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from suites.attention import mla as file
from suites.attention.mla import gqa_step, mla_step
from suites.common.decoder_shape import attention_macs, position_macs
from suites.common.decoder_shapes import shape_of
from tests.suites.conftest import spread

FORMS = ["absorbed", "expanded", "recomputed"]


def steps():
    modules = {}
    for form in FORMS:
        torch.manual_seed(0)
        modules[form] = spread(mla_step(length=20, form=form))
    return modules


def test_forms_agree_and_repeat():
    modules = steps()
    torch.manual_seed(1)
    x, latents = modules["absorbed"].example_inputs(2)
    keys, values = modules["expanded"].attention.expand(latents)
    with torch.no_grad():
        absorbed = modules["absorbed"](x, latents.clone())
        assert torch.allclose(modules["recomputed"](x, latents.clone()), absorbed, atol=1e-4)
        assert torch.allclose(modules["expanded"](x, keys, values), absorbed, atol=1e-4)
        assert torch.equal(modules["absorbed"](x, latents), modules["absorbed"](x, latents))


@pytest.mark.parametrize("form", FORMS)
def test_a_form_agrees_with_its_reference(form):
    module = steps()[form]
    given = module.example_inputs(2)
    with torch.no_grad():
        assert torch.allclose(module(*given), module.reference(*given), atol=module.tolerance)


def test_counts_of_deepseek_v3_are_those_of_the_brief():
    layer = shape_of("deepseek_v3").layers[0]
    counts = [file.layer_macs(layer, 7168, 4096, form) for form in FORMS]
    assert counts == [757_530_624, 354_877_440, 69_057_576_960]
    numbers = [file.cached_numbers(layer, form) for form in FORMS]
    assert numbers == [576, 128 * 320, 576]
    assert round(numbers[1] / numbers[0], 1) == 71.1


def test_operations_per_cache_byte_are_those_of_the_brief():
    assert file.intensity(2 * 32 * 128, 2 * 32 * 128) == 1
    assert file.intensity(2 * 32 * 128, 2 * 4 * 128) == 8
    assert round(file.intensity(128 * 1088, 576)) == 242


@pytest.mark.parametrize("form", FORMS)
def test_executed_products_are_the_closed_form(form):
    module = mla_step(length=31, form=form)
    given = module.example_inputs(1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(*given)
    assert counter.get_total_flops() // 2 == file.layer_macs(module.layer, module.width, 32, form)


def test_one_layer_of_deepseek_v3_builds_on_the_meta_device():
    with torch.device("meta"):
        module = mla_step(shape="deepseek_v3", length=63)
        given = module.example_inputs(1)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            module(*given)
    assert counter.get_total_flops() // 2 == file.layer_macs(module.layer, 7168, 64, "absorbed")


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_the_step_of_shared_key_heads_agrees_with_its_reference_and_counts_as_stated(kv_heads):
    """Width 192, 6 query heads of 32: 2 x 192 x 32 (6 + g) linear products, 2 x 6 x 32 a position, 30 of them."""
    module = spread(gqa_step(kv_heads=kv_heads, length=29))
    given = module.example_inputs(2)
    with torch.no_grad():
        assert torch.allclose(module(*given), module.reference(*given), atol=module.tolerance)
        single, counter = module.example_inputs(1), FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            module(*single)
    counted = counter.get_total_flops() // 2
    assert counted == 2 * 192 * 32 * (6 + kv_heads) + 30 * 2 * 6 * 32
    assert counted == attention_macs(module.layer, 192) + 30 * position_macs(module.layer)
    assert given[1].shape == (2, kv_heads, 30, 32)


def test_key_heads_that_do_not_divide_say_so():
    with pytest.raises(ValueError, match="does not divide heads=6"):
        gqa_step(kv_heads=4)
