"""Spark's feed-forward network as an operator: forms by their definition, and the counts of Gemma-2 2B's layer."""

import pytest
import torch

from suites.attention.spark_layer import spark_ffn

SMALL = {"width": 24, "hidden": 60, "split": 10, "units": 12}


@pytest.mark.parametrize("form", ["gathered", "masked", "gated"])
def test_every_form_is_its_definition(form):
    torch.manual_seed(0)
    for settings in (SMALL, {**SMALL, "units": 60}):
        module = spark_ffn(**settings, form=form)
        (x,) = module.example_inputs(1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, 0.3)
            assert torch.allclose(module(x), module.reference(x), atol=1e-5)


def test_it_reads_live_units_alone_and_says_how_many_products_are_needed():
    """Gemma-2 2B: 1024 x 13824 + 1280 x 1106 + 2304 x 1106 = 18,119,680 of 2 x 2304 x 13824 = 63,700,992."""
    with torch.device("meta"):
        layer = spark_ffn()
        gated = spark_ffn(form="gated")
    assert (layer.macs_dense, layer.macs_nonzero) == (63_700_992, 18_119_680)
    assert gated.macs_nonzero == gated.macs_dense == 63_700_992
    sizes = [sum(p.numel() for p in module.parameters()) for module in (layer, gated)]
    assert sizes == [63_700_992, 63_700_992]
    torch.manual_seed(0)
    module = spark_ffn(width=256, hidden=3000, split=128, units=300)
    module(*module.example_inputs(1))
    assert abs(int(module.network.kept) - 300) < 5 * 300**0.5
    kept = module.declares(*module.example_inputs(1))
    assert abs(kept["kept_mean"] - 300) < 300**0.5 and kept["kept_min"] < 300 < kept["kept_max"]
    assert "meta" in layer.declares(torch.empty(1, 1, 2304, device="meta"))["kept_mean"] and gated.declares(None) == {}


def test_sizes_that_do_not_fit_say_so():
    for wrong in ({"hidden": 61}, {"split": 24}, {"units": 61}):
        with pytest.raises(ValueError, match="must be a multiple of 3"):
            spark_ffn(**{**SMALL, **wrong})
