"""Kernel continual learning: ridge both ways, bytes that are kept, and generators that stand for a coreset."""

import pytest
import torch
import torch.nn.functional as F

from suites.common.digits_data import images, labels, split
from suites.tiny_memory.continual import continual_digits, contrast
from suites.tiny_memory.gkcl import crossing_tasks, gkcl, in_turn, kcl
from suites.tiny_memory.kernel_ridge import coreset_bytes, crossing, dual, forgetting, primal, targets


def test_bytes_of_a_coreset_are_those_of_the_check_case():
    assert coreset_bytes(20, 100, 32 * 32 * 3, 1) == 6_144_000
    assert coreset_bytes(20, 100, 32 * 32 * 3, 4) == 24_576_000
    assert crossing(6_144_000, 100, 32 * 32 * 3, 1) == 20


def test_dual_and_primal_ridge_answer_the_same():
    torch.manual_seed(0)
    features, wanted = torch.randn(30, 12).double(), targets(torch.randint(3, (30,)), 3).double()
    new = torch.randn(7, 12).double()
    through_samples = (new @ features.T) @ dual(features, wanted, 0.3)
    torch.testing.assert_close(new @ primal(features, wanted, 0.3), through_samples)


def test_a_coreset_of_all_data_is_the_joint_classifier():
    learner = kcl(continual_digits(hidden=16), samples=40)
    index = torch.cat([index[:40] for index in _by_task(5)])
    pictures, wanted = images(index, 8, 1), labels(index)
    for task in range(5):
        part = slice(task * 40, (task + 1) * 40)
        learner.store(task, pictures[part], wanted[part])
    joint = primal(learner.features(pictures), targets(wanted, 10), 0.1)
    new = images(split()[1][:20], 8, 1)
    torch.testing.assert_close(learner(new), learner.features(new) @ joint, rtol=1e-4, atol=1e-4)


def test_a_picture_that_is_met_again_is_stored_once_and_too_few_are_refused():
    learner = kcl(continual_digits(hidden=8), tasks=2, samples=3)
    pictures = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    met = torch.tensor([2, 0, 2, 0, 3, 1])  # the first three different ones: 2, 0, 3
    learner.store(1, pictures[met], met)
    assert learner.wanted[3:].tolist() == [2, 0, 3]
    assert learner.pictures[3:, 0, 0, 0].tolist() == [2, 0, 3]
    with pytest.raises(ValueError, match="task 1 met 2 different pictures; take 2 samples or fewer"):
        learner.store(0, pictures[met[:4]], met[:4])


def test_a_generator_that_returns_stored_pictures_is_the_stored_coreset():
    learner = gkcl(continual_digits(hidden=16), samples=20)
    index = torch.cat([index[:40] for index in _by_task(5)])
    pictures, wanted = images(index, 8, 1), labels(index)
    learner.coreset = lambda: (pictures, wanted)
    new = images(split()[1][:20], 8, 1)
    weights = primal(learner.encoder(pictures), targets(wanted, 10), 0.1)
    torch.testing.assert_close(learner(new), learner.encoder(new) @ weights)


def _by_task(tasks):
    train = split()[0]
    per = 10 // tasks
    return [train[(labels(train) // per) == task] for task in range(tasks)]


def test_kept_bytes_by_hand_do_not_grow_with_tasks_where_pictures_are_drawn():
    hidden, latent = 16, 4
    encoder = (64 + 1) * hidden + (hidden + 1) * hidden
    for tasks in (2, 5):
        code, decoder = (hidden + 1) * 2 * latent, (latent + 10 + tasks + 1) * hidden + (hidden + 1) * 64
        generative = gkcl(continual_digits(hidden=hidden), tasks=tasks, latent=latent)
        assert generative.kept_bytes == 4 * (encoder + code + decoder)
        for element, size in (("uint8", 1), ("fp32", 4)):
            stored = kcl(continual_digits(hidden=hidden), tasks=tasks, samples=7, element=element)
            basis = (hidden + 1) * 256
            assert stored.kept_bytes == 4 * (encoder + (hidden + 1) * 10 + basis) + tasks * 7 * (64 * size + 1)
            assert crossing_tasks(generative, stored) == pytest.approx(4 * (code + decoder) / (7 * 64 * size))


def test_forgetting_is_what_the_last_task_left():
    table = torch.tensor([[90.0, 0, 0], [70, 95, 0], [60, 97, 99]])
    assert forgetting(table) == pytest.approx((30 - 0 + (95 - 97)) / 2)
    with pytest.raises(ValueError, match="two tasks"):
        forgetting(table[:1, :1])


def test_the_contrastive_term_against_a_loop():
    torch.manual_seed(0)
    latent, wanted = torch.randn(6, 3), torch.tensor([0, 1, 0, 2, 1, 0])
    points, total, anchors = F.normalize(latent, dim=1), 0.0, 0
    for i in range(6):
        others = [j for j in range(6) if j != i]
        pairs = [j for j in others if wanted[j] == wanted[i]]
        if pairs:
            below = sum(torch.exp(points[i] @ points[j] / 0.5) for j in others)
            total += -sum(torch.log(torch.exp(points[i] @ points[j] / 0.5) / below) for j in pairs) / len(pairs)
            anchors += 1
    assert contrast(latent, wanted).item() == pytest.approx(float(total / anchors), rel=1e-5)
    assert contrast(latent[:2], wanted[:2]).item() == 0


@pytest.mark.parametrize("method", [gkcl, kcl])
def test_tasks_are_learned_in_turn_and_noted(method):
    torch.manual_seed(0)
    learner = method(continual_digits(hidden=32), tasks=2)
    train = split()[0]
    everything = [(images(part, 8, 1), labels(part)) for part in train.repeat(2).split(16)]
    assert len(in_turn(learner, everything, len(everything))) >= len(everything) - 2
    assert learner.accuracies[0, 0] > 40 and learner.accuracies[0, 1] == 0
    assert learner.accuracies[1].min() > 20
    assert learner.forgetting == float(learner.accuracies[0, 0] - learner.accuracies[1, 0])
    assert method(continual_digits(hidden=8), tasks=2).forgetting is None  # nothing was learned
    new = images(split()[1][:5], 8, 1)
    assert torch.equal(learner.eval()(new), learner(new))  # a classifier is the same whenever it is solved


def test_a_step_of_replay_doubles_the_batch():
    from bench.meters import macs

    learner = gkcl(continual_digits(hidden=16)).train()
    (pictures,), wanted = learner.example_inputs(6), learner.example_targets(6, 0)

    class Cost(torch.nn.Module):
        def __init__(self, seen):
            super().__init__()
            self.learner, self.learner.seen = learner, seen

        def forward(self, pictures):
            return self.learner.loss(pictures, wanted)

    counted = {seen: macs.count(Cost(seen), (pictures,), second_count=False).executed_macs for seen in (1, 5)}
    decoder = 6 * ((16 + 10 + 5) * 16 + 16 * 64)
    contrastive = (12 * 12 - 6 * 6) * 16
    assert counted[5] - counted[1] == counted[1] - 6 * 6 * 16 + decoder + contrastive
