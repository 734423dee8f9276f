"""ScaleKD's projectors have the counts of the released code; its views and parts; what is deployed is the student."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.meters import macs
from suites.common.digits_cnn import digits_cnn
from suites.common.digits_resnet import digits_resnet
from suites.common.timm_bridge import timm_model
from suites.common.vit import vit
from suites.distill.scalekd import LARGE, Projector, apart, scalekd, stages_of, without_mean
from suites.distill.teaching import STEP
from suites.distill.vit_teachers import SwinTeacher, VitTeacher, teacher_of

pytest.importorskip("timm")


def params(module):
    return sum(p.numel() for p in module.parameters())


def test_projectors_of_resnet50_from_swin_l_have_the_released_parameters_and_products():
    with torch.device("meta"):
        third, fourth = Projector(1024, 14, 768, 14, True), Projector(2048, 7, 1536, 7, False)
        inputs = [(torch.empty(1, 1024, 14, 14),), (torch.empty(1, 2048, 7, 7), torch.empty(1, 1536, 7, 7))]
    assert params(fourth) == 70_117_376
    assert 2 * (params(third) + params(fourth)) == 175_958_016
    counted = [
        macs.count(module.eval(), given, {}, second_count=False, inspect_values=False).macs
        for module, given in zip((third, fourth), inputs, strict=True)
    ]
    assert round(2 * sum(counted) / 1e9, 2) == 13.85


def cosine_matrix(size):
    """The cosine transform of type II, row k a frequency."""
    place = torch.arange(size, dtype=torch.float64)
    return torch.cos(math.pi * (place + 0.5) * place[:, None] / size)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_subtracting_the_mean_takes_the_zero_frequency_out(high, wide, seed):
    x = torch.randn(2, 3, high, wide, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rows, columns = cosine_matrix(high), cosine_matrix(wide)
    transformed = rows @ x @ columns.T
    transformed[:, :, 0, 0] = 0
    back = torch.linalg.inv(rows) @ transformed @ torch.linalg.inv(columns).T
    assert torch.allclose(without_mean(x), back, atol=1e-8)


def test_maps_are_compared_by_direction_at_each_place():
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    assert float(apart(x, 4 * x)) == pytest.approx(0.0, abs=1e-12)
    assert float(apart(x, -x)) == pytest.approx(4 * 9)
    cosine = torch.nn.functional.cosine_similarity(x, x.roll(1, 1), dim=1)
    assert float(apart(x, x.roll(1, 1))) == pytest.approx(float((2 - 2 * cosine).sum() / 2))


def test_queries_attend_with_sharpened_scores():
    torch.manual_seed(0)
    projector = Projector(6, 2, 8, 3, True).double().eval()
    x, queries = torch.randn(2, 6, 2, 2, dtype=torch.float64), torch.randn(2, 8, 3, 3, dtype=torch.float64)
    seen = (projector.enter(x) + projector.places).flatten(2).mT
    asked = projector.q(projector.query_map(queries).flatten(2).mT)
    heads, size = projector.heads, 8 // projector.heads
    k, v = projector.k(seen), projector.v(seen)
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = 5.0 * (asked[..., part] @ k[..., part].mT) / math.sqrt(size)
        mixed.append(scores.softmax(-1) @ v[..., part])
    y = projector.norm(projector.out(torch.cat(mixed, -1)))
    wanted = (y + projector.network(y)).mT.unflatten(2, (3, 3))
    assert torch.allclose(projector(x, queries), wanted, atol=1e-10)


@torch.inference_mode()
def test_the_fourth_stage_of_a_swin_is_what_its_third_runs_through():
    torch.manual_seed(0)
    net = teacher_of("swin_tiny_patch4_window7_224", 224).eval()
    assert isinstance(net, SwinTeacher)
    images = torch.randn(1, 3, 224, 224)
    seen = net(images)
    assert torch.allclose(seen.logits, net.net(images), atol=1e-4)
    assert torch.allclose(net.last_stage(seen.third), seen.fourth, atol=1e-4)
    assert seen.third.shape[1:] == (384, 14, 14) and seen.fourth.shape[1:] == (768, 7, 7)


@torch.inference_mode()
def test_a_plain_transformer_answers_as_it_does_and_its_last_quarter_is_its_fourth_stage():
    torch.manual_seed(0)
    net = VitTeacher(vit(width=16, heads=2, depth=8, patch=4, resolution=16, classes=5, class_token=False, pool="mean"))
    images = torch.randn(2, 3, 16, 16)
    seen = net.eval()(images)
    assert net.split == 6
    assert torch.allclose(seen.logits, net.net(images), atol=1e-6)
    assert torch.allclose(net.last_stage(seen.third), seen.fourth, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "third", "fourth"),
    [
        ("resnet50", (1024, 14), (2048, 7)),
        ("convnext_tiny", (384, 14), (768, 7)),
        ("swin_tiny_patch4_window7_224", (384, 14), (768, 7)),
        ("vit_small_patch16_224", (384, 14), (384, 14)),
        ("mixer_s16_224", (512, 14), (512, 14)),
        ("mobilenetv1_100", (512, 14), (1024, 7)),
    ],
)
def test_stages_of_students_of_the_paper_are_found(name, third, fourth):
    with torch.device("meta"):
        net = timm_model(name=name)
        stages = stages_of(net)
        net(torch.empty(1, 3, 224, 224))
    for stage, (width, side) in zip(stages, (third, fourth), strict=True):
        assert (stage.width, stage.side) == (width, side)
        assert stage.take().shape == (1, width, side, side)


@pytest.mark.parametrize("build", [lambda: digits_cnn(width=8), lambda: digits_resnet(blocks=1, width=8)])
def test_what_is_deployed_is_the_student_with_its_own_names_and_products(build):
    torch.manual_seed(0)
    plain, names = build(), list(build().state_dict())
    images = plain.example_inputs(2)[0]
    before = macs.count(plain, (images,), {}, second_count=False, inspect_values=False).macs
    assert scalekd(plain) is plain
    recipe = scalekd(plain, workload=STEP)
    assert [n.removeprefix("student.") for n in recipe.state_dict() if n.startswith("student.")] == names
    assert macs.count(recipe, (images,), {}, second_count=False, inspect_values=False).macs == before


def test_a_step_trains_student_and_projectors_and_leaves_the_teacher():
    torch.manual_seed(0)
    recipe = scalekd(digits_cnn(width=8, resolution=16), workload=STEP).train()
    assert not any(part.training for part in recipe.teacher.modules())
    recipe.learning_loss(torch.randn(4, 3, 16, 16), recipe.example_targets(4, 0)).backward()
    missing = [name for name, p in recipe.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert {name.split(".")[0] for name, p in recipe.named_parameters() if p.grad is not None} == {"student", "views"}


def test_parts_that_are_left_out_are_not_there():
    whole, less = (
        scalekd(digits_cnn(width=8, resolution=16), dual=on, perception=on, logits=on, workload=STEP)
        for on in (True, False)
    )
    assert (len(whole.views), len(less.views)) == (2, 1)
    assert whole.views[0].fourth.query is None and less.views[0].fourth.query is not None
    images = torch.randn(2, 3, 16, 16)
    said, seen, features = less.train()(images)
    own = torch.nn.functional.cross_entropy(said, torch.tensor([1, 2]))
    assert torch.allclose(less.loss((said, seen, features), torch.tensor([1, 2])), features + own)


def test_what_does_not_fit_is_told():
    with pytest.raises(UsageError, match="classes"):
        scalekd(digits_cnn(), teacher="swin_tiny_patch4_window7_224", workload=STEP)
    with pytest.raises(UsageError, match="no weights to teach"):
        scalekd(digits_cnn(), teacher=LARGE, training_steps=3)
    with pytest.raises(UsageError, match="not known"):
        scalekd(vit(width=16, heads=2, depth=2, patch=8, resolution=16, classes=10), teacher="digits", workload=STEP)
