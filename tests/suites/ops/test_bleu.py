"""BLEU: NLTK's numbers, single sentences, ties, padding, short candidates, the corpus, and the check cases."""

import math
from importlib.util import find_spec

import pytest
import torch

from suites.ops.bleu import bleu, closest_lengths

FORMS = ["python", "tensor", "paired"] + (["nltk"] if find_spec("nltk") else [])


def drawn(form, batch=12, **settings):
    operator = bleu(form=form, **settings).double()
    torch.manual_seed(3)
    return operator, operator.example_inputs(batch)


@pytest.mark.skipif(find_spec("nltk") is None, reason="NLTK is not installed")
@pytest.mark.parametrize("corpus", [False, True])
@pytest.mark.parametrize("smoothing", ["none", "floor"])
@pytest.mark.parametrize("settings", [{"length": 30, "vocabulary": 6}, {"length": 3, "vocabulary": 4, "references": 3},
                                      {"length": 40, "vocabulary": 500, "references": 2, "orders": 3}],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("form", ["python", "tensor", "paired"])
def test_it_is_nltk(form, settings, smoothing, corpus):
    options = {**settings, "smoothing": smoothing, "corpus": corpus}
    (ours, args), (theirs, _) = drawn(form, **options), drawn("nltk", **options)
    torch.testing.assert_close(ours(*args), theirs(*args), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_check_cases(form):
    operator = bleu(form=form, smoothing="none").double()
    ids = torch.tensor([[(t * t + 2 * t) % 11 + 1 for t in range(44)]])
    found = operator(ids[:, :40], torch.tensor([40]), ids[None], torch.tensor([[44]]))
    assert float(found) == pytest.approx(math.exp(-0.1), abs=1e-12)
    same = torch.tensor([[(t * t + 3 * t) % 13 + 1 for t in range(32)]])
    assert float(operator(same, torch.tensor([32]), same[None], torch.tensor([[32]]))) == 1.0


@pytest.mark.parametrize("form", ["tensor", "paired"])
def test_a_sentence_does_not_depend_on_its_batch_nor_on_the_padding(form):
    operator, (candidates, lengths, references, reference_lengths) = drawn(
        form, batch=5, length=20, vocabulary=5, references=2
    )
    together = operator(candidates, lengths, references, reference_lengths)
    for i in range(5):
        alone = operator(candidates[i : i + 1], lengths[i : i + 1], references[i : i + 1], reference_lengths[i : i + 1])
        assert float(alone) == pytest.approx(float(together[i]), abs=1e-12)
    for row, size in zip(candidates, lengths, strict=True):
        row[size:] = 3  # an id of the vocabulary where nothing stands
    torch.testing.assert_close(operator(candidates, lengths, references, reference_lengths), together)


def test_of_two_equally_close_references_the_shorter_one_counts():
    assert closest_lengths(torch.tensor([10, 10]), torch.tensor([[12, 8], [11, 8]])).tolist() == [8, 11]


@pytest.mark.parametrize("form", ["python", "tensor", "paired"])
def test_without_a_common_word_the_score_is_zero_whatever_the_smoothing(form):
    args = (torch.tensor([[1, 2, 3]]), torch.tensor([3]), torch.tensor([[[4, 5, 6]]]), torch.tensor([[3]]))
    for smoothing in ("none", "floor"):
        assert float(bleu(form=form, smoothing=smoothing)(*args)) == 0.0


def test_a_corpus_sums_before_it_divides():
    operator, args = drawn("tensor", length=20, vocabulary=6, corpus=True)
    single = bleu(form="tensor", length=20, vocabulary=6).double()
    assert operator(*args).shape == (1,) and float(operator(*args)) != pytest.approx(
        float(single(*args).mean()), abs=1e-3
    )
