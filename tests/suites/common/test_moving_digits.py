"""Moving digits: labels are what moves, a stream is scored like its clip, answers where they are given."""

import pytest
import torch
from torch import nn

from bench.meters import quality
from suites.common import digits_data
from suites.common.moving_cnn import moving_cnn
from suites.common.task import TaskError
from suites.common.tasks.moving_digits import CLASSES, DIGIT, DIRECTIONS, MovingDigits, Training

QUICK = {"training": Training(steps=2, batch=2, length=8), "frames": 12, "sequences": 6}


@pytest.fixture
def task(tmp_path):
    return MovingDigits(tmp_path, 0, **QUICK)


def quiet(tmp_path):
    return MovingDigits(tmp_path, 0, **{**QUICK, "grain": 0.0})


class Oracle(nn.Module):
    """Answers what it is told, shifted by so many classes after so many frames."""

    def __init__(self, labels, wrong_from=None):
        super().__init__()
        self.labels, self.wrong_from = labels, wrong_from

    def forward(self, clips):
        said = self.labels.clone()
        if self.wrong_from is not None:
            said[:, self.wrong_from :] = (said[:, self.wrong_from :] + 1) % CLASSES
        return nn.functional.one_hot(said, CLASSES).float()


def test_the_label_is_the_digit_and_the_way_it_came(tmp_path):
    clips, labels = next(quiet(tmp_path).batches(6))
    assert clips.shape == (6, 12, 1, 32, 32) and labels.shape == (6, 12)
    for clip, label in zip(clips[:, :, 0], labels, strict=True):
        corners = [corner(frame, digit_of(label)) for frame in clip]
        for place in range(1, len(corners)):
            way = DIRECTIONS[int(label[place]) % len(DIRECTIONS)]
            moved = tuple(b - a for a, b in zip(corners[place - 1], corners[place], strict=True))
            assert moved in (way, (2 * way[0], 2 * way[1]))


def digit_of(label):
    return int(label[0]) // len(DIRECTIONS)


def corner(frame, digit):
    """Where on the canvas a digit of that class of the data stands exactly."""
    pixels = digits_data.digits()[0][digits_data.digits()[1] == digit]
    windows = frame.unfold(0, DIGIT, 1).unfold(1, DIGIT, 1)
    full = windows.sum(dim=(2, 3)) == frame.sum()
    for row, column in full.nonzero().tolist():
        if bool((pixels == windows[row, column]).all(dim=2).all(dim=1).any()):
            return row, column
    raise AssertionError("no such digit in the frame")


def test_held_out_sequences_show_held_out_digits_and_are_the_same_for_every_seed(tmp_path):
    one, two = (torch.cat([clips for clips, _ in MovingDigits(tmp_path, seed, **QUICK).batches(4)]) for seed in (0, 3))
    assert torch.equal(one, two)
    assert set(digits_data.split()[0].tolist()).isdisjoint(digits_data.split()[1].tolist())


def test_the_score_is_the_mean_share_over_sequences(task):
    labels = torch.cat([labels for _, labels in task.batches(6)])
    assert quality.measure(Oracle(labels), task).value == 100.0
    half = quality.measure(Oracle(labels, wrong_from=6), task)
    assert (half.value, half.low, half.high) == (50.0, 50.0, 50.0)
    assert half.details["curve"] == [100.0] * 6 + [0.0] * 6 and half.per_sample == (50.0,) * 6


def test_a_stream_is_scored_like_its_clip(task):
    torch.manual_seed(0)
    model = moving_cnn(width=8)

    class Clip(nn.Module):
        transient = model.transient

        def __init__(self):
            super().__init__()
            self.inside = model

        def forward(self, clips):
            return self.inside(clips)

    streamed, clipped = quality.measure(model, task, batch=4), quality.measure(Clip(), task, batch=4)
    assert streamed.per_sample == clipped.per_sample
    assert len(streamed.details["curve"]) == 12 - model.transient and streamed.details["first"] == model.transient


def test_answers_at_every_third_frame_are_held_to_the_labels_of_those_frames(task):
    labels = torch.cat([labels for _, labels in task.batches(6)])

    class Third(nn.Module):
        def init(self, batch):
            return 0

        def step(self, x, state):
            said = nn.functional.one_hot(labels[:, state], CLASSES).float() if state % 3 == 2 else None
            return said, state + 1

    found = quality.measure(Third(), task)
    assert found.value == 100.0 and found.details["at"] == [2, 5, 8, 11] and found.details["first"] == 2


def test_steps_give_what_the_whole_clip_gives():
    torch.manual_seed(0)
    model = moving_cnn(width=8, layers=3)
    clip = model.example_clip(2, 10)
    state, said = model.init(2), []
    with torch.no_grad():
        whole = model(clip)
        for place in range(10):
            answer, state = model.step(clip[:, place], state)
            said += [] if answer is None else [answer]
    assert len(said) == whole.shape[1] == 10 - model.transient
    assert torch.allclose(torch.stack(said, dim=1), whole, atol=1e-5)


def test_one_answer_to_a_clip_is_that_of_its_last_frame(task):
    labels = torch.cat([labels for _, labels in task.batches(6)])

    class Last(nn.Module):
        def forward(self, clips):
            return nn.functional.one_hot(labels[:, -1], CLASSES).float()

    found = quality.measure(Last(), task)
    assert found.value == 100.0 and found.details["first"] == 11


def test_training_runs_and_its_weights_are_read_again(task, tmp_path):
    def build():
        torch.manual_seed(0)
        return moving_cnn(width=8)

    notes = task.prepare("moving", build)
    module = build()
    assert MovingDigits(tmp_path, 0, **QUICK).load(module, "moving")["sha256"] == notes["sha256"]
    assert quality.measure(module, task).value == pytest.approx(notes["test_step_accuracy"])


def test_other_classes_and_no_answers_are_refused(task):
    with pytest.raises(TaskError, match="10 logits and moving_digits has 20"):
        task.load(moving_cnn(width=8, classes=10), "ten")
    with pytest.raises(quality.QualityError, match="gave no answer in 12 frames"):
        quality.measure(moving_cnn(width=8, layers=6), task)


def test_clips_to_learn_from_are_as_long_as_a_window_that_is_longer(task):
    model = moving_cnn(width=8)
    for frames, length in ((5, QUICK["training"].length), (40, 40)):
        model.frames = frames
        task.fits(model, "moving")
        assert next(iter(task.training_batches(2, 1, 0)))[0].shape[1] == length


@pytest.mark.slow
def test_the_house_network_sees_which_way_digits_go(tmp_path):
    def build():
        torch.manual_seed(0)
        return moving_cnn()

    assert MovingDigits(tmp_path, 0).prepare("moving_cnn", build)["test_step_accuracy"] >= 70
