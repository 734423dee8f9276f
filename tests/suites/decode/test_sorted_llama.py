"""Sorted LLaMA: exits are smaller models; confidence exits; the loss of all depths."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from suites.common import sorted_exits as exits
from suites.common.decoder import Decoder
from suites.common.decoder_shape import cache_bytes_per_token, parameters
from suites.common.decoder_shapes import shape_of
from suites.decode import sorted_llama as file
from suites.decode.sorted_llama import confidence_exit, sorted_exit
from tests.suites.decode.walking import ids_of, small, walk


def test_the_last_exit_is_the_plain_model_bit_for_bit():
    model, ids = small(layers=4), ids_of(2, 30)
    plain = walk(model, ids, 20)
    assert torch.equal(walk(sorted_exit(copy.deepcopy(model), exit=4), ids, 20), plain)
    assert torch.equal(walk(confidence_exit(copy.deepcopy(model), threshold=1.0), ids, 20), plain)


@pytest.mark.parametrize("exit", [1, 2, 3])
def test_an_exit_is_a_model_of_so_many_layers_with_the_same_weights(exit):
    model, ids = small(layers=4), ids_of(2, 20)
    fewer = Decoder(exits.shape_at(model.shape, exit)).eval()
    fewer.load_state_dict({k: v for k, v in model.state_dict().items() if k in fewer.state_dict()})
    with torch.no_grad():
        at_depth = exits.logits_at(model, ids, [exit])[0]
        out = sorted_exit(copy.deepcopy(model), exit=exit)
        assert torch.equal(fewer(ids), at_depth) and torch.equal(out(ids), at_depth)
        _, cache = out.prefill(ids)
    assert out.cache_bytes(cache) == 2 * 20 * exit * 2 * 2 * 16 * 4


def test_the_loss_is_the_mean_over_depths_in_one_forward():
    model, ids = small(layers=3), ids_of(2, 12)
    inputs, wanted = ids[:, :-1], ids[:, 1:]
    expected = []
    for exit in (1, 3):
        logits = sorted_exit(copy.deepcopy(model), exit=exit)(inputs)
        expected.append(F.cross_entropy(logits.flatten(0, 1), wanted.flatten()))
    loss = exits.sorted_loss(model, inputs, wanted, [1, 3])
    assert torch.allclose(loss, torch.stack(expected).mean(), atol=1e-5)


class Text:
    """A task of random bytes to learn from, which keeps what was learned."""

    def __init__(self):
        self.kept = {}

    def training_batches(self, size, steps, seed):
        for step in range(steps):
            ids = ids_of(size, 9, seed + step)
            yield ids[:, :-1], ids[:, 1:]

    def remembered(self, what, key, make):
        return self.kept[what] if what in self.kept else self.kept.setdefault(what, make())


def test_a_process_that_comes_later_reads_the_weights_that_the_first_one_learned(monkeypatch):
    model, text = small(layers=3), Text()
    first, second, leaving = copy.deepcopy(model), copy.deepcopy(model), copy.deepcopy(model)
    for one in (first, second, leaving):
        one.task = text
    learned = sorted_exit(first, exit=2, training_steps=2)
    assert learned.learned["steps"] == 2 and learned.method_cost["samples"] == 2 * 16
    monkeypatch.setattr("suites.decode.taught.fit", None)  # nothing learns again
    again = sorted_exit(second, exit=2, training_steps=2)
    assert all(torch.equal(a, b) for a, b in zip(learned.parameters(), again.parameters(), strict=True))
    assert not torch.equal(again.head.weight, model.head.weight)
    exits = confidence_exit(leaving, training_steps=2)  # the same training, at all of its depths
    assert torch.equal(exits.decoder.head.weight, again.head.weight) and exits.learned == learned.learned


def test_a_head_of_its_own_learns_alone():
    model, ids = small(layers=3), ids_of(2, 12)
    plain = walk(sorted_exit(copy.deepcopy(model), exit=2), ids, 8)
    assert torch.equal(walk(sorted_exit(copy.deepcopy(model), exit=2, heads="own"), ids, 8), plain)
    before = copy.deepcopy(model.state_dict())
    model.task = Text()
    own = sorted_exit(model, exit=2, heads="own", training_steps=3)
    changed = [name for name, value in own.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["head.weight"]
    assert all(p.requires_grad for p in own.parameters())
    assert file.own_head_parameters(shape_of("byte_3m"), len(file.HOUSE_EXITS)) == 4 * 256 * 192 == 196_608


def slow_steps(model, ids, prompt, threshold, depths):
    """Logits and depths of confidence exits with caches as lists of keys and values, one sequence."""
    caches, out, left = [([], []) for _ in model.blocks], [], []
    for place in range(ids.shape[1]):
        x, by, gone = model.embed(ids[:, place : place + 1]), model.rotation(place, 1), None
        for depth, block in enumerate(model.blocks, start=1):
            q, k, v = block.attention.project(block.norm1(x), by)
            keys, values = caches[depth - 1]
            keys.append(k)
            values.append(v)
            if gone is not None:
                continue
            k, v = (torch.cat(part, 2).repeat_interleave(2, 1) for part in (keys, values))
            x = x + block.attention.merge((q @ k.transpose(2, 3) / 4).softmax(-1) @ v)
            x = x + block.network(block.norm2(x))
            logits = model.head(model.norm(x[:, -1]))
            if place >= prompt and depth in depths and float(logits.softmax(-1).max()) > threshold:
                gone = depth
        out.append(logits)
        left.append(gone or len(model.blocks))
    return torch.stack(out[prompt - 1 :], dim=1), left[prompt:]


def test_confidence_exits_are_those_of_the_slow_reference():
    model, ids = small(layers=4), ids_of(1, 40)
    early = confidence_exit(copy.deepcopy(model), threshold=0.6, exits=[1, 2, 4])
    logits = walk(early, ids, 10)
    with torch.no_grad():
        expected, left = slow_steps(model, ids, 10, 0.6, [1, 2])
    assert early.left == left and len(set(left)) > 1
    assert torch.allclose(logits, expected, atol=1e-4)


def test_executed_products_of_an_early_exit_are_the_closed_form():
    model = small(layers=4)
    early = confidence_exit(model, threshold=0.001, exits=[2, 4])
    with torch.no_grad():
        _, cache = early.prefill(ids_of(1, 9))
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            early.decode(ids_of(1, 1), cache)
    assert early.left == [2]
    assert counter.get_total_flops() // 2 == file.macs_exit_step(model.shape, 2, 10, 1)


def test_twelve_layers_of_llama2_13b_have_the_printed_parameters():
    assert parameters(exits.shape_at(shape_of("llama2_13b"), 12)) == 4_134_138_880
    whole = shape_of("llama2_13b")
    assert cache_bytes_per_token(exits.shape_at(whole, 12)) * 40 == cache_bytes_per_token(whole) * 12


def test_wrong_settings_say_what_to_do():
    with pytest.raises(ValueError, match="a depth from 1 to 2"):
        sorted_exit(small(), exit=3)
    with pytest.raises(ValueError, match="depths from 1 to 2"):
        confidence_exit(small(), exits=[1, 5])
