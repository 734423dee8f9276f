"""The tasks of this suite: no byte is learned from and judged on, blur is a Gaussian's, pictures keep their size."""

import math

import pytest
import torch

from bench.meters.quality import Run
from suites.common.task import TaskError
from suites.common.tasks.byte_origin import ORIGINS, ByteOrigin, pools
from suites.common.tasks.digits import Digits
from suites.common.tasks.digits_brief import BriefDigits
from suites.common.tasks.restoration import Restoration, blurred, textures
from suites.ssm.netmamba import netmamba
from suites.ssm.serpent import serpent


def test_origins_have_bytes_of_their_own_to_learn_from_and_to_be_judged_on():
    learned, held_out = pools()
    assert len(learned) == len(held_out) == len(ORIGINS) == 5
    for part, other in zip(learned, held_out, strict=True):
        assert len(other) > 20_000 and len(part) > 2 * len(other)
    sample = held_out[0][1000:1200]
    assert sample not in learned[0] and held_out[1][1000:1400] not in learned[1]


def test_slices_are_whole_scaled_and_the_same_every_time(tmp_path):
    task = ByteOrigin(tmp_path, 0)
    task.fits(netmamba(bytes=40, width=8, depth=1, classes=5), "small")
    inputs, origins = next(task.batches(10))
    again, _ = next(task.batches(10))
    assert torch.equal(inputs, again) and inputs.shape == (10, 40) and origins.tolist() == [0, 1, 2, 3, 4] * 2
    assert inputs.min() >= -1 and inputs.max() <= 1
    text = (inputs[4] * 127.5 + 127.5).round().to(torch.uint8)
    assert bytes(text.tolist()) in pools()[1][4]  # base64 as it was written
    assert sum(len(labels) for _, labels in task.batches(64)) == task.describe()["n"] == 400


def test_networks_of_other_inputs_are_refused(tmp_path):
    with pytest.raises(TaskError, match="5 classes"):
        ByteOrigin(tmp_path, 0).fits(netmamba(bytes=40, width=8, depth=1, classes=7), "other")
    with pytest.raises(TaskError, match="restores no pictures"):
        Restoration(tmp_path, 0).fits(netmamba(bytes=40, width=8, depth=1), "other")
    for wrong in ({"form": "sharp"}, {"kernel": 8}, {"kernel": 161}, {"form": "coarse", "factor": 5}):
        with pytest.raises(TaskError):
            Restoration(tmp_path, 0, **wrong)


def test_blur_is_the_gaussian_and_keeps_what_is_even():
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1
    weights = [math.exp(-(d**2) / (2 * 1.5**2)) for d in range(-4, 5)]
    row = blurred(point, 9, 1.5)[0, 0, 10]
    wanted = torch.tensor(weights) * weights[4] / sum(weights) ** 2
    assert torch.allclose(row[6:15], wanted, atol=1e-6) and row[:6].abs().max() == 0
    even = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(blurred(even, 9, 1.5), even, atol=1e-6)


def test_made_textures_are_pictures_of_four_kinds():
    made = textures(4, 16, torch.Generator().manual_seed(0))
    assert made.shape == (4, 3, 16, 16) and made.min() >= 0 and made.max() <= 1
    assert len(made[1, 0].unique()) == 2 and len(made[2, 0].unique()) == 2  # an edge, a checkerboard


def test_a_network_that_changes_nothing_scores_what_it_is_given(tmp_path):
    network = serpent(size="tiny", width=8, blocks=[1, 1])
    for value in network.leave.parameters():
        torch.nn.init.zeros_(value)
    for form in ("blur", "coarse"):
        task = Restoration(tmp_path, 0, form=form, tile=16)
        task.fits(network, "serpent_tiny")
        with torch.inference_mode():
            score = task.score(Run(network, batch=10))
        assert score.value == pytest.approx(score.details["plain_psnr_db"]) and 15 < score.value < 40
        assert [flag["code"] for flag in score.flags] == ["no_better_than_plain"]
        assert "than leaving the pictures as they are given" in score.flags[0]["text"]


def test_brief_digits_are_the_same_digits(tmp_path):
    brief, whole = BriefDigits(tmp_path, 0), Digits(tmp_path, 0)
    assert brief.data_digest() == whole.data_digest() and brief.recipe() != whole.recipe()
    assert torch.equal(next(brief.batches(8))[0], next(whole.batches(8))[0])
