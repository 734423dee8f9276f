"""AI Flow: the text is the server's own, a round is what it should be, and features come back from their strings."""

import pytest
import torch

from suites.common.speculation import agreeing, greedy
from suites.serving.ai_flow import ai_flow, ai_flow_text
from suites.serving.flow_decoder import flow_decoder, held_out_text
from tests.suites.conftest import spread
from tests.suites.serving.cutting import built, counts, facts, on_meta, parts_of

SMALL = {"width": 8, "heads": 2, "layers": 1, "hidden": 16}


def server(seed=0):
    torch.manual_seed(seed)
    return spread(flow_decoder(width=16, heads=2, layers=3, hidden=32))


def prompt(length=12):
    return held_out_text(1, length)


@pytest.mark.parametrize("k", [1, 2, 5])
@torch.no_grad()
def test_the_text_is_the_server_s_own_whatever_the_device_drafts(k):
    whole = server()
    text = ai_flow_text(whole, k=k, **SMALL)
    assert torch.equal(text.write(prompt(), 20), greedy(whole, prompt(), 20))
    assert set(text.written()) == {"tokens_per_step", "draft_acceptance"}


@torch.no_grad()
def test_rounds_one_after_another_write_the_server_s_text():
    whole = server()
    for device in (whole, server(seed=3)):
        flow = ai_flow(whole, k=3, **SMALL)
        flow.device = device
        text = prompt()
        while text.shape[1] < 12 + 15:
            flow.ready(text)
            drafted = flow.decode(flow.encode(flow.head(text)))
            text = torch.cat([text, flow.tail(drafted)], 1)
        assert torch.equal(text[:, 12:27], greedy(whole, prompt(), 15))


@torch.no_grad()
def test_a_round_is_the_drafts_that_are_right_and_one_of_the_server():
    whole = server()
    flow = ai_flow(whole, k=4, **SMALL)
    flow.ready(prompt())
    drafted, own = flow.head(prompt()), greedy(whole, prompt(), 5)
    right = agreeing(drafted[0].tolist(), own[0].tolist())
    assert drafted.shape == (1, 4) and torch.equal(flow.tail(drafted), own[:, : right + 1])
    flow.device = whole
    flow._session = None
    flow.ready(prompt())
    assert torch.equal(flow.tail(flow.head(prompt())), own)


@torch.no_grad()
def test_without_drafts_the_server_writes_one_token():
    whole = server()
    flow = ai_flow(whole, k=0, **SMALL)
    flow.ready(prompt())
    assert flow.head(prompt()).shape == (1, 0)
    assert torch.equal(flow.tail(flow.decode(flow.encode(flow.head(prompt())))), greedy(whole, prompt(), 1))


def test_a_round_s_bytes_are_its_tokens_and_its_request():
    with torch.no_grad():
        found = facts(built(ai_flow(server(), k=4, **SMALL), prompt()))
    assert found["payload_bytes", "request"].value == 8 + 5 + 4
    assert 6 <= found["answer_bytes", "request"].value <= 10
    assert found["head_params", "request"].value == sum(p.numel() for p in flow_decoder(**SMALL).parameters())


def test_a_round_costs_its_drafts_and_one_verification():
    found = counts(lambda: ai_flow(flow_decoder(width=16, heads=2, layers=3, hidden=32), k=3, **SMALL))
    one, two = (
        counts(lambda k=k: ai_flow(flow_decoder(width=16, heads=2, layers=3, hidden=32), k=k, **SMALL)) for k in (1, 2)
    )
    assert found["request"] == found["head"] + found["tail"] and found["head"] > two["head"] > one["head"]
    assert "ready" not in parts_of(on_meta(lambda: ai_flow(flow_decoder(**SMALL), k=1, **SMALL)))


@torch.no_grad()
def test_a_feature_in_strings_is_the_rounded_feature():
    pytest.importorskip("constriction")
    flow = ai_flow(server(), setting="feature", cut=2, channels=3)
    latent = flow.head(prompt())
    assert latent.shape == (1, 3, 12) and torch.equal(flow.decode(flow.encode(latent)), latent.round())
    assert torch.allclose(flow.tail(latent.round()), flow(prompt())[:, -1], atol=1e-5)


@torch.no_grad()
def test_the_cloud_reads_the_text_that_the_device_sends():
    whole = server()
    flow = ai_flow(whole, setting="cloud")
    sent = flow.decode(flow.encode(flow.head(prompt())))
    assert torch.equal(sent, prompt()) and torch.allclose(flow.tail(sent), whole(prompt())[:, -1], atol=1e-5)


def test_more_than_one_text_and_an_unknown_text_are_refused():
    flow = ai_flow(server(), k=2, **SMALL)
    with pytest.raises(ValueError, match="one text at a time"):
        flow.ready(held_out_text(2, 8))
    with pytest.raises(ValueError, match="call ready"):
        flow.head(prompt())
    with pytest.raises(ValueError, match="at least one is the server's"):
        ai_flow(server(), setting="feature", cut=3)
