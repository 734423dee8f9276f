"""Canvases, waves and anomalies: what is asked is what was drawn, scores are those of a count by hand."""

import pytest
import torch
from torch import nn

from bench.meters.quality import Run
from suites.common import digits_data as data
from suites.common.task import TaskError
from suites.common.tasks import digit_anomalies, digit_canvas, waves
from suites.convnets.apriori import wave_network
from suites.convnets.simplenet_ad import patchcore, simplenet_ad


class Knows(nn.Module):
    """Answers a task's questions in its order, out of what the task itself says."""

    def __init__(self, task, read):
        super().__init__()
        self.said = iter([read(asked) for _, asked in task.batches(64)])
        self.target = task.target

    answers = None

    def forward(self, given):
        return next(self.said)


def test_a_canvas_asks_for_what_it_shows():
    index = torch.arange(6)
    given, asked = digit_canvas.canvases(index, 11)
    assert given.shape == (6, 1, 32, 32) and asked.shape == (6, 2 + 32 * 32)
    assert torch.equal(asked[:, 0], data.labels(index))
    ink = asked[:, 2:].view(6, 32, 32).float()
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    for mask, cell in zip(ink, asked[:, 1], strict=True):
        # the ink lies around the cell's middle, half a digit away at most
        row, column = (float((mask * place).sum() / mask.sum()) for place in (rows, columns))
        assert abs(row - (int(cell) // 4 * 8 + 3.5)) < 8 and abs(column - (int(cell) % 4 * 8 + 3.5)) < 8
    assert (given[:, 0][ink > 0].mean() - given[:, 0][ink == 0].mean()) > 0.4


@pytest.mark.parametrize("target, read, score", [
    ("class", lambda asked: nn.functional.one_hot(asked[:, 0], 10).float(), 100.0),
    ("place", lambda asked: nn.functional.one_hot(asked[:, 1], 16).float(), 100.0),
    ("place", lambda asked: nn.functional.one_hot((asked[:, 1] + 1) % 16, 16).float(), 0.0),
    ("ink", lambda asked: asked[:, 2:].view(-1, 32, 32) - 0.5, 1.0),
    ("ink", lambda asked: 0.5 - asked[:, 2:].view(-1, 32, 32), 0.0),
])  # fmt: skip
def test_who_knows_the_canvas_scores_all_and_who_says_the_opposite_none(tmp_path, target, read, score):
    task = digit_canvas.DigitCanvas(tmp_path, 0, target=target)
    found = task.score(Run(Knows(task, read), batch=64))
    assert found.value == pytest.approx(score) and found.n == data.HELD_OUT
    assert found.metric == task.metric


def test_a_canvas_does_not_depend_on_the_batch_that_it_comes_in(tmp_path):
    task = digit_canvas.DigitCanvas(tmp_path, 0)
    by_one = torch.cat([given for given, _ in task.batches(100)])
    assert torch.equal(by_one, torch.cat([given for given, _ in task.batches(597)]))


def test_placements_average_to_the_area_under_the_curve():
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 9, (60,), generator=generator).float()  # with ties
    strange = (torch.rand(60, generator=generator) < 0.4).long()
    found = digit_anomalies.placements(scores, strange)
    assert sum(found) / len(found) == pytest.approx(100 * roc_auc_score(strange, scores))


@pytest.mark.parametrize("build", [
    lambda: simplenet_ad(backbone="small", width=12, hidden=8, resolution=32),
    lambda: patchcore(backbone="small", width=12, kept=20, resolution=32),
])  # fmt: skip
def test_a_detector_learns_on_a_backbone_that_stays_and_a_bank_holds_what_was_seen(tmp_path, build):
    torch.manual_seed(0)
    how = digit_anomalies.Training(backbone_steps=2, judge_steps=2, batch=4)
    task = digit_anomalies.DigitAnomalies(tmp_path, 0, training=how)
    notes = task.prepare("detector", build)
    assert 0 <= notes["test_auroc"] <= 100
    module = build()
    task.load(module, "detector")
    kept = getattr(module.judge, "kept", None)
    if kept is not None:
        train = data.split()[0]
        normal = data.images(train[data.labels(train) == digit_anomalies.NORMAL], 32)
        with torch.no_grad():
            seen = module.features(normal).flatten(0, 1)
        assert torch.cdist(kept, seen).amin(1).max() < 1e-3


def test_who_gives_the_wave_has_no_error_and_who_repeats_it_has_that_of_no_change(tmp_path):
    class Steps(nn.Module):
        def forward(self, given):
            return waves.step(given[:, 0], given[:, 1])[:, None]

    class Repeats(nn.Module):
        def forward(self, given):
            return given[:, 1:]

    task = waves.Waves(tmp_path, 0)
    assert task.score(Run(Steps())).value == pytest.approx(0, abs=1e-6)
    still = task.score(Run(Repeats()))
    assert still.value == pytest.approx(still.details["no_change"]) and still.value > 0.05


def test_a_wave_network_learns_more_than_to_repeat(tmp_path):
    torch.manual_seed(0)
    task = waves.Waves(tmp_path, 0, training=waves.Training(steps=40, batch=8))
    notes = task.prepare("wave_network", lambda: wave_network(form="full", width=8, depth=1, resolution=16))
    module = wave_network(form="full", width=8, depth=1, resolution=16)
    task.load(module, "wave_network")
    scored = task.score(Run(module))
    assert scored.value == pytest.approx(notes["test_field_error"]) and scored.value < scored.details["no_change"]


def test_models_of_another_kind_are_refused(tmp_path):
    with pytest.raises(TaskError, match="answers"):
        digit_canvas.DigitCanvas(tmp_path, 0).fits(nn.Linear(2, 2), "x")
    with pytest.raises(TaskError, match="target"):
        digit_canvas.DigitCanvas(tmp_path, 0, target="size")
    with pytest.raises(TaskError, match="backbone"):
        digit_anomalies.DigitAnomalies(tmp_path, 0).fits(nn.Linear(2, 2), "x")
    with pytest.raises(TaskError, match="fields"):
        waves.Waves(tmp_path, 0).fits(nn.Linear(2, 2), "x")


def test_weights_of_networks_that_differ_in_a_plain_attribute_alone_are_kept_apart(tmp_path):
    task = waves.Waves(tmp_path, 0)
    one, same, other = (wave_network(width=4, depth=1) for _ in range(3))
    other.layers[0].reach = (3, 2.5)  # shows in no shape and in no text of the module
    assert str(one) == str(other)
    keys = [task._key(network) for network in (one, same, other)]
    assert keys[0] == keys[1] != keys[2]
    other.layers[0].reach = None
    other.layers[0].helper = object()  # what is no plain value is none of its settings
    assert task._key(other) != keys[0]
    del other.layers[0].reach
    assert task._key(other) == keys[0]
