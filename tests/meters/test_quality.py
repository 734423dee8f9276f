"""Accuracy is what was answered, sample by sample, and never an accident."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench import scores
from bench.config import schema as config
from bench.meters import dtypes, peak_work, quality


class Echo(nn.Module):
    """Answers the class that stands in its input."""

    def forward(self, x):
        return torch.nn.functional.one_hot(x.long().flatten(), 3).to(x.dtype)


class Given:
    """A task of the batches that it is given."""

    def __init__(self, given):
        self.given = list(given)

    def batches(self, _size):
        return iter(self.given)


def score(module, given, **how):
    return quality.measure(module, Given(given), **how)


def batches(pairs, size=2):
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        yield torch.tensor([[float(a)] for a, _ in part]), torch.tensor([b for _, b in part])


PAIRS = [(0, 0), (1, 1), (2, 1), (0, 2), (2, 2)]


def test_right_answers_are_counted_in_the_order_of_the_samples():
    result = score(Echo(), batches(PAIRS))
    assert (result.per_sample, result.as_dict()["correct"], result.n) == ("11001", 3, 5)
    assert result.value == 60.0


def test_the_interval_is_wilsons():
    # Wilson 1927 with z = 1.959964 for 3 of 5, by hand:
    z2 = 1.959964**2
    middle, half = (0.6 + z2 / 10) / (1 + z2 / 5), math.sqrt(z2) * math.sqrt(0.6 * 0.4 / 5 + z2 / 100) / (1 + z2 / 5)
    row = score(Echo(), batches(PAIRS)).reading()
    assert (row.ci_low, row.ci_high) == pytest.approx((100 * (middle - half), 100 * (middle + half)), rel=1e-5)
    assert (row.value, row.n, row.unit, row.provenance) == (60.0, 5, "%", "measured")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30), st.integers(1, 7))
def test_batching_does_not_change_the_result(pairs, size):
    whole = score(Echo(), batches(pairs, len(pairs)))
    split = score(Echo(), batches(pairs, size))
    assert split.per_sample == whole.per_sample == "".join("1" if a == b else "0" for a, b in pairs)
    assert 0 <= split.low <= split.value <= split.high <= 100


def test_the_digest_tells_other_samples_apart():
    one = score(Echo(), batches(PAIRS)).samples_digest
    assert one == score(Echo(), batches(PAIRS)).samples_digest
    assert one != score(Echo(), batches(PAIRS[::-1])).samples_digest
    assert one != score(Echo(), batches([(0, 0), (1, 1), (2, 1), (0, 2), (2, 1)])).samples_digest


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_no_number_is_refused(bad):
    class Broken(Echo):
        def forward(self, x):
            out = super().forward(x)
            out[x.flatten() == 2, 0] = bad
            return out

    with pytest.raises(quality.NonFiniteOutput, match="first at sample 2"):
        score(Broken(), batches(PAIRS))


def test_no_samples_and_wrong_shapes_are_refused():
    with pytest.raises(quality.QualityError, match="no samples"):
        score(Echo(), [])
    with pytest.raises(quality.QualityError, match="expected"):
        score(nn.Identity(), [(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.long))])


def test_evaluation_mode_is_used_and_put_back():
    modes = []

    class Spy(Echo):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    spy = Spy().train()
    score(spy, batches(PAIRS))
    assert modes == [False] * 3
    assert spy.training


def test_inputs_are_cast_to_the_dtype_of_the_case():
    seen = []

    class Spy(Echo):
        def forward(self, x):
            seen.append(x.dtype)
            return super().forward(x)

    score(Spy(), batches(PAIRS), dtype="bf16")
    assert set(seen) == {torch.bfloat16}


def test_a_dtype_of_no_known_name_is_refused_and_not_taken_for_single_precision():
    with pytest.raises(quality.QualityError, match='dtype "fp61" does not exist'):
        score(Echo(), batches(PAIRS), dtype="fp61")


def test_torch_and_the_configuration_know_the_same_dtypes():
    assert set(dtypes.TORCH) == set(config.DTYPES)
    assert {name for names in peak_work.DTYPES.values() for name in names} - {"int8"} <= set(dtypes.TORCH)


def test_wrapped_logits_are_found():
    class Wrapped(Echo):
        def forward(self, x):
            return {"scores": super().forward(x)}

    assert score(Wrapped(), batches(PAIRS)).value == 60.0
    with pytest.raises(quality.QualityError, match="no class scores"):
        quality.logits("nothing")


class Ruler:
    """A task that scores the mean of what the module says, as bits per byte."""

    metric = "bits_per_byte"

    def __init__(self, says="bits_per_byte"):
        self.says = says

    def score(self, run):
        values = run(torch.tensor([1.0, 2.0, 6.0])).tolist()
        return (
            scores.mean(self.says, values, "d") if self.says != "accuracy" else scores.proportion("accuracy", "1", "d")
        )


def test_a_task_scores_what_it_likes_and_says_which_metric():
    found = quality.measure(nn.Identity(), Ruler())
    assert (found.metric, found.value, found.per_sample) == ("bits_per_byte", 3.0, (1.0, 2.0, 6.0))
    assert (found.reading().metric, found.reading().unit) == ("bits_per_byte", "bit/B")
    assert quality.metric_of(Ruler()) == "bits_per_byte" and quality.metric_of(Given([])) == "accuracy"
    with pytest.raises(quality.QualityError, match="says that it scores bits_per_byte and gave a score of accuracy"):
        quality.measure(nn.Identity(), Ruler("accuracy"))
