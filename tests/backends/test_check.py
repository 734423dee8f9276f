import math

import pytest
import torch

from bench.backends.check import TOLERANCE, OutputsDiffer, compare, kind_of, require_agreement

EAGER = torch.tensor([3.0, 4.0])


def test_the_relative_error_is_that_of_norms():
    found = compare([EAGER], [EAGER + torch.tensor([0.0, 0.05])], "bf16")
    assert found.relative_error == pytest.approx(0.05 / 5, rel=1e-5) and found.agrees  # ||(3, 4)|| = 5


def test_the_worst_output_is_named_and_its_number_told():
    with pytest.raises(OutputsDiffer, match=r"output 1 of 2 is off by 0\.02 .* fp32 allows 0\.0001"):
        require_agreement("toy", (EAGER, EAGER), (EAGER, EAGER * 1.02), "fp32")


def test_bf16_where_fp32_was_asked_for_is_caught():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 64), torch.randn(8, 64)
    half = torch.nn.functional.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()).float()
    assert not compare([layer(x)], [half], "fp32").agrees and compare([layer(x)], [half], "bf16").agrees


def test_indices_have_to_be_the_same():
    one = torch.arange(10)
    assert compare([one], [one.clone()], "fp32").relative_error == 0
    assert compare([one], [torch.cat([one[:9], one[:1]])], "fp32").relative_error == pytest.approx(0.1)


def test_masked_scores_agree_and_a_nan_of_ones_own_does_not():
    masked = torch.tensor([1.0, -math.inf])
    assert compare([masked], [masked.clone()], "fp32").agrees
    for other in ([1.0, math.inf], [1.0, math.nan], [1.0, 0.0]):
        assert compare([masked], [torch.tensor(other)], "fp32").relative_error == math.inf


@pytest.mark.parametrize("other", [EAGER.double(), EAGER[:1], EAGER[None]])
def test_another_type_or_shape_is_no_agreement(other):
    assert compare([EAGER], [other], "fp64").relative_error == math.inf


def test_another_structure_is_said():
    with pytest.raises(OutputsDiffer, match="another structure"):
        require_agreement("toy", {"a": EAGER}, (EAGER,), "fp32")


def test_an_output_of_zeros_is_compared_absolutely():
    assert compare([torch.zeros(2)], [torch.tensor([0.0, 1e-6])], "fp32").relative_error == pytest.approx(1e-6)


def test_each_tolerance_lies_between_its_types_roundoff_and_that_of_the_next_lower_type():
    roundoff = {"fp64": 2.0**-53, "fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-9}
    assert set(TOLERANCE) == {*roundoff, "real-int"}
    assert all(10 * roundoff[name] < TOLERANCE[name] for name in roundoff)
    assert TOLERANCE["fp64"] < roundoff["fp32"] and TOLERANCE["fp32"] < roundoff["tf32"]


def test_whole_numbers_have_a_tolerance_of_codes_and_floats_keep_theirs():
    one = torch.linspace(-1, 1, 101)
    other = one + 2.0**-8
    kind = kind_of("fp32", "real-int")
    assert require_agreement("x", one, other, kind).agrees
    with pytest.raises(OutputsDiffer, match=r"where real-int allows 0\.05"):
        require_agreement("x", one, one + 0.1, kind)
    assert kind_of("fp32", "real") == kind_of("fp32", None) == "fp32"
    with pytest.raises(OutputsDiffer, match=r"fp32 allows 0\.0001"):
        require_agreement("x", one, other, kind_of("fp32", "dequant"))
