"""GFL detectors have the printed counts; which place answers for which box; what MedDet adds to a step."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.errors import UsageError
from suites.distill import closed_forms_students as forms
from suites.distill.gfl import STRIDES, OdeBlock, gfl
from suites.distill.gfl_loss import ANCHOR, CANDIDATES, Places, assigned, detection_loss, example_boxes, overlaps
from suites.distill.meddet import MedDet, meddet, standardised
from suites.distill.teaching import STEP

pytest.importorskip("torchvision")
SMALL = {"width": 0.1, "channels": 32, "convs": 1, "resolution": 64}


def params(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("mobilenet_v2", 10_417_226), ("resnet50", 32_258_442), ("resnet101", 51_250_570), ("resnet152", 66_894_218)],
)
def test_one_class_detectors_have_the_parameters_that_were_derived_for_them(backbone, count):
    with torch.device("meta"):
        assert params(gfl(backbone=backbone)) == count


def test_the_student_is_a_third_of_its_teacher_and_its_head_most_of_its_products():
    assert round(10.42 / 32.32, 4) == 0.3224
    student, teacher = (forms.gfl({"backbone": name, "resolution": 512}, {}) for name in ("mobilenet_v2", "resnet50"))
    assert (round(student / 1e9, 2), round(teacher / 1e9, 2)) == (31.54, 52.12)
    assert round(student / teacher, 3) == 0.605
    head = sum((512 // stride) ** 2 for stride in STRIDES) * (8 * 9 * 256**2 + 9 * 256 * 69)
    assert round(head / student, 2) == 0.84


def test_the_teachers_block_adds_one_layer_and_the_print_of_resnet50():
    with torch.device("meta"):
        block = OdeBlock(256, 4)
    assert params(block) == 256 * 256 + 256
    assert round((32_258_442 + params(block)) / 1e6, 2) == 32.32  # as printed; without it 32.26


def test_euler_steps_of_the_block_are_the_equation_and_come_nearer_with_more_steps():
    drive = torch.tensor([-1.0, 0.0, 0.4, 2.0]).view(1, 4, 1, 1)
    with torch.no_grad():
        blocks = {steps: OdeBlock(4, steps) for steps in (1, 4, 64, 4096)}
        for block in blocks.values():
            block.linear.weight.copy_(torch.eye(4)[..., None, None])
            block.linear.bias.zero_()
        found = {steps: block(drive).flatten().tolist() for steps, block in blocks.items()}
    for place, value in enumerate(drive.flatten().tolist()):
        y = 0.0
        for _ in range(4):
            y += 0.25 * (-y + math.sin(y + math.cos(y + value) ** 2) ** 2)
        assert found[4][place] == pytest.approx(y, abs=1e-6)
        exact = found[4096][place]
        assert abs(found[64][place] - exact) < abs(found[4][place] - exact) < abs(found[1][place] - exact)


def test_a_distribution_at_one_bin_is_that_many_strides_away():
    places = Places.of((64, 64), STRIDES, torch.zeros(1))
    sides = torch.full((1, len(places.strides), 4, 17), -50.0)
    sides[..., 3] = 50.0
    assert torch.allclose(places.distances(sides), (3 * places.strides)[None, :, None].expand(1, -1, 4))
    assert places.counts == (64, 16, 4, 1, 1)


def slow_assignment(boxes, places):
    """Algorithm 1, box by box and place by place."""

    def overlap(a, b):
        wide, high = (max(0.0, min(a[2 + i], b[2 + i]) - max(a[i], b[i])) for i in (0, 1))
        area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return wide * high / (area[0] + area[1] - wide * high)

    centres, strides = places.centres.tolist(), places.strides.tolist()
    best = [(-1.0, None)] * len(centres)
    for number, box in enumerate(boxes.tolist()):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        kept, begin = [], 0
        for count in places.counts:
            level = range(begin, begin + count)
            kept += sorted(level, key=lambda place: math.dist(centres[place], middle))[:CANDIDATES]
            begin += count
        found = {}
        for place in kept:
            (x, y), half = centres[place], strides[place] * ANCHOR / 2
            found[place] = overlap(box, (x - half, y - half, x + half, y + half))
        mean = sum(found.values()) / len(found)
        spread = math.sqrt(sum((value - mean) ** 2 for value in found.values()) / (len(found) - 1))
        for place, value in found.items():
            x, y = centres[place]
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and value >= mean + spread and value > best[place][0]:
                best[place] = (value, number)
    return [number for _, number in best]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_places_answer_for_the_boxes_that_the_algorithm_gives_them(seed):
    places = Places.of((128, 128), STRIDES, torch.zeros(1, dtype=torch.float64))
    boxes = example_boxes(1, 128, 1, seed)[..., :4].double()
    which, answers = assigned(boxes, places)
    wanted = slow_assignment(boxes[0], places)
    assert answers[0].tolist() == [number is not None for number in wanted]
    assert [w for w, a in zip(which[0].tolist(), answers[0].tolist(), strict=True) if a] == [
        number for number in wanted if number is not None
    ]


def test_overlaps_are_those_of_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    one, other = (example_boxes(1, 50, 1, seed)[0, :, :4].double() for seed in (1, 2))
    found, generalised = overlaps(one, other)
    assert torch.allclose(found, ops.box_iou(one, other).diagonal(), atol=1e-9)
    assert torch.allclose(generalised, ops.generalized_box_iou(one, other).diagonal(), atol=1e-9)


def test_a_detector_learns_one_picture_by_its_loss():
    torch.manual_seed(0)
    net = gfl(**SMALL).train()
    images, targets = torch.randn(2, 3, 64, 64), net.example_targets(2, 0)
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=3e-3), []
    for _ in range(20):
        loss = net.loss(net(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_a_box_that_is_met_exactly_costs_nothing_but_its_distribution():
    places = Places.of((64, 64), STRIDES, torch.zeros(1))
    target = torch.tensor([[[8.0, 8.0, 56.0, 56.0, 0.0]]])
    _, answers = assigned(target[..., :4], places)
    reach = (
        torch.cat((places.centres - target[0, :, :2], target[0, :, 2:4] - places.centres), -1) / places.strides[:, None]
    )
    low = reach.clamp(0, 15.99).floor()
    share = reach.clamp(0, 15.99) - low
    sides = torch.full((1, len(reach), 4, 17), -1e4)
    sides.scatter_(-1, low.long()[None, ..., None], (1 - share).clamp(min=1e-9).log()[None, ..., None])
    sides.scatter_(-1, low.long()[None, ..., None] + 1, share.clamp(min=1e-9).log()[None, ..., None])
    kinds = torch.where(answers[..., None], 30.0, -30.0)
    entropy = -((1 - share) * (1 - share).clamp(min=1e-9).log() + share * share.clamp(min=1e-9).log()).mean(-1)
    assert answers.any()
    found = detection_loss(kinds, sides, target, places)
    assert float(found) == pytest.approx(0.25 * float(entropy[answers[0]].mean()), abs=2e-3)


def test_what_meddet_deploys_is_the_plain_detector_and_a_step_has_frozen_teachers():
    torch.manual_seed(0)
    net = gfl(**SMALL)
    names = list(net.state_dict())
    assert meddet(net) is net
    recipe = meddet(net, teachers=["resnet18", "mobilenet_v2"], workload=STEP)
    assert isinstance(recipe, MedDet) and len(recipe.taught_by) == 2
    own = [name.removeprefix("student.") for name in recipe.state_dict() if name.startswith("student.")]
    assert own == names
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(recipe(images), net(images))
    recipe.train()
    assert recipe.student.training
    assert not any(part.training for teacher in recipe.taught_by for part in teacher.modules())
    recipe.loss(recipe(images), recipe.example_targets(2, 0)).backward()
    trained = {name.split(".")[0] for name, p in recipe.named_parameters() if p.grad is not None}
    assert trained == {"student", "aligned", "shares", "generator", "discriminator"}


def test_the_discriminators_gradient_is_turned_round_before_the_generator():
    torch.manual_seed(0)
    net = gfl(**SMALL)
    recipe = meddet(net, teachers=["mobilenet_v2"], feature=1e-9, adversary=1.0, workload=STEP).train()
    levels = [torch.randn(2, 32, side, side) for side in (8, 4, 2, 1, 1)]
    recipe.map_loss(levels, [levels]).backward()
    turned = recipe.generator[0].weight.grad.clone()
    recipe.zero_grad()
    told = [nn.functional.softplus(recipe.discriminator(recipe.generator(x))).mean() for x in levels]
    torch.stack(told).mean().backward()
    assert torch.allclose(turned, -recipe.generator[0].weight.grad, atol=1e-6)


def test_shares_of_the_teachers_sum_to_one_and_maps_are_compared_whatever_their_scale():
    net = gfl(**SMALL)
    recipe = meddet(net, teachers=["mobilenet_v2", "resnet18"], workload=STEP)
    with torch.no_grad():
        for layer in recipe.aligned:
            layer.weight.copy_(torch.eye(32)[..., None, None])
            layer.bias.zero_()
        recipe.shares.copy_(torch.tensor([0.0, math.log(3.0)]))
        one, other = torch.randn(1, 32, 4, 4), torch.randn(1, 32, 4, 4)
        assert torch.allclose(recipe.fused([[one], [other]])[0], 0.25 * one + 0.75 * other, atol=1e-6)
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    assert torch.allclose(standardised(x), standardised(7 * x + 2), atol=1e-5)


def test_another_model_is_told_what_it_has_to_be():
    with pytest.raises(UsageError, match="gfl_mobilenet_v2"):
        meddet(nn.Linear(1, 1))
