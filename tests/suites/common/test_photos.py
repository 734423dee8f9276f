"""PSNR is that of a hand's arithmetic, tiles are real and held out, a trained restorer beats a naive answer."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.meters import quality
from suites.common.restorer import Restorer, restorer
from suites.common.task import TaskError
from suites.common.tasks.photos import Photos, Training, photographs, psnr

QUICK = Training(steps=2, batch=2, side=16)


def test_psnr_is_ten_times_the_logarithm_of_one_over_the_error():
    wanted = torch.zeros(2, 3, 4, 4)
    made = torch.full_like(wanted, 0.1)
    assert psnr(made, wanted) == pytest.approx([20.0, 20.0])
    rng = np.random.default_rng(0)
    one, two = rng.random((1, 3, 5, 5)), rng.random((1, 3, 5, 5))
    assert psnr(torch.tensor(one), torch.tensor(two)) == pytest.approx([-10 * math.log10(np.mean((one - two) ** 2))])
    assert psnr(wanted, wanted) == pytest.approx([20 * math.log10(510)] * 2)


def test_tiles_are_cut_from_the_right_quarter_and_squares_from_the_rest(tmp_path):
    task = Photos(tmp_path, 0, tile=40)
    (china, flower), _ = photographs()
    assert china.shape == flower.shape == (3, 427, 640)
    tiles = task.tiles()
    assert len(tiles) == 2 * 10 * 4
    assert torch.equal(tiles[5], china[:, 40:80, 480 + 40 : 480 + 80])
    assert torch.equal(tiles[40], flower[:, :40, 480:520])


def test_a_module_is_given_averages_to_enlarge_or_grain_to_remove(tmp_path):
    task = Photos(tmp_path, 0)
    module = restorer(width=4, depth=1, scale=2)
    task.fits(module, "x2")
    given, tiles = next(task.batches(3))
    assert given.shape == (3, 3, 24, 24) and torch.allclose(given[0, :, 0, 0], tiles[0, :, :2, :2].mean(dim=(1, 2)))
    task.fits(restorer(width=4, depth=1, scale=1), "grain")
    given, tiles = next(task.batches(50))
    assert float((given - tiles).std()) == pytest.approx(0.1, rel=0.02)
    seen = given.clamp(0, 1)  # white and black hide a part of the grain
    by_hand = [-10 * math.log10(float((a - b).square().mean())) for a, b in zip(seen, tiles, strict=True)]
    found = quality.measure(nn.Identity(), task, batch=50)
    assert found.metric == "psnr_db" and list(found.per_sample[:50]) == pytest.approx(by_hand, rel=1e-4)


def test_training_runs_and_its_weights_are_read_again(tmp_path):
    def build():
        torch.manual_seed(0)
        return restorer(width=4, depth=1, scale=2)

    notes = Photos(tmp_path, 0, training=QUICK).prepare("x2", build)
    task, module = Photos(tmp_path, 0, training=QUICK), build()
    assert task.load(module, "x2")["sha256"] == notes["sha256"]
    found = quality.measure(module, task)
    assert found.value == pytest.approx(notes["test_psnr_db"]) and found.n == len(task.tiles())


def test_a_restorer_that_is_no_better_than_plain_enlargement_says_so(tmp_path):
    task = Photos(tmp_path, 0)
    untrained = restorer(scale=2)  # it starts as plain enlargement
    task.fits(untrained, "x2")
    found = quality.measure(untrained, task)
    (flag,) = found.flags
    assert flag["code"] == "no_better_than_plain" and "bicubic" in flag["text"]
    assert found.value == pytest.approx(found.details["plain_psnr_db"], abs=1e-6)


def test_one_that_is_better_on_every_tile_says_nothing(tmp_path):
    class Knowing(nn.Module):
        scale = 1

        def forward(self, given):
            return next(tiles for noisy, tiles in task.batches(len(given)) if torch.equal(noisy, given))

    task = Photos(tmp_path, 0)
    task.fits(Knowing(), "knowing")
    found = quality.measure(Knowing(), task, batch=48)
    assert not found.flags and found.value > found.details["plain_psnr_db"] + 20


def test_what_has_no_detail_is_enlarged_plainly():
    module = restorer(scale=2)
    torch.nn.init.normal_(module.leave.weight)
    flat = torch.full((1, 3, 6, 6), 0.7)
    assert torch.allclose(module(flat), torch.full((1, 3, 12, 12), 0.7), atol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(TaskError, match="scale=5, which divides neither"):
        Photos(tmp_path, 0).load(restorer(width=4, scale=5), "x5")
    with pytest.raises(TaskError, match="160 pixels wide"):
        Photos(tmp_path, 0, tile=200)
    with pytest.raises(quality.QualityError, match=r"expected \(12"):
        quality.measure(nn.AvgPool2d(2), Photos(tmp_path, 0), batch=12)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 2])
def test_a_trained_restorer_beats_doing_nothing_clever(tmp_path, scale):
    def build():
        torch.manual_seed(0)
        return restorer(scale=scale)

    notes = Photos(tmp_path, 0).prepare("restorer", build)
    assert notes["test_psnr_db"] > notes["plain_psnr_db"]
    module = build()
    task = Photos(tmp_path, 0)
    task.load(module, "restorer")
    assert not quality.measure(module, task).flags  # better tile by tile, and not by chance


def test_weights_of_another_source_of_the_network_are_not_taken_for_its_own(tmp_path, monkeypatch):
    def build():
        torch.manual_seed(0)
        return restorer(width=4, depth=1, scale=2)

    def checkpoint(source):
        digest = {f"{Restorer.__module__}:Restorer": source}
        monkeypatch.setattr("suites.common.task.source_digest", lambda path: digest.get(path, "of the task"))
        return Photos(tmp_path, 0, training=QUICK).prepare("x2", build)["checkpoint"]

    assert checkpoint("one") == checkpoint("one") != checkpoint("two")
