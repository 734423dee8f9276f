"""Reading digits: pixels keep their grey level and place, answers are asked for through the cache."""

import math

import pytest
import torch

from bench.meters.quality import Run
from suites.common import digits_data as data
from suites.common.digits_reader import PixelsAndText, digits_reader
from suites.common.task import TaskError
from suites.common.tasks.digit_reading import ASK, PIXELS, TEXT, DigitReading, Training, answer_loss, pixel_ids
from suites.decode.prefixkv import prefixkv
from suites.decode.vidkv import vidkv
from suites.decode.zipvl import zipvl


def small(pictures=2):
    torch.manual_seed(0)
    return digits_reader(width=32, layers=2, heads=2, hidden=24, pictures=pictures)


def test_ids_hold_grey_level_and_place():
    index = torch.tensor([[3, 9]])
    ids = pixel_ids(index, 2)[0] - TEXT
    assert len(ids) == 2 * PIXELS
    level, place = ids // 128, ids % 128
    assert place.tolist() == list(range(128))
    grey = torch.cat([data.digits()[0][3].flatten(), data.digits()[0][9].flatten()]) * 16
    assert torch.equal(level.float(), grey)


def test_embeddings_are_the_sum_of_their_parts():
    table = PixelsAndText(8, pictures=2)
    ids = torch.tensor([[5, TEXT + 3 * 128 + 64 + 7]])
    out = table(ids)[0]
    assert torch.equal(out[0], table.weight[5])
    grey = (3 / 16 - data.MEAN) / data.STD
    assert torch.allclose(out[1], grey * table.gain[7] + table.place[7] + table.picture[1], atol=1e-6)


def test_a_sample_asks_for_every_picture_and_the_loss_looks_behind_the_asks(tmp_path):
    task = DigitReading(tmp_path, 0)
    task.fits(small(), "small")
    ids, wanted = next(task.training_batches(5, 1, 0))
    text = ids[:, 2 * PIXELS :]
    assert text.shape == (5, 3)
    assert torch.equal(text[:, 0], torch.full((5,), ASK)) and torch.equal(text[:, 2], torch.full((5,), ASK + 1))
    assert torch.equal(text[:, 1], wanted[:, 0])
    logits = torch.zeros(5, ids.shape[1], TEXT)
    logits[torch.arange(5), 128, wanted[:, 0]] = 50.0
    logits[torch.arange(5), 130, wanted[:, 1]] = 50.0
    assert answer_loss(logits, wanted, 2) == pytest.approx(0.5 * math.log(TEXT))
    logits[torch.arange(5), 63, wanted[:, 0]] = 50.0
    logits[torch.arange(5), 127, wanted[:, 1]] = 50.0
    assert answer_loss(logits, wanted, 2) < 1e-6


def test_nobody_learns_from_a_held_out_picture(tmp_path):
    task = DigitReading(tmp_path, 0)
    task.fits(small(4), "small")
    known, held_out = set(data.split()[0].tolist()), set(task.held_out().flatten().tolist())
    assert not known & held_out
    assert task.describe()["n"] == len(held_out) == 596


@pytest.mark.parametrize(
    "method", [lambda m: m, lambda m: zipvl(m, tau=1.0, high_bits=16), lambda m: prefixkv(m, budget=1.0)]
)
def test_a_prompt_and_steps_equal_one_parallel_forward_under_identity_settings(method):
    model = small()
    ids = model.example_inputs(2)[0]
    more = torch.tensor([[3, ASK + 1], [7, ASK + 1]])
    with torch.no_grad():
        whole = model(torch.cat([ids, more], dim=1))
        changed = method(small())
        logits, kept = changed.prefill(ids)
        assert torch.allclose(logits, whole[:, ids.shape[1] - 1], atol=1e-4)
        for place in range(2):
            logits, kept = changed.decode(more[:, place : place + 1], kept)
            assert torch.allclose(logits, whole[:, ids.shape[1] + place], atol=1e-4)


def test_the_visual_prefix_can_be_named_to_vidkv(tmp_path):
    model = vidkv(small(), prefix=96, salient=0.2, residual=16)
    task = DigitReading(tmp_path, 0)
    task.fits(small(), "small")
    with torch.inference_mode():
        found = task.score(Run(model, batch=100))
    assert found.n == 596


def test_the_score_counts_right_digits(tmp_path):
    task = DigitReading(tmp_path, 0, training=Training(steps=1, batch=2))
    task.fits(small(4), "small")
    wanted = iter(data.labels(task.held_out().flatten()).tolist())

    class Perfect:
        def prefill(self, ids):
            return self.say(ids), None

        def decode(self, ids, cache):
            return (self.say(ids) if int(ids[0, 0]) >= ASK else torch.zeros(len(ids), TEXT)), None

        def say(self, ids):
            return torch.nn.functional.one_hot(torch.tensor([next(wanted)]), TEXT).float()

    assert task.score(Run(Perfect(), batch=1)).value == 100
    with pytest.raises(TaskError, match="digits_reader"):
        task.fits(torch.nn.Linear(1, 1), "linear")
