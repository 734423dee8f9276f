"""Kinetics: the cost by its sum, and block top-k attention against its definition."""

import copy

import pytest
import torch

from suites.decode import kinetics as file
from suites.decode.kinetics import block_topk, dense_cost, sparse_cost
from tests.suites.decode.walking import ids_of, keepers, small, walk

QWEN3_8B = {"parameters": 8.19e9, "heads": 32, "kv_heads": 8, "sizes": 36 * 128}


def test_the_cost_is_that_of_the_brief():
    cost = dense_cost(**QWEN3_8B, context=256, new=4096)
    assert round(cost.compute / 1e12, 4) == 72.6588
    assert round(cost.memory / 1e12, 4) == 782.7578
    assert round(cost.total / 1e12, 4) == 855.4165


@pytest.mark.parametrize("budget, context, new", [(10**9, 50, 300), (40, 50, 300), (120, 50, 300), (350, 50, 300)])
def test_the_closed_forms_are_sums_over_steps(budget, context, new):
    n, heads, sizes = 1000, 4, 24
    compute = 0.0
    for i in range(1, new + 1):
        compute += 2 * n + 4 * heads * sizes * (context + i - 0.5)
    assert dense_cost(
        parameters=n, heads=heads, kv_heads=2, sizes=sizes, context=context, new=new
    ).compute == pytest.approx(compute)
    if budget <= context + new:
        seen = sum(min(budget, context + i) for i in range(1, new + 1))
        cost = sparse_cost(
            parameters=0, heads=heads, kv_heads=2, sizes=sizes, context=context, new=new, budget=budget, page=10**9
        )
        assert cost.compute == pytest.approx(4 * heads * sizes * seen, rel=5e-3)


@pytest.mark.parametrize("budget", [350, 351, 10**9])
def test_a_budget_above_all_keys_costs_what_dense_attention_costs(budget):
    shape = {"parameters": 1000, "heads": 4, "kv_heads": 2, "sizes": 24, "context": 50, "new": 300}
    dense, sparse = dense_cost(**shape), sparse_cost(**shape, budget=budget, page=10**9)
    assert sparse.compute == pytest.approx(dense.compute, rel=1e-6)
    assert sparse.memory == pytest.approx(dense.memory, rel=1e-6)


def test_nothing_new_costs_nothing_and_trials_share_the_prompt():
    assert dense_cost(**QWEN3_8B, context=256, new=0).total == 0
    one, four = (dense_cost(**QWEN3_8B, context=1000, new=10, trials=t) for t in (1, 4))
    assert four.compute == 4 * one.compute
    assert one.memory < four.memory < 4 * one.memory
    assert file.predicted_seconds(one, 1e12) == one.total / 1e12


def test_reading_all_pages_is_the_plain_model_bit_for_bit():
    model, ids = small(), ids_of(2, 60)
    assert torch.equal(walk(block_topk(copy.deepcopy(model), pages=64, page=4), ids, 40), walk(model, ids, 40))


def test_mean_keys_are_among_the_stored_bits():
    model = block_topk(small(), pages=2, page=4)
    with torch.no_grad():
        _, cache = model.prefill(ids_of(3, 40))
    elements = model.dense_cache_bytes(3, 40) / 4
    assert model.cache_bits() == {"nominal": 32.0, "stored": 36.0} and 8 * model.cache_bytes(cache) / elements == 36


def slow_step(q, k, v, pages, page, window):
    """One query per head over the keys that the rule reads, by loops over key heads."""
    groups, used = k.shape[0], k.shape[1]
    share, candidates = q.shape[0] // groups, max(0, used - window) // page
    out = []
    for group in range(groups):
        means = [k[group, p * page : (p + 1) * page].mean(0) for p in range(candidates)]
        mine = q[group * share : (group + 1) * share]
        scores = [float(sum(query @ mean for query in mine)) for mean in means]
        best = sorted(range(candidates), key=lambda p: -scores[p])[:pages]
        rows = [p * page + i for p in best for i in range(page)] + list(range(candidates * page, used))
        for query in mine:
            weights = (query @ k[group, rows].t() / q.shape[1] ** 0.5).softmax(0)
            out.append(weights @ v[group, rows])
        assert len(rows) == file.keys_read(used, pages, page, window)
    return torch.stack(out)


@pytest.mark.parametrize("pages, page, window", [(2, 4, 5), (1, 8, 0), (3, 4, 12)])
def test_steps_read_what_the_definition_reads(pages, page, window):
    keeper = file.PageKeeper(pages, page, window)
    q, k, v = (torch.randn(2, heads, 80, 16, dtype=torch.double) for heads in (4, 2, 2))
    kept = keeper.keep(q[:, :, :50], k[:, :, :50], v[:, :, :50])
    for place in range(50, 80):
        now = slice(place, place + 1)
        out, kept = keeper.step(q[:, :, now], k[:, :, now], v[:, :, now], kept)
        for b in range(2):
            expected = slow_step(q[b, :, place], k[b, :, : place + 1], v[b, :, : place + 1], pages, page, window)
            assert torch.allclose(out[b, :, 0], expected, atol=1e-10)
        assert kept.bytes == 2 * 2 * 16 * 8 * (2 * (place + 1) + (place + 1) // page)


def test_several_tokens_at_once_keep_the_pages():
    model, ids = block_topk(small(), pages=2, page=4, window=4), ids_of(1, 61)
    with torch.no_grad():
        _, cache = model.prefill(ids[:, :40])
        _, chunked = model.decode(ids[:, 40:60], cache)
        means = chunked.kept[0].means.filled
        expected = chunked.kept[0].pair.k.filled[:, :, :60].unflatten(2, (-1, 4)).mean(3)
    assert torch.allclose(means, expected, atol=1e-6)
    assert keepers(model)[0].pages == 2
