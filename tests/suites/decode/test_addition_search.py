"""The search over written-out sums: caches that change nothing, tokens that are accounted for, answers that are
verified.
"""

from pathlib import Path

import pytest
import torch

from bench.meters.quality import Run
from suites.common.task import TaskError
from suites.common.tasks import additions
from suites.common.tasks.additions import ANSWER, END, MARK, PROMPT, Additions, Training, answer_text, prompt_text
from suites.decode import addition_search as search_file
from suites.decode.addition_search import MOST_STEPS, Beams, Row, addition_search, stacked
from suites.decode.early_rejection import early_rejection
from suites.decode.partial_rewards import correlation, unfinished
from tests.suites.conftest import spread


def small(**changes):
    torch.manual_seed(5)
    model = addition_search(**{"width": 32, "layers": 2, "heads": 2, "hidden": 24, "beams": 4, "branch": 2, **changes})
    spread(model)
    return model


def prompts(count=2):
    return torch.stack([additions.ids_of(prompt_text(37 + i, 58, 14), PROMPT) for i in range(count)])


def test_sums_are_written_as_described_and_verified():
    assert prompt_text(37, 58, 14) + answer_text(37, 58, 14) == "37+58+14=37+58=95;95+14=109;\n"
    longest = prompt_text(99, 99, 99) + answer_text(99, 99, 99)
    assert len(longest) == PROMPT + ANSWER
    assert additions.is_right("37+58=95;95+14=109;\n", 37, 58, 14)
    assert additions.is_right("1+1=3;95+14=109;\n\n\n", 37, 58, 14)  # only the last number counts
    for wrong in ("37+58=95;95+14=108;\n", "37+58=95;95+14=109\n", "109;", "", "95+14=109;junk\n"):
        assert not additions.is_right(wrong, 37, 58, 14)


def test_nobody_learns_from_a_held_out_sum_and_spoilt_texts_differ_in_digits_of_the_answer_alone(tmp_path):
    task = Additions(tmp_path, 0, problems=20)
    assert all(additions.is_held_out(*triple) for triple in task.held_out())
    clean, wrong = next(iter(task.training_batches(200, 1, 3)))
    assert torch.equal(clean[:, :PROMPT], wrong[:, :PROMPT])
    changed = clean != wrong
    assert 0.2 < changed.any(dim=1).float().mean() < 0.8
    assert bool(((clean[changed] >= 48) & (clean[changed] < 58)).all())
    for row in clean[:50].tolist():
        a, b, c = (int(part) for part in bytes(row[: PROMPT - 1]).decode().split("+"))
        assert not additions.is_held_out(a, b, c)
        assert bytes(row).decode() == (prompt_text(a, b, c) + answer_text(a, b, c)).ljust(PROMPT + ANSWER, "\n")


def test_losses_look_at_the_answer_until_its_line_feed():
    clean = additions.ids_of(prompt_text(10, 10, 10) + answer_text(10, 10, 10), PROMPT + ANSWER)[None]
    sure = torch.full((1, clean.shape[1] - 1, 256), -30.0)
    sure.scatter_(2, clean[:, 1:, None], 30.0)
    assert additions.answer_loss(sure, clean) < 1e-6
    ended = clean[0].tolist().index(END)
    after = sure.clone()
    after[:, ended:] = 0.0
    assert additions.answer_loss(after, clean) < 1e-6  # what stands behind the first line feed does not count
    after[:, ended - 1] = 0.0
    assert additions.answer_loss(after, clean) > 0.1  # the line feed itself does
    wrong = clean.clone()
    wrong[0, PROMPT + 3] = 57
    marks = torch.full(clean.shape, 20.0)
    marks[:, PROMPT + 3 :] = -20.0
    assert additions.reward_loss(marks, clean, wrong) < 1e-6


def test_beams_with_caches_write_what_whole_forwards_write():
    """At a temperature near zero sampling is greedy, so every beam equals the slow loop without a cache."""
    model = small()
    first, second = tuple(prompts()[0].tolist()), (*prompts()[1].tolist(), 51, 52)
    beams = Beams(model.generator, temperature=1e-4, seed=0)
    with torch.no_grad():
        once = beams.extend([first, second, first], 5)
        twice = beams.extend(once, 4)
        for ids, start in zip(twice, (first, second, first), strict=True):
            assert ids == _slow(model.generator, start, 9)


def _slow(generator, ids, most):
    begun = len(ids)
    for _ in range(most):
        token = int(generator(torch.tensor([ids]))[0, -1].argmax())
        ids = (*ids, token)
        if token in (MARK, END) and len(ids) - begun >= 5:
            break
    return ids


def test_no_prefix_is_read_twice():
    model = small()
    beams, reads = Beams(model.generator, temperature=1.0, seed=0), []
    model.generator.prefill, plain = lambda ids: reads.append(ids.shape) or plain(ids), model.generator.prefill
    with torch.no_grad():
        start = tuple(prompts()[0].tolist())
        current = [start] * 4
        for _ in range(3):
            current = beams.extend(current, 3)
    assert reads == [(1, PROMPT - 1)]


def test_stacked_rows_keep_their_own_numbers():
    model = small()
    with torch.no_grad():
        _, cache = model.generator.prefill(prompts())
        both = stacked([Row(cache, 1), Row(cache, 0), Row(cache, 1)])
        ids = prompts()[[1, 0, 1]][:, -1:]
        expected, _ = model.generator.decode(prompts()[:, -1:], model.generator.copy_cache(cache))
        found, _ = model.generator.decode(ids, both)
    assert torch.allclose(found, expected[[1, 0, 1]], atol=1e-6)


def test_a_whole_step_before_scoring_is_the_plain_search_and_less_writes_less():
    plain, late = small(step_tokens=6), early_rejection(small(step_tokens=6), tau=6)
    early = early_rejection(small(step_tokens=6), tau=2)
    with torch.no_grad():
        assert torch.equal(plain.write(prompts(), 12), late.write(prompts(), 12))
        assert plain.written() == late.written()
        early.write(prompts(), 12)
    assert early.written()["tokens_written"] < plain.written()["tokens_written"]


@pytest.mark.parametrize("tau, per_step", [(2, 8 * 2 + 2 * 4), (4, 8 * 4 + 2 * 2), (6, 8 * 6)])
def test_written_tokens_are_the_closed_form_where_no_step_ends_by_itself(monkeypatch, tau, per_step):
    """N tau + (N / M) (L - tau) a step; scored are all prefixes, and the survivors once more at the end."""
    monkeypatch.setattr(Beams, "_sampled", lambda self, logits: [65] * len(logits))
    model = early_rejection(small(step_tokens=6, beams=8, branch=4), tau=tau)
    with torch.no_grad():
        model.write(prompts(1), 12)
    assert model.written()["tokens_written"] == MOST_STEPS * per_step
    prefixes = sum(8 * (6 * step + tau) for step in range(MOST_STEPS))
    assert model.written()["tokens_scored"] == prefixes + (2 * 6 * MOST_STEPS if tau < 6 else 0)


def test_partial_and_whole_rewards_correlate_as_computed_by_hand():
    steps = [((1,), (1, 2, 3, 4)), ((1,), (1, 9, 9)), ((5, 6), (5, 6, 7, 8, 9))]
    assert unfinished(steps, 2) == [((1, 2, 3), (1, 2, 3, 4)), ((5, 6, 7, 8), (5, 6, 7, 8, 9))]  # one is over by then
    assert correlation([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)
    assert correlation([1, 2, 4], [-2, -4, -8]) == pytest.approx(-1)
    assert correlation([1, 1, 1], [1, 2, 3]) is None and correlation([1, 2], [1, 2]) is None


def test_a_search_that_rejects_early_says_how_it_agrees_with_the_plain_one(tmp_path, monkeypatch):
    monkeypatch.setattr(search_file, "JUDGED", 3)
    plain, whole, early = small(step_tokens=6), small(step_tokens=6), small(step_tokens=6)
    assert early_rejection(early, tau=2).judged() == {}  # nothing was learned
    for model in (plain, whole, early):
        model.task = Additions(tmp_path, 0, problems=3)
    with torch.no_grad():
        found, same = early.judged(), early_rejection(whole, tau=6).judged()
    assert plain.judged() == {}
    assert same == {"reward_correlation": None, "choice_agreement": 100.0}
    assert -1 <= found["reward_correlation"] <= 1 and 0 <= found["choice_agreement"] <= 100


def test_a_search_is_scored_and_the_task_says_what_it_needs(tmp_path):
    task = Additions(tmp_path, 0, training=Training(steps=2, batch=4), problems=3)
    task.prepare("tiny", small)
    model = small()
    task.load(model, "tiny")
    with torch.inference_mode():
        found = task.score(Run(model, batch=2))
        again = task.score(Run(model, batch=2))
    assert found.n == 3 and found == again
    with pytest.raises(TaskError, match="addition_search"):
        task.fits(torch.nn.Linear(2, 2), "linear")
    with pytest.raises(TaskError, match="at least one"):
        Additions(Path(), 0, problems=0)


def test_prompts_have_one_length():
    with pytest.raises(ValueError, match=r"shapes\.context=9"):
        small().write(torch.zeros(1, 10, dtype=torch.long), 4)
    assert small().example_inputs(3)[0].shape == (3, PROMPT)
