"""digit_embeddings: sentences name their digit, who makes what is wanted scores 1, a prior of one forward learns."""

import pytest
import torch
from torch import nn

from bench.meters.quality import Run
from suites.common.task import TaskError
from suites.common.tasks.digit_embeddings import PLACE, DigitEmbeddings, Training, sentences
from suites.diffusion.lambda_eclipse import contrast, prior

SMALL = {"embedding": 64, "width": 16, "heads": 2, "depth": 1, "words": 6}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return DigitEmbeddings(
        tmp_path_factory.mktemp("cache"), 0, training=Training(steps=150, rate=3e-3), judge_steps=160
    )


def test_sentences_differ_in_the_label_s_word_alone():
    text = sentences(torch.tensor([3, 3, 8]), 6)
    assert text.shape == (3, 6, 64) and torch.equal(text[0], text[1])
    differs = (text[0] != text[2]).any(dim=1)
    assert differs.tolist() == [place == PLACE for place in range(6)]


class Knows(nn.Module):
    """Makes what the task wants, or its opposite."""

    embedding, words = 64, 6

    def __init__(self, wanted, sign):
        super().__init__()
        self.wanted, self.sign = wanted, sign
        self.done = 0

    def plan(self, shape):
        return [{"index": 0, "evaluations": 1}]

    def start(self, noise, cond):
        return noise

    def step(self, index, state):
        self.done += len(state)
        return self.sign * self.wanted[self.done - len(state) : self.done]

    def finish(self, state):
        return state


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_who_makes_what_is_wanted_scores_one(task, sign):
    found = task.score(Run(Knows(task.embeddings()[1], sign), batch=100))
    assert found.value == pytest.approx(sign) and found.n == 597


def test_embeddings_are_centred_and_scaled_by_the_training_digits(task):
    train, held_out = task.embeddings()
    assert len(train) == 1200 and len(held_out) == 597
    assert train.mean(dim=0).abs().max() < 1e-4
    assert all(abs(spread - 1) < 1e-3 or spread == 0 for spread in train.std(dim=0).tolist())


def test_a_prior_of_one_forward_learns_what_words_can_say(task):
    def build():
        torch.manual_seed(0)
        return prior(**SMALL)

    plain = task.score(Run(build())).value
    notes = task.prepare("small_eclipse", build)
    best = task.score(Run(build())).details["mean_of_class"]
    assert notes["test_cosine"] > plain + 0.2 and notes["test_cosine"] < best + 0.05
    with pytest.raises(TaskError, match="take small_eclipse"):
        task.fits(prior(**{**SMALL, "embedding": 32}), "narrow")


def test_a_diffusion_prior_learns_from_the_same_pairs_and_is_sampled_by_the_case(task):
    torch.manual_seed(0)
    model = prior(**SMALL, chain=25)
    notes = task.prepare("small_prior", lambda: model)
    assert notes["train_loss"] < 1.2
    one, more = (task.score(Run(model, shape={"steps": steps, "guidance": 2.0})).value for steps in (1, 4))
    assert one != more


def test_the_contrastive_term_leaves_out_others_of_the_class():
    made = torch.eye(3, 4)
    labels = torch.tensor([0, 0, 1])
    wanted = torch.stack([made[0], made[0], made[2]])  # the second's neighbour of its class is no wrong answer
    # cosines over the temperature: its own first, then those of the other class
    rows = [torch.tensor([10.0, 0.0]), torch.tensor([0.0, 0.0]), torch.tensor([10.0, 0.0, 0.0])]
    expected = torch.stack([-row.log_softmax(0)[0] for row in rows]).mean()
    assert torch.allclose(contrast(made, wanted, labels), expected)
