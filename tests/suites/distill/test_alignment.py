"""RT-DETRv4: the band steers as the released code does, both networks meet at the same places, nothing is left."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.errors import UsageError
from bench.meters import macs
from suites.common.digits_cnn import digits_cnn
from suites.distill.digits_hybrid import digits_hybrid
from suites.distill.rtdetrv4 import SAMPLES, DinoV3, PooledVit, RtDetrV4, rtdetrv4, semantic_loss
from suites.distill.steering import BANDS, Band, gradient_share
from suites.distill.teaching import BATCH, STEP

SMALL = Band(5, 11, 1, 20)


def odds(percent):
    return percent / (100 - percent)


@pytest.mark.parametrize("share", [10.0, 10.5, 11.0, 12.0])
def test_inside_the_band_the_weight_stays(share):
    assert SMALL.next_weight(5, share) == 5


@pytest.mark.parametrize(("share", "target"), [(6.0, 12.0), (9.99, 12.0), (12.01, 10.0), (30.0, 10.0)])
def test_outside_it_the_far_bound_is_the_target_by_odds(share, target):
    assert SMALL.next_weight(5, share) == pytest.approx(5 * odds(target) / odds(share))


def test_factors_are_bounded_and_what_shows_no_gradient_or_comes_last_has_the_default():
    assert SMALL.next_weight(5, 0.01) == 50
    assert SMALL.next_weight(5, 99.0) == 0.5
    assert SMALL.next_weight(5, 0.0) == 20
    assert SMALL.next_weight(5, 11, last=True) == 20
    assert SMALL.next_weight(5, 100.0) == 5  # no odds


@settings(max_examples=200, deadline=None)
@given(st.sampled_from("SMLX"), st.floats(0.01, 100), st.floats(0.001, 99.9))
def test_a_step_moves_towards_the_band_and_never_farther_than_ten_times(size, weight, share):
    band = BANDS[size]
    after = band.next_weight(weight, share)
    assert weight / 10 - 1e-9 <= after <= weight * 10 + 1e-9
    if share < band.rho - band.delta:
        assert after > weight
    elif share > band.rho + band.delta:
        assert after < weight
    else:
        assert after == weight


def test_bands_of_the_four_sizes():
    assert {size: (b.start, b.rho, b.delta, b.default) for size, b in BANDS.items()} == {
        "S": (5, 11, 1, 20), "M": (5, 3.5, 0.25, 15), "L": (15, 2, 0.1, 15), "X": (20, 2, 0.25, 20),
    }  # fmt: skip


def test_a_share_is_of_l1_norms_and_none_without_gradients():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert gradient_share(net[0], net.parameters()) == 0.0
    for place, layer in enumerate(net):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, (-1.0) ** place * (place + 1))
    assert gradient_share(net[0], net.parameters()) == pytest.approx(100 / 3)


def test_the_projector_at_640_pixels():
    with torch.device("meta"):
        injector, tokens = nn.Linear(256, 768), torch.empty(1, 400, 256)
    assert sum(p.numel() for p in injector.parameters()) == 197_376
    assert macs.count(injector, (tokens,), {}, second_count=False, inspect_values=False).macs == 78_643_200


def test_the_teacher_sees_averaged_pictures_on_the_students_places():
    teacher = PooledVit(8, 2, 2, 2, 16).eval()
    images = torch.randn(2, 3, 16, 16)
    doubled = images.unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))
    with torch.inference_mode():
        assert torch.allclose(teacher(images), teacher.net(doubled), atol=1e-6)
        assert teacher.patches(images).shape == (2, 16, 8)


@pytest.mark.slow
def test_dinov3_at_640_pixels_has_405_tokens_and_the_derived_products():
    pytest.importorskip("transformers")
    with torch.device("meta"):
        teacher = DinoV3(640)

        class Patches(nn.Module):
            def __init__(self):
                super().__init__()
                self.teacher = teacher

            def forward(self, images):
                return self.teacher.patches(images)

        module, images = Patches().eval(), torch.empty(1, 3, 640, 640)
        counted = macs.count(module, (images,), {}, second_count=False, inspect_values=False)
    assert module(images).shape == (1, 400, 768)
    assert round(counted.macs / 1e9, 2) == 37.66


def test_the_semantic_loss_is_of_directions():
    x = torch.randn(2, 5, 7)
    assert float(semantic_loss(x, 3 * x)) == pytest.approx(0.0, abs=1e-6)
    assert float(semantic_loss(x, -x)) == pytest.approx(2.0, abs=1e-6)


def test_what_is_deployed_has_the_plain_names_and_products():
    torch.manual_seed(0)
    plain = digits_hybrid(width=8)
    names, images = list(plain.state_dict()), plain.example_inputs(2)[0]
    before = macs.count(plain, (images,), {}, second_count=False, inspect_values=False).macs
    assert rtdetrv4(plain) is plain
    recipe = rtdetrv4(plain, workload=STEP)
    assert isinstance(recipe, RtDetrV4)
    assert [n.removeprefix("student.") for n in recipe.state_dict() if n.startswith("student.")] == names
    assert macs.count(recipe, (images,), {}, second_count=False, inspect_values=False).macs == before


def test_a_step_adds_the_weighted_semantic_loss_and_reaches_the_injector():
    torch.manual_seed(0)
    recipe = rtdetrv4(digits_hybrid(width=8), teacher_width=8, workload=STEP).train()
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    said, semantic = recipe(images)
    total = recipe.loss((said, semantic), labels)
    assert torch.allclose(total, nn.functional.cross_entropy(said, labels) + 5 * semantic)
    total.backward()
    assert recipe.injector.weight.grad is not None
    assert all(p.grad is None for p in recipe.teacher.parameters())


def test_the_weight_is_steered_once_an_epoch_and_ends_with_the_default():
    recipe = rtdetrv4(digits_hybrid(width=8), teacher_width=8, workload=STEP)
    epoch = -(-SAMPLES // BATCH)
    for parameter in recipe.student.parameters():
        parameter.grad = torch.ones_like(parameter)
    share = gradient_share(recipe.student.deepest, recipe.parameters())
    for step in range(3 * epoch):
        recipe.after_step(step, 3 * epoch)
    course = recipe.history()
    first = SMALL.next_weight(5, share)
    assert course["weight"] == pytest.approx([5, first, SMALL.next_weight(first, share), 20])
    assert course["gradient_share"] == pytest.approx([share] * 3)


def test_a_fixed_weight_stays_and_its_shares_are_still_noted():
    recipe = rtdetrv4(digits_hybrid(width=8), teacher_width=8, steered=False, start=3.0, workload=STEP)
    epoch = -(-SAMPLES // BATCH)
    for step in range(2 * epoch):
        recipe.after_step(step, 2 * epoch)
    assert recipe.history()["weight"] == [3.0] * 3


def test_models_without_such_a_layer_are_told():
    with pytest.raises(UsageError, match="digits_hybrid"):
        rtdetrv4(digits_cnn())
