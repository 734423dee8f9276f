"""OneRec: products by hand and by trace, beams against all items, and the share of the peak."""

import itertools

import pytest
import torch

from bench.analysis import utilisation
from bench.meters import macs
from bench.reading import reading
from suites.decode import ranking_model as ranking
from suites.decode.onerec import begun, onerec
from suites.decode.onerec_counts import context_share, macs_context, macs_item, macs_row, parameters, table_parameters

TINY = {
    "width": 32, "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "hidden": 24, "experts": 4, "chosen": 2,
    "expert_width": 8, "short": 2, "positive": 3, "lifelong": 7, "queries": 4, "query_layers": 1, "codes": 6, "item": 8,
    "users": 9, "items": 20,
}  # fmt: skip


def built(seed=0, **changes):
    torch.manual_seed(seed)
    return onerec(**{**TINY, **changes})


def counted(module, *args):
    return macs.count(module, args, second_count=False, self_check=False).macs


def louder(model):
    """Weights large enough for codes to differ in their chances."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5)
    return model


def test_products_of_one_user_by_hand():
    s = built().sizes
    # 13 ids through two maps; 4 queries over 7 items; 10 positions; the context's keys and values of both layers
    paths = 13 * (8 * 32 + 32 * 32)
    asking = 4 * 32 * 32 * 2 + 7 * 32 * 32 * 2 + 2 * 4 * 7 * 32 + 4 * 3 * 32 * 24
    layer = 10 * (4 * 32 * 32 + 3 * 32 * 24) + 2 * 10 * 10 * 32
    assert macs_context(s) == paths + asking + 2 * layer + 2 * (2 * 10 * 32 * 32)
    # a row at two ids: six maps, two ids, ten positions, the router, two experts, and the head
    row = 2 * (6 * 32 * 32 + 2 * 2 * 32 + 2 * 10 * 32 + 4 * 32 + 2 * 3 * 32 * 8) + 6 * 32
    assert macs_row(s, 2) == row
    assert macs_item(s, beams=3) == macs_context(s) + macs_row(s, 1) + 3 * (row + macs_row(s, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heads": 4, "experts": 5, "chosen": 5},
        {"query_layers": 3, "queries": 1, "lifelong": 1},
        {"short": 6, "codes": 11},
    ],
)
def test_counts_and_parameters_are_those_of_the_network(changes):
    model = built(**changes)
    s, (ids,) = model.sizes, model.example_inputs(3)
    assert sum(p.numel() for p in model.parameters()) == parameters(s)
    assert table_parameters(s) == (9 + 20) * 8
    assert counted(model, ids) == 3 * (macs_context(s) + macs_row(s, 1))
    kept = model.prefill(ids)[1]

    class Step(torch.nn.Module):
        def forward(self, codes):
            return model.decode(codes, kept)[0]

    assert counted(Step(), torch.zeros(3, 1, dtype=torch.int64)) == 3 * macs_row(s, 2)


def test_written_codes_are_those_of_one_parallel_pass_without_a_cache():
    model = louder(built().double())
    (ids,) = model.example_inputs(2)
    encoded = model.read(ids)
    logits, kept = model.prefill(ids)
    codes = [logits.argmax(-1, keepdim=True)]
    for _ in range(2):
        logits, kept = model.decode(codes[-1], kept)
        codes.append(logits.argmax(-1, keepdim=True))
    rows = torch.cat([torch.zeros_like(codes[0]), 1 + codes[0], 1 + 6 + codes[1]], dim=1)
    x = model.codes(rows)
    for layer in model.decoder:
        x = x + causal(layer.own, layer.norm1(x))
        x = x + layer.context.over(layer.norm2(x), layer.context.keys_of(encoded))
        x = x + layer.network(layer.norm3(x))
    x = model.norm(x)
    together = [head(x[:, place]).argmax(-1) for place, head in enumerate(model.heads)]
    assert torch.equal(torch.stack(together, dim=1), torch.cat(codes, dim=1))
    torch.testing.assert_close(model.heads[2](x[:, 2]), logits)


def causal(attention, x):
    k, v = attention.keys_of(x)
    q = attention.split(attention.q(x))
    fit = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    return attention.out((fit.softmax(-1) @ v).transpose(1, 2).flatten(2))


def every_item(model, ids):
    """Logarithmic chance of each item of one user, greedy steps apart."""
    found = {}
    for one, two, three in itertools.product(range(6), repeat=3):
        logits, kept = model.prefill(ids)
        chance = logits[0].log_softmax(-1)[one]
        for code, after in ((one, two), (two, three)):
            logits, kept = model.decode(torch.tensor([[code]]), kept)
            chance = chance + logits[0].log_softmax(-1)[after]
        found[one, two, three] = float(chance.detach())
    return sorted(found, key=lambda item: -found[item])


def test_with_a_beam_for_every_pair_the_list_is_that_of_all_items():
    model, searching = louder(built().double()), louder(built(beams=36).double())
    (ids,) = model.example_inputs(1)
    searching.write(ids, 3)
    assert [tuple(item) for item in searching.last[0].tolist()] == every_item(model, ids)[:36]
    assert counted(Answer(searching), ids) == macs_item(searching.sizes, 36)
    assert macs_item(searching.sizes, 36) == macs_item(searching.sizes, kept=(6, 36))


class Answer(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model.write(ids, 3)


def test_one_beam_writes_what_greedy_steps_write():
    model, searching = louder(built()), louder(built(beams=3))
    searching.beams = 1
    (ids,) = model.example_inputs(2)
    logits, kept = model.prefill(ids)
    codes = [logits.argmax(-1, keepdim=True)]
    for _ in range(2):
        logits, kept = model.decode(codes[-1], kept)
        codes.append(logits.argmax(-1, keepdim=True))
    assert torch.equal(searching.write(ids, 3), torch.cat(codes, dim=1))
    assert searching.written() == {"tokens_written": 6.0, "needed_share": 100.0}


def test_needed_are_the_rows_that_the_final_list_begins_with():
    assert begun([[1, 2, 3], [1, 2, 4], [1, 5, 0], [7, 2, 3]]) == (2, 3)
    model = louder(built(beams=5))
    s, (ids,) = model.sizes, model.example_inputs(1)
    model.write(ids, 3)
    one, two = begun(model.last[0].tolist())
    needed = macs_context(s) + macs_row(s, 1) + one * macs_row(s, 2) + two * macs_row(s, 3)
    assert model.written()["needed_share"] == pytest.approx(100 * needed / macs_item(s, 5))
    assert one < 5, "a search in which no beam ends early would not tell needed from executed"
    model.write(ids, 2)
    assert model.written()["needed_share"] is None


def test_utilisation_counts_what_the_answer_needs():
    # 3e9 products in 20 ms at a peak of 400e9 operations a second: 15 ms ideal, 75 % executed; two thirds needed, 50 %.
    found = {
        "latency_ms": reading("latency_ms", 20.0, "measured"),
        "ideal_ms": reading("ideal_ms", 2 * 3e9 / 400e9 * 1e3, "modelled"),
        "macs": reading("macs", 3e9, "counted"),
        "needed_share": reading("needed_share", 200 / 3, "counted"),
    }
    rates = {row.metric: row.value for row in utilisation.readings({"case": {}}, found.get)}
    assert rates == pytest.approx({"hfu": 75.0, "mfu": 50.0})
    del found["needed_share"]
    assert {row.metric: row.value for row in utilisation.readings({"case": {}}, found.get)}["mfu"] == pytest.approx(
        75.0
    )


def test_of_about_a_billion_parameters_reading_the_user_is_nearly_all():
    with torch.device("meta"):
        model = onerec(
            width=1024, heads=16, encoder_layers=8, decoder_layers=8, hidden=4096, expert_width=1280, lifelong=2000,
            users=100_000, items=100_000,
        )  # fmt: skip
    s = model.sizes
    assert sum(p.numel() for p in model.parameters()) == parameters(s)
    assert 0.9e9 < parameters(s) - table_parameters(s) < 1.1e9
    assert 0.97 < context_share(s) < 1.0
    assert context_share(s, beams=512) < 0.5 < context_share(s, beams=32)


def test_a_wrong_number_of_ids_or_codes_is_told():
    model = built()
    with pytest.raises(ValueError, match="context=13"):
        model.example_ids(1, 12, 0)
    logits, kept = model.prefill(model.example_inputs(1)[0])
    for _ in range(2):
        logits, kept = model.decode(logits.argmax(-1, keepdim=True), kept)
    with pytest.raises(ValueError, match="3 codes"):
        model.decode(logits.argmax(-1, keepdim=True), kept)
    with pytest.raises(ValueError, match="6 or more"):
        ranking.ranking_model(candidates=6, history=5, item=8, users=9, items=20).example_ids(1, 5, 0)


def test_the_ranking_model_scores_each_candidate_alone_and_offers_each_once():
    torch.manual_seed(0)
    model = ranking.ranking_model(candidates=6, history=5, item=8, users=9, items=20)
    ids = model.example_ids(1, 13, 0)
    assert counted(model, ids) == ranking.macs(6, 5, 8) == 6 * (2 * 5 * 8 + 32 * 256 + 256 * 128 + 128 * 64 + 64)
    user, seen = model.users(ids[0, 0]), model.items(ids[0, 1:6])
    for place, number in enumerate(model.chosen.tolist()):
        own = model.items.weight[number]
        interest = (seen @ own / 8**0.5).softmax(0) @ seen
        score = model.tower(torch.cat([user, own, interest, own * interest]))
        torch.testing.assert_close(model(ids)[0, place], score[0])
    scores, kept = model.prefill(ids)
    order = []
    for _ in range(6):
        order.append(int(scores.argmax()))
        scores, kept = model.decode(scores.argmax(-1, keepdim=True), kept)
    assert order == scores.new_tensor(model(ids)[0].tolist()).argsort(descending=True).tolist()
