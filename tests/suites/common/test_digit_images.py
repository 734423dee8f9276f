"""The Frechet distance is that of scipy's matrix root and of closed forms; a sampler is scored by its own steps."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg

from bench.meters import quality
from suites.common import digits_data
from suites.common.dit import dit
from suites.common.rectified_flow import FlowModel, learned_times
from suites.common.task import TaskError
from suites.common.tasks.digit_images import DigitImages, Training, frechet, pictures

QUICK = {"training": Training(steps=2, batch=4), "samples": 70, "seeds": 2, "judge_steps": 160}


class Copyist(FlowModel):
    """Its velocity leads from any noise straight to one stored digit of the class that is asked for."""

    resolution, channels, classes = 16, 1, 10

    def __init__(self, wrong=0):
        super().__init__()
        index = digits_data.split()[0]
        first = torch.stack([index[digits_data.labels(index) == digit][0] for digit in range(10)])
        self.shown = torch.nn.Parameter(pictures(first))
        self.wrong = wrong

    def velocity(self, x, t, classes):
        target = self.shown[(classes + self.wrong) % 10]
        return (x - target) / t[:, None, None, None]


def test_the_distance_is_that_of_scipy_s_matrix_root():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(200, 6)), rng.normal(size=(150, 6)) @ rng.normal(size=(6, 6)) + 1
    a, b = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    wanted = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(linalg.sqrtm(a @ b)))
    assert frechet(torch.tensor(one), torch.tensor(two)) == pytest.approx(wanted, rel=1e-8)


def test_the_distance_of_a_set_from_itself_moved_and_stretched_has_a_closed_form():
    x = torch.randn(500, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    moved = torch.tensor([1.0, 2.0, 2.0], dtype=torch.double)
    assert frechet(x, x + moved) == pytest.approx(9.0)
    # covariance S and 4 S: tr(S + 4 S - 2 (4 S S)^1/2) = tr S, and the means move by the mean
    centred = x - x.mean(0)
    assert frechet(centred, 2 * centred) == pytest.approx(float(torch.cov(x.T).trace()))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    made = DigitImages(tmp_path_factory.mktemp("cache"), 0, **QUICK)
    made._spread = [1.0, 1.5]
    return made


def test_a_sampler_that_shows_what_it_is_asked_for_is_seen_to_and_one_that_does_not_is_not(task):
    right, wrong = (quality.measure(Copyist(shift), task, batch=32, shape={"steps": 2}) for shift in (0, 1))
    assert right.metric == "frechet_distance" and right.n == 70
    assert right.also[0].value > 80
    assert wrong.also[0].value < 20
    assert right.details["spread"] == 0.5 and right.details["floor"] == pytest.approx(task.floor())
    assert task.floor() < right.value  # ten digits over and over are no crowd of digits


def test_the_shape_of_the_case_says_how_many_steps_are_taken(task):
    taken = []

    class Counting(Copyist):
        def step(self, index, state):
            taken.append(index)
            return super().step(index, state)

    quality.measure(Counting(), task, batch=70, shape={"steps": 3, "guidance": 2.0})
    assert taken == [0, 1, 2]


def test_batches_of_another_size_make_the_same_pictures(task):
    one, two = (quality.measure(Copyist(), task, batch=size, shape={"steps": 2}) for size in (70, 9))
    assert one.value == pytest.approx(two.value, rel=1e-5) and one.also[0].per_sample == two.also[0].per_sample


def test_the_judge_is_trained_once_and_the_spread_comes_with_the_weights(task, monkeypatch):
    notes = task.prepare("tiny", tiny)
    again = DigitImages(task.cache.folder.parent, 0, **QUICK)
    monkeypatch.setattr(DigitImages, "_train_judge", lambda *_: pytest.fail("the judge was trained again"))
    module = tiny()
    assert again.load(module, "tiny")["sha256"] == notes["sha256"]
    found = quality.measure(module, again, shape={"steps": 20})
    assert found.details["seeds"] == notes["test_frechet"] and found.value == pytest.approx(
        notes["test_frechet"][0], rel=1e-4
    )


def tiny():
    torch.manual_seed(0)
    return dit(width=8, heads=2, depth=1, patch=4)


def test_a_module_that_does_not_sample_or_samples_something_else_is_refused(tmp_path):
    task = DigitImages(tmp_path, 0)
    with pytest.raises(TaskError, match="it lacks plan, start, step, finish"):
        task.load(torch.nn.Linear(1, 1), "linear")
    with pytest.raises(TaskError, match=r"\(3, 32, 10\)"):
        task.load(dit(width=8, heads=2, depth=1, patch=4, resolution=32, channels=3), "colour")
    with pytest.raises(TaskError, match="more than 64 samples"):
        DigitImages(tmp_path, 0, samples=10)


def test_a_judge_that_does_not_know_real_digits_makes_the_score_invalid(task, tmp_path):
    right = quality.measure(Copyist(), task, batch=70, shape={"steps": 1})
    assert right.details["judge_accuracy"] >= 90 and not right.flags
    ignorant = DigitImages(tmp_path, 0, **{**QUICK, "judge_steps": 1})
    ignorant._spread = [1.0, 1.5]
    found = quality.measure(Copyist(), ignorant, batch=70, shape={"steps": 1})
    (flag,) = found.flags
    assert flag["severity"] == "invalid" and f"{found.details['judge_accuracy']:.1f} %" in flag["text"]
    assert found.details["judge_accuracy"] < 90


def test_what_is_read_from_the_cache_knows_how_good_its_judge_is(task):
    again = DigitImages(task._judges.folder.parent, 0, **QUICK)
    again.judge()
    assert again._judge_accuracy == task._judge_accuracy > 0


@pytest.mark.slow
def test_the_judge_knows_its_digits(tmp_path):
    task = DigitImages(tmp_path, 0)
    index = digits_data.split()[1]
    right = task.judge()(pictures(index)).argmax(dim=1) == digits_data.labels(index)
    assert float(right.float().mean()) >= 0.97


@pytest.mark.slow
def test_the_house_transformer_draws_digits(tmp_path):
    def build():
        torch.manual_seed(0)
        return dit()

    assert DigitImages(tmp_path, 0).prepare("digit_dit", build)["test_accuracy"] >= 90


def test_samples_that_repeat_themselves_are_learned_nearer_to_noise():
    """256 numbers: the logit is about log 2, so that a normal number above log 4 - log 2 is a time above 0.8."""
    generator = torch.Generator().manual_seed(0)
    late = float((learned_times(20_000, 256, generator) > 0.8).float().mean())
    above = 0.5 * math.erfc(math.log(2) / 2**0.5)
    assert late == pytest.approx(0.8 * above + 0.2 * 0.2, abs=0.01)
    plain = learned_times(9, 64, torch.Generator().manual_seed(1), evenly=0.0)
    assert torch.equal(plain, torch.sigmoid(torch.randn(9, generator=torch.Generator().manual_seed(1))))
