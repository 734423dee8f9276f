"""Speculation: the text is that of plain greedy decoding, whoever drafts; multi-token prediction and its counts."""

import copy

import pytest
import torch

from suites.common.decoder import decoder
from suites.common.decoder_shape import attention_macs, head_macs, linear_macs, network_macs
from suites.common.decoder_shapes import shape_of
from suites.common.speculation import Speculated, account, agreeing, greedy, model_draft, speculative_greedy
from suites.decode import mtp as mtp_file
from suites.decode.mtp import mtp
from suites.decode.plain import uniform_cache
from suites.decode.sorted_llama import sorted_exit
from suites.decode.speculation import first_layers, lookup_draft, speculative
from tests.suites.conftest import spread
from tests.suites.decode.walking import ids_of, small, walk


def drafts(model):
    yield "itself", model_draft(copy.deepcopy(model))
    yield "shallow", model_draft(sorted_exit(copy.deepcopy(model), exit=1))
    yield "lookup", lookup_draft(2)
    yield "nothing", lambda text, count: []


@pytest.mark.parametrize("ahead", [1, 3, 6])
def test_the_text_is_that_of_plain_greedy_decoding(ahead):
    model, ids = small(layers=3), ids_of(1, 20)
    with torch.no_grad():
        plain = greedy(model, ids, 30)
        for name, draft in drafts(model):
            found = speculative_greedy(model, draft, ids, 30, ahead)
            assert torch.equal(found.ids, plain), name
            if name == "itself":
                assert found.acceptance == 1.0 and found.tokens_per_step > 0.7 * (ahead + 1)
            if name == "nothing":
                assert found.acceptance is None and found.steps == 29


def test_lookup_finds_the_newest_earlier_place():
    draft = lookup_draft(2)
    assert draft(torch.tensor([[1, 2, 3, 9, 1, 2, 4, 5, 1, 2]]), 2) == [4, 5]
    assert draft(torch.tensor([[1, 2, 3]]), 2) == []
    assert agreeing([1, 2, 3], [1, 2, 4, 5]) == 2 and agreeing([], [7]) == 0


def test_a_cache_that_cannot_be_rolled_back_is_refused():
    model = uniform_cache(small())
    with torch.no_grad(), pytest.raises(ValueError, match="cannot be rolled back"):
        speculative_greedy(model, lookup_draft(), ids_of(1, 8), 5)
    with pytest.raises(ValueError, match="one sequence at a time"):
        speculative_greedy(small(), lookup_draft(), ids_of(2, 8), 5)


def ahead_model():
    model = mtp(small())
    spread(model.ahead)
    return model


def slow_second(model, ids):
    """Logits of x_{t+2} of one sequence, position by position, without a cache."""
    decoder, out = model.decoder, []
    x, by = decoder.embed(ids), decoder.rotation(0, ids.shape[1])
    for block in decoder.blocks:
        x = block(x, by)
    for t in range(ids.shape[1] - 1):
        inputs = []
        for i in range(t + 1):
            state = model.ahead.norm_state(x[0, i])
            token = model.ahead.norm_token(decoder.embed.weight[ids[0, i + 1]])
            inputs.append(model.ahead.joint.weight @ torch.cat([state, token]))
        h = model.ahead.block(torch.stack(inputs)[None], decoder.rotation(0, t + 1))
        out.append(decoder.head(model.ahead.norm(h[0, -1])))
    return torch.stack(out)


def test_the_block_ahead_is_that_of_the_slow_reference_with_and_without_its_cache():
    model, ids = ahead_model(), ids_of(1, 10)
    with torch.no_grad():
        expected = slow_second(model, ids)
        assert torch.allclose(model.second(ids)[0], expected, atol=1e-4)
        _, cache = model.prefill(ids[:, :4])
        for t in range(4, 10):
            guess, _ = model._ahead(cache.state, ids[:, t : t + 1], model.copy_cache(cache).ahead, t - 1)
            assert torch.allclose(guess[0], expected[t - 1], atol=1e-4)
            _, cache = model.decode(ids[:, t : t + 1], cache)


@pytest.mark.parametrize("prompt", [1, 2, 15])
def test_drafting_ahead_gives_the_text_of_plain_greedy_decoding(prompt):
    model, ids = ahead_model(), ids_of(1, prompt)
    with torch.no_grad():
        found = model.generate(ids, 25)
        assert torch.equal(found.ids, greedy(model.decoder, ids, 25))
        assert torch.equal(greedy(model, ids, 25), found.ids)
    assert found.drafted == found.steps


def test_good_drafts_are_accepted():
    """A head that always says the same token makes every draft right."""
    model = ahead_model()
    model.decoder.head.weight.data.zero_()
    with torch.no_grad():
        found = model.generate(ids_of(1, 5), 21)
    assert found.acceptance == 1.0 and found.steps == 10


def test_one_token_at_a_time_it_is_the_decoder_and_its_cache_has_one_more_line():
    model, ids = ahead_model(), ids_of(2, 20)
    assert torch.allclose(walk(model, ids, 12), walk(model.decoder, ids, 12), atol=1e-6)
    with torch.no_grad():
        _, cache = model.prefill(ids)
    assert model.cache_bytes(cache) == 2 * 4 * (20 * 2 * 64 + 19 * 64 + 64)


def test_sizes_and_bounds_are_those_of_the_brief():
    assert mtp_file.added_parameters(shape_of("byte_3m")) == 517_056
    assert mtp_file.added_parameters(shape_of("deepseek_v3")) == 11_610_068_224
    model = mtp(small())
    assert sum(p.numel() for p in model.ahead.parameters()) == mtp_file.added_parameters(model.shape)
    assert mtp_file.macs_per_token(100, 10, 0.5) == 140
    shape = shape_of("deepseek_v3")
    layer = shape.layers[-1]
    ahead = attention_macs(layer, 7168) + network_macs(layer, 7168) + 2 * 7168**2 + head_macs(shape)
    ratio = ahead / (linear_macs(shape) + head_macs(shape))
    assert round(mtp_file.speed_bound(0.85, ratio), 2) == 1.77


def test_the_loss_teaches_both():
    model, ids = ahead_model(), ids_of(4, 20)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-2), []
    for _ in range(10):
        loss = model.loss(ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("draft", ["lookup", "exit"])
def test_rows_write_the_plain_text_for_every_sequence_and_account_for_it(draft):
    torch.manual_seed(1)
    plain = decoder(width=32, layers=3, heads=2, hidden=24)
    ids = torch.randint(256, (2, 9))
    ids = torch.cat([ids, ids], dim=1)
    with torch.no_grad():
        wanted = greedy(plain, ids, 20)
        row = speculative(plain, draft=draft, ahead=3, exit=1)
        assert torch.equal(row.write(ids, 20), wanted)
    said = row.written()
    assert 1 <= said["tokens_per_step"] <= 4
    assert 0 <= said["draft_acceptance"] <= 100


def test_the_account_adds_sequences():
    found = [Speculated(torch.zeros(1, 9), 4, 8, 4), Speculated(torch.zeros(1, 9), 8, 0, 0)]
    assert account(found) == {"tokens_per_step": 16 / 12, "draft_acceptance": 50.0}
    assert account([Speculated(torch.zeros(1, 1), 0, 0, 0)]) == {"tokens_per_step": None, "draft_acceptance": None}


def test_first_layers_share_weights_with_the_whole():
    whole = decoder(width=32, layers=3, heads=2, hidden=24)
    shallow = first_layers(whole, 2)
    assert len(shallow.blocks) == len(shallow.shape.layers) == 2
    assert len(whole.blocks) == 3
    assert shallow.blocks[1] is whole.blocks[1]
