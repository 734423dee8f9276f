"""The rule, the networks that it makes, and the line through the published zoo."""

from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suites.common.timm_bridge import import_timm, timm_model
from suites.scaling import closed_forms, rule
from suites.scaling.efficientnet import scaled_efficientnet
from suites.scaling.fits import fits, published_zoo
from suites.scaling.regnety import published, scaled_regnety
from tests.suites.scaling.counting import counted

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


# ---------------------------------------------------------------- the rule
def test_factors_by_hand():
    assert rule.factors("d", 8) == rule.Factors(8, 1, 1)
    assert rule.factors("w", 16) == rule.Factors(1, 4, 1)
    fast = rule.factors("d1_w8_r1", 16)
    assert (fast.depth, fast.width, fast.resolution) == pytest.approx((16**0.1, 16**0.4, 16**0.05))
    assert rule.factors("dwr", 8) == rule.Factors(
        pytest.approx(2), pytest.approx(8 ** (1 / 6)), pytest.approx(8 ** (1 / 6))
    )


@given(st.sampled_from(rule.STRATEGIES), st.floats(0.1, 64))
def test_operations_grow_by_s_whatever_the_strategy(strategy, s):
    by = rule.factors(strategy, s)
    assert by.depth * by.width**2 * by.resolution**2 == pytest.approx(s)
    assert by.depth * by.width * by.resolution**2 == pytest.approx(s ** rule.activation_exponent(strategy))


def test_exponents_of_the_paper_and_weights_are_shares():
    found = {name: rule.activation_exponent(name) for name in rule.STRATEGIES}
    assert found == pytest.approx({"d": 1, "w": 0.5, "r": 1, "dw": 0.75, "wr": 0.75, "dwr": 5 / 6, "d1_w8_r1": 0.6})
    assert rule.factors("d2_w16_r2", 7) == rule.factors("d1_w8_r1", 7) and rule.factors("d3_w3", 5) == rule.factors(
        "dw", 5
    )


def test_rounding_goes_to_the_even_side():
    assert [rule.rounded_width(x) for x in (3, 20, 33.9, 45.3, 1810.2)] == [8, 16, 32, 48, 1808]
    assert rule.rounded_depth(2.5) == 2 and rule.rounded_depth(3.5) == 4 and rule.rounded_depth(0.2) == 1
    assert rule.rounded_resolution(316.78) == 316 and rule.rounded_resolution(1) == 4


@pytest.mark.parametrize("name", ["", "x", "dd", "d0", "d1_d2", "wd", "d1w8"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="strategy"):
        rule.weights(name)


# ---------------------------------------------------------------- networks
@pytest.mark.parametrize(
    "strategy, s, expected",
    [
        ("dwr", 1, (5_288_548, 385_814_752, 6_748_036)), ("d", 2, (10_222_984, 782_254_048, 12_093_592)),
        ("w", 4, (18_122_720, 1_449_958_848, 13_495_072)), ("r", 2, (5_288_548, 780_998_512, 13_557_220)),
        ("dw", 2, (9_510_718, 759_746_096, 10_711_694)), ("dwr", 4, (13_234_516, 1_696_545_904, 21_548_476)),
        ("d1_w8_r1", 4, (15_824_374, 1_381_104_800, 13_328_046)),
        ("d1_w8_r1", 16, (47_392_966, 5_477_600_640, 34_302_246)),
    ],
)  # fmt: skip
def test_counts_of_the_check_cases(strategy, s, expected):
    assert counted(lambda: scaled_efficientnet(strategy=strategy, s=s)) == expected
    assert closed_forms.efficientnet({"strategy": strategy, "s": s}, {}) == expected[1]


def test_width_alone_doubles_activations_at_four_times_the_operations():
    plain, wide = (counted(lambda s=s: scaled_efficientnet(strategy="w", s=s))[2] for s in (1, 4))
    assert wide / plain == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("strategy", rule.STRATEGIES)
def test_at_one_every_strategy_is_the_base(strategy):
    settings = {"base_width": 0.25, "base_resolution": 36, "classes": 3}
    assert counted(lambda: scaled_efficientnet(strategy=strategy, **settings)) == counted(
        lambda: scaled_efficientnet(**settings)
    )


def test_depth_leaves_widths_and_resolution_and_resolution_leaves_parameters():
    base = counted(lambda: scaled_efficientnet(base_width=0.25, base_resolution=64))
    assert counted(lambda: scaled_efficientnet(strategy="r", s=4.0, base_width=0.25, base_resolution=64))[0] == base[0]
    with torch.device("meta"):
        deep = scaled_efficientnet(strategy="d", s=4.0, base_width=0.25, base_resolution=64)
    assert deep.resolution == 64 and deep.classifier.in_features == 320


@needs_timm
@pytest.mark.parametrize("name", ["regnety_002", "regnety_004", "regnety_016", "regnety_040"])
def test_an_unscaled_regnety_is_timms(name):
    with torch.device("meta"):
        theirs = timm_model(name=name)
    theirs.example_inputs = lambda batch: (torch.empty(batch, 3, 224, 224),)
    assert counted(lambda: scaled_regnety(name=name)) == counted(lambda: theirs)


@needs_timm
def test_a_scaled_regnety_keeps_its_group_width():
    group = published("regnety_040").group
    with torch.device("meta"):
        wide = scaled_regnety(name="regnety_040", strategy="w", s=2.0)
    for block in wide.blocks:
        layer = block.conv2[0]
        assert layer.out_channels // layer.groups == group and layer.out_channels % 8 == 0


# ---------------------------------------------------------------- fits
def test_activations_predict_the_published_times_best():
    found = fits(published_zoo())
    assert round(found["activations"].correlation, 4) == 0.9845
    assert found["macs"].correlation < 0.8 and found["params"].correlation < 0.7
    assert found["activations"].correlation_low > found["macs"].correlation


@pytest.mark.parametrize("name", ["regnetz_005", "regnetz_040", "regnetz_040_h"])
def test_an_unscaled_regnetz_is_timms(name):
    timm = import_timm()
    from suites.scaling.regnetz import scaled_regnetz

    with torch.device("meta"):
        plain, ours = timm.create_model(name), scaled_regnetz(name=name)
        deeper = scaled_regnetz(name=name, strategy="d", s=2.0)
        larger = scaled_regnetz(name=name, strategy="r", s=2.0)
    shapes = [tuple(value.shape) for value in plain.state_dict().values()]
    assert shapes == [tuple(value.shape) for value in ours.state_dict().values()]
    assert len(list(deeper.s3.children())) == 2 * len(list(plain.s3.children()))
    assert shapes == [tuple(value.shape) for value in larger.state_dict().values()] and larger.resolution == 316


def test_width_quadruples_a_regnetzs_products_by_halves_and_a_wrong_name_is_refused():
    from suites.scaling.regnetz import scaled_regnetz

    with torch.device("meta"):
        wide = scaled_regnetz(strategy="w", s=4.0)
        plain = scaled_regnetz()
    # twice as wide: the 1 x 1 layers of the widest stage hold four times the weights
    assert wide.s4.b2.conv1.conv.weight.numel() == pytest.approx(4 * plain.s4.b2.conv1.conv.weight.numel(), rel=0.05)
    with pytest.raises(ValueError, match="regnetz_005"):
        scaled_regnetz(name="regnetz_05")
