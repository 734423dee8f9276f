"""A decoder that has learned a text reads held-out text: its prompts, its products over several, its other side."""

import math
from types import SimpleNamespace

import pytest
import torch

from bench.meters import macs
from bench.workloads import module_of, text_divergence
from bench.workloads.counting import counter
from bench.workloads.prompts import held_out, origin_of, prompt_of
from tests.workloads.subjects import FakeBuilt, Writer, subject_of


def text(pieces=6, tokens=8):
    """A task whose held-out text are whole numbers below eleven."""
    ids = (torch.arange(pieces * (tokens + 1)) % 11).reshape(pieces, -1)
    return SimpleNamespace(name="numbers", metric="bits_per_byte", batches=lambda n: iter([(ids[:, :-1], ids[:, 1:])]))


def test_prompts_are_cut_from_held_out_text_or_joined_where_its_pieces_are_short():
    subject = subject_of(Writer, torch.zeros(4, 40, dtype=torch.long))
    assert prompt_of(subject, {"batch": 2, "context": 5}).sum() == 0  # the inputs of its forward
    subject.task = task = text()
    pieces = next(task.batches(64))[0]
    assert torch.equal(prompt_of(subject, {"batch": 2, "context": 5}), pieces[[0, 3], :5])
    assert torch.equal(held_out(subject, 2, 12), torch.stack([pieces[:2].flatten()[:12], pieces[3:5].flatten()[:12]]))
    assert held_out(subject, 9, 100).shape == (9, 100)  # the text begins again
    assert origin_of(subject, {"batch": 2, "context": 5}) == "held-out text of numbers"
    subject.task = SimpleNamespace(metric="accuracy")
    assert held_out(subject, 2, 5) is None


class Choosy(Writer):
    """Runs its head once more after an even token: 22 products a step or 44."""

    def decode(self, ids, cache):
        logits, cache = super().decode(ids, cache)
        if int(cache["store"][0, cache["length"] - 2, 0] > 0):
            self.head(cache["store"][:, 0])
        return logits, cache


@pytest.mark.parametrize("kind, dearer", [(Writer, None), (Choosy, 3)])
def test_products_that_depend_on_the_prompt_have_a_mean_and_percentiles(kind, dearer):
    subject = FakeBuilt(kind().eval(), task=text(pieces=64, tokens=8))
    with torch.no_grad():
        subject.module.embed.weight[:, 0] = torch.tensor([1.0] * 3 + [-1.0] * 8)  # the last token of a prompt decides
    shape = {"batch": 1, "context": 5, "new_tokens": 4}
    facts = module_of("generate").counts(subject, shape, [], counter(subject.module, macs.count))
    found = {(item.metric, item.part): item.value for item in facts.readings}
    if dearer is None:
        assert not found and not facts.curves
        return
    prompts = held_out(subject, 64, 5)
    expected = [22 * (2 if int(last) < dearer else 1) for last in prompts[:, -1]]
    assert list(facts.curves[0].values) == expected and len(set(expected)) == 2
    assert found["macs_mean", "decode"] == pytest.approx(sum(expected) / 64)
    assert (found["macs_min", "decode"], found["macs_p95", "decode"]) == (22, 44)
    assert ("macs_mean", "prefill") not in found


def test_answers_are_set_beside_those_of_the_other_side():
    subject, other = (FakeBuilt(subject_of(Writer, limit=256).module, task=text(16, 200)) for _ in range(2))
    shape = {"batch": 1, "context": 5, "new_tokens": 4}
    against = module_of("generate").against
    with torch.no_grad():
        same = {item.metric: item.value for item in against(subject, other, shape)}
        assert same == {"divergence_bits": pytest.approx(0, abs=1e-6), "same_tokens": text_divergence.WRITTEN}
        other.module.head.weight.add_(torch.randn_like(other.module.head.weight))
        apart = {item.metric: item.value for item in against(subject, other, shape)}
        texts = held_out(subject, text_divergence.TEXTS, text_divergence.LENGTH)
        expected = slow_divergence(subject.module, other.module, texts)
    assert apart["divergence_bits"] == pytest.approx(expected, rel=1e-4)
    assert apart["same_tokens"] < text_divergence.WRITTEN
    assert against(FakeBuilt(subject.module), other, shape) == []


def slow_divergence(ours, theirs, texts):
    """Sum of p log2 (p / q) at every place from the last token of the prompt on, each from a prompt of its own."""
    total, count = 0.0, 0
    for place in range(text_divergence.PROMPT, texts.shape[1]):
        q, p = (module.prefill(texts[:, :place])[0].double().softmax(-1) for module in (ours, theirs))
        total += float((p * (p / q).log()).sum()) / math.log(2)
        count += len(texts)
    return total / count
