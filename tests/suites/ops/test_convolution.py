"""Convolutions by copies and transforms: every form is the definition; layouts, sizes and counts of layers."""

import pytest
import torch

from bench.meters import macs
from suites.ops.conv_shapes import BY_NAME, SLOW, TWELVE, ConvShape
from suites.ops.convolution import FORMS, convolution, windows
from suites.ops.deformable import deformable_convolution
from tests.suites.ops.agree import apart

SHAPES = [
    {}, {"channels": 6, "height": 11, "width": 14, "filters": 4, "padding": 1, "groups": 2},
    {"channels": 5, "height": 17, "width": 12, "filters": 3, "kernel": [5, 2], "stride": 2},
    {"channels": 20, "filters": 20, "groups": 20, "padding": 1, "height": 7}, {"kernel": [1], "stride": 3},
    {"channels": 33, "kernel": [4], "stride": 4},
]  # fmt: skip


@pytest.mark.parametrize("settings", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_definition(form, settings):
    if form == "winograd" and (settings.get("kernel", [3]) != [3] or settings.get("stride", 1) != 1):
        with pytest.raises(ValueError, match=r"F\(2 x 2, 3 x 3\)"):
            convolution(form=form, **settings)
        return
    for backward in (False, True):
        operator = convolution(form=form, backward=backward, **settings)
        assert apart(operator) < 5e-6 and apart(operator, checked=True) < 5e-6


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_within_its_tolerance(form):
    operator = convolution(form=form, channels=8, height=9, width=10).to(torch.bfloat16)
    (x,) = operator.example_inputs(1)
    expected = operator.reference(x)
    assert float((operator(x).double() - expected).norm() / expected.norm()) < operator.tolerance


def test_windows_stand_by_column_and_kernel_row():
    shape = ConvShape(2, 7, 6, 1, (3, 2), 2)
    x = torch.randn(1, 2, 7, 6)
    made = windows(x, shape)
    assert made.shape == (1, 2, shape.out_height, 6 * 3)
    for row in range(shape.out_height):
        for column in range(6):
            for u in range(3):
                torch.testing.assert_close(made[0, :, row, column * 3 + u], x[0, :, 2 * row + u, column])


@pytest.mark.parametrize(
    "name, products, columns, rows",
    [
        ("conv1", 105_415_200, 1_098_075, 412_005), ("conv5", 245_760_000, 960_000, 230_400),
        ("conv9", 107_495_424, 1_679_616, 580_608), ("conv12", 58_982_400, 115_200, 53_760),
    ],
)  # fmt: skip
def test_layers_of_the_check_cases(name, products, columns, rows):
    shape = TWELVE[name]
    assert (shape.macs, shape.im2col_elements, shape.im2win_elements) == (products, columns, rows)
    for form, elements in (("im2col", columns), ("im2win", rows)):
        with torch.device("meta"):
            operator = convolution(form=form, layer=name)
            (x,) = operator.example_inputs(2)
        assert macs.count(operator, (x,), second_count=False, inspect_values=False).macs == 2 * products
        assert operator.declares(x) == {"workspace_elements": 2 * elements}


def test_stated_sizes_are_those_of_the_tensors():
    shape, x = TWELVE["conv12"], torch.empty(1, 512, 7, 7)
    assert windows(x, shape).numel() == shape.im2win_elements
    assert torch.nn.functional.unfold(x, 3).numel() == shape.im2col_elements


def test_windows_save_more_of_the_copy_than_of_all_memory():
    ratios = [shape.im2win_elements / shape.im2col_elements for shape in TWELVE.values()]
    assert min(ratios) == pytest.approx(0.24) and max(ratios) == pytest.approx(0.4667, abs=1e-3)
    assert all(shape.memory_ratio() > ratio for shape, ratio in zip(TWELVE.values(), ratios, strict=True))


def test_winograd_multiplies_two_and_a_quarter_times_less_for_even_sides():
    shape = ConvShape(8, 16, 16, 8, (3, 3), padding=1)
    assert shape.macs / shape.winograd_macs == 2.25
    with torch.device("meta"):
        operator = convolution(form="winograd", channels=8, filters=8, padding=1)
        (x,) = operator.example_inputs(1)
    assert macs.count(operator, (x,), second_count=False, inspect_values=False).macs == shape.winograd_macs


def test_every_named_layer_can_be_built():
    assert len(TWELVE) == 12 and set(BY_NAME) == {*TWELVE, *SLOW}
    with torch.device("meta"):
        for name, shape in BY_NAME.items():
            operator = convolution(layer=name)
            assert operator(*operator.example_inputs(1)).shape == (1, shape.filters, shape.out_height, shape.out_width)
    with pytest.raises(ValueError, match="conv12"):
        convolution(layer="conv13")


@pytest.mark.parametrize("modulated", [False, True])
def test_a_deformable_convolution_is_its_definition_and_without_offsets_the_plain_one(modulated):
    for backward in (False, True):
        operator = deformable_convolution(channels=5, size=6, filters=4, modulated=modulated, backward=backward)
        assert apart(operator) < 1e-5
    operator = deformable_convolution(channels=5, size=6, filters=4, modulated=False)
    x, offsets = operator.example_inputs(1)
    plain = torch.nn.functional.conv2d(x, operator.weight, padding=1)
    torch.testing.assert_close(operator(x, torch.zeros_like(offsets)), plain, rtol=1e-4, atol=1e-5)
