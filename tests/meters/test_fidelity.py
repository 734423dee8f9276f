"""Fidelity: outputs are compared as a hand would do it, and what cannot be compared says why."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bench.meters.fidelity import Incomparable, compare, snapshot


def test_the_error_is_the_norm_of_the_difference_over_the_norm_of_the_other_side():
    ours, theirs = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    found = compare(ours, theirs)
    assert found.error == pytest.approx(4 / math.sqrt(10))
    assert (found.agreement, found.choices, found.numbers) == (50.0, 2, 4)


def test_it_agrees_with_numpy_over_nested_outputs():
    rng = np.random.default_rng(0)
    one, two = ([rng.normal(size=(3, 5)), rng.normal(size=(2, 4, 7))] for _ in range(2))
    found = compare({"a": torch.tensor(one[0]), "b": [torch.tensor(one[1])]}, tuple(map(torch.tensor, two)))
    flat = [np.concatenate([part.ravel() for part in side]) for side in (one, two)]
    assert found.error == pytest.approx(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))
    same = [(a.argmax(-1) == b.argmax(-1)).ravel() for a, b in zip(one, two, strict=True)]
    assert found.agreement == pytest.approx(100 * np.concatenate(same).mean())


def test_equal_outputs_have_no_error_and_agree():
    values = torch.randn(4, 3)
    found = compare(values, values.clone())
    assert (found.error, found.agreement) == (0.0, 100.0)
    assert {r.metric: r.provenance for r in found.readings()} == {
        "output_error": "measured",
        "top1_agreement": "measured",
    }


def test_masked_logits_are_compared_where_they_are_numbers():
    theirs = torch.tensor([[1.0, -math.inf], [2.0, 1.0]])
    assert compare(theirs.clone(), theirs).error == 0.0
    with pytest.raises(Incomparable, match="an infinity where the other has a number"):
        compare(torch.tensor([[1.0, 0.0], [2.0, 1.0]]), theirs)


def test_token_ids_agree_or_not_and_have_no_error():
    found = compare(torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 5]]))
    assert (found.error, found.agreement) == (None, 75.0)
    (error, agreement) = found.readings()
    assert error.value is None and "no floating-point number" in error.method_note
    assert (agreement.value, agreement.n) == (75.0, 4)


def test_a_single_number_has_nothing_to_choose_among():
    found = compare(torch.tensor(1.5), torch.tensor(1.0))
    assert (found.error, found.agreement) == (0.5, None)


def test_an_other_side_of_zeros_has_no_relative_error():
    assert compare(torch.ones(2, 2), torch.zeros(2, 2)).error is None
    assert compare(torch.zeros(2, 2), torch.zeros(2, 2)).error == 0.0


@pytest.mark.parametrize(
    "ours, theirs, why",
    [
        (torch.ones(2, 3), torch.ones(3, 2), r"float32 \(2, 3\) against float32 \(3, 2\)"),
        ([torch.ones(1)], [torch.ones(1), torch.ones(1)], "1 tensors against 2"),
        ("text", "text", "holds no tensor"),
        (torch.ones(2, 2), torch.ones(2, 2).long(), "against int64"),
        (torch.tensor([[math.nan, 1.0]]), torch.ones(1, 2), "NaN"),
    ],
)
def test_what_cannot_be_compared_says_why(ours, theirs, why):
    with pytest.raises(Incomparable, match=why):
        compare(ours, theirs)


def test_other_precisions_are_compared_in_double():
    theirs = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    assert compare(theirs.to(torch.bfloat16), theirs).error == 0.0
    ours = torch.tensor([[1.0, 2.015625]], dtype=torch.bfloat16)
    assert compare(ours, theirs).error == pytest.approx(0.015625 / math.sqrt(5))


def test_a_snapshot_outlives_its_source():
    @dataclass
    class Answer:
        logits: torch.Tensor
        text: str

    source = torch.ones(2, 2)
    kept = snapshot(Answer(source, "x"))
    source.zero_()
    assert torch.equal(kept[0], torch.ones(2, 2)) and len(kept) == 1
