"""Shared networks count what their closed forms say, keep their shapes, and load back; what is trained has its task."""

import pytest
import torch

from bench.config import catalogue as catalogues
from bench.meters import macs as meter
from bench.worker.subject import find
from suites.common.digits_cnn import digits_cnn
from suites.common.digits_resnet import digits_resnet
from suites.common.dit import dit
from suites.common.rectified_flow import noise
from suites.common.restorer import restorer
from suites.common.stacking import shorten
from suites.common.unet import unet
from suites.common.vit import vit

CATALOGUE = catalogues.load()
HOUSE = ("digits_cnn", "digits_resnet20", "digit_dit", "digit_unet", "moving_cnn", "photo_x2", "photo_grain")


def macs(module, *inputs):
    with torch.no_grad():
        return meter.count(module, inputs, {}, second_count=False).macs


def build(name):
    entry = CATALOGUE.models[name]
    return find(entry.path)(**entry.settings)


@pytest.mark.parametrize("name", HOUSE)
def test_every_house_model_has_a_task_that_it_fits_and_answers_two_samples_alike(name, tmp_path):
    entry = CATALOGUE.models[name]
    torch.manual_seed(0)
    module = build(name)
    find(CATALOGUE.tasks[entry.task].path)(cache=tmp_path, seed=0).fits(module, name)
    inputs = module.example_inputs(2)
    with torch.no_grad():
        together, alone = module(*inputs), module(*(each[:1] for each in inputs))
    assert torch.isfinite(together).all() and torch.allclose(together[:1], alone, atol=1e-5)
    assert not module.training


def test_the_transformer_counts_its_closed_form():
    n, c, layers = 64, 64, 6
    blocks = layers * (12 * n * c**2 + 2 * n**2 * c + 6 * c**2)
    ends = n * 4 * c + n * 4 * c + 2 * c**2 + 256 * c + c**2
    module = dit()
    assert macs(module, *module.example_inputs(1)) == blocks + ends == 22_228_992
    assert module(torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(2, dtype=torch.long)).shape == (2, 1, 8, 8)


def test_the_u_net_counts_its_closed_form():
    mc, context, words, fine, coarse = 32, 32, 1, 256, 64

    def res(n, i, o):
        return n * 9 * i * o + n * 9 * o * o + 4 * mc * o + (n * i * o if i != o else 0)

    def block(n, c):
        return 18 * n * c**2 + 2 * n**2 * c + 2 * n * c**2 + 2 * words * context * c + 2 * n * words * c

    deep = 2 * mc
    wanted = (
        res(fine, mc, mc)
        + res(coarse, mc, deep)
        + 2 * res(coarse, deep, deep)
        + res(coarse, 2 * deep, deep)
        + res(fine, deep + mc, mc)
        + 3 * block(coarse, deep)
        + 20 * mc**2
        + 2 * fine * 9 * mc
        + coarse * 9 * mc * mc
        + fine * 9 * deep * deep
    )
    module = unet()
    assert macs(module, *module.example_inputs(1)) == wanted


def test_the_depthwise_network_counts_its_closed_form():
    w, halves = 24, [16, 16, 8, 8, 4, 4]  # sides of the stem's and the layers' maps at 32 px
    widths = [w, w, 2 * w, 2 * w, 4 * w, 4 * w]
    wanted = halves[0] ** 2 * 27 * w + 10 * 4 * w
    for place in range(1, 6):
        wanted += halves[place] ** 2 * (9 * widths[place - 1] + widths[place - 1] * widths[place])
    assert macs(digits_cnn(), torch.zeros(1, 3, 32, 32)) == wanted


def test_three_blocks_a_stage_are_twenty_layers():
    module = digits_resnet()
    layers = [
        m
        for name, m in module.named_modules()
        if isinstance(m, torch.nn.Conv2d | torch.nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == 20
    assert macs(digits_resnet(resolution=8, channels=1), torch.zeros(1, 1, 8, 8)) * 4 == macs(
        digits_resnet(resolution=16, channels=1), torch.zeros(1, 1, 16, 16)
    ) + 3 * (64 * 10)


def test_a_restorer_adds_to_what_it_is_given():
    for scale in (1, 2, 3):
        module = restorer(width=4, depth=1, scale=scale)
        with torch.no_grad():
            module.leave.weight.zero_()
            flat = torch.full((1, 3, 6, 6), 0.25)
            assert torch.allclose(module(flat), torch.full((1, 3, 6 * scale, 6 * scale), 0.25))


@pytest.mark.parametrize("build_one", [dit, unet])
def test_a_sampler_starts_from_each_picture_s_own_noise_and_its_plan_covers_the_whole_way(build_one):
    module = build_one()
    assert torch.equal(module.example_noise(5, 3)[:2], noise(range(2), 3, (1, 16, 16)))
    assert not torch.equal(module.example_noise(2, 3), module.example_noise(2, 4))
    plan = module.plan({"steps": 7})
    assert len(plan) == 7 and sum(step["dt"] for step in plan) == pytest.approx(1.0)
    assert (plan[0]["t"], plan[0]["evaluations"]) == (1.0, 1)
    module.shift = 3.0
    shifted = module.plan({"steps": 4, "guidance": 2.0})
    assert shifted[2]["t"] == pytest.approx(3 * 0.5 / (1 + 2 * 0.5)) and shifted[0]["evaluations"] == 2


def test_guidance_of_one_is_the_conditional_branch_and_of_zero_the_other():
    torch.manual_seed(0)
    module = unet(width=8, heads=2)
    x, classes = torch.randn(2, 1, 16, 16), torch.tensor([3, 4])
    times = torch.full((2,), 0.5)
    with torch.no_grad():
        for scale, wanted in ((1.0, classes), (0.0, torch.tensor([10, 10]))):
            module.plan({"steps": 2, "guidance": scale})
            assert torch.allclose(module.guided(x, 0.5, classes), module.velocity(x, times, wanted), atol=1e-5)


def test_blocks_that_are_grown_are_copies_that_add_a_share():
    torch.manual_seed(0)
    model = vit(width=16, heads=2, depth=4, patch=8, resolution=16, classes=3)
    first, third = model.blocks[0], model.blocks[2]
    grow = shorten(model, 2)
    assert list(model.blocks) == [first, third]
    weight = first.mlp.fc2.weight.detach().clone()
    grow()
    assert len(model.blocks) == 4 and torch.equal(model.blocks[1].mlp.fc2.weight, weight / 2)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight)
    assert shorten(model, 3) is None and shorten(digits_cnn(), 2) is None
