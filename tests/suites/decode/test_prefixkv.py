"""PrefixKV: one mass for all layers, budgets met exactly, what is kept and what is dropped."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.decode import prefixkv as file
from suites.decode.prefixkv import prefixkv
from tests.suites.decode.walking import ids_of, keepers, small, walk


def importance_slowly(q, k):
    """Attention received by each key, mean over heads, of one sample."""
    heads, tokens, size = q.shape
    share, total = heads // k.shape[0], [0.0] * tokens
    for head in range(heads):
        for i in range(tokens):
            weights = torch.stack([q[head, i] @ k[head // share, j] / size**0.5 for j in range(i + 1)]).softmax(0)
            for j, weight in enumerate(weights.tolist()):
                total[j] += weight / heads
    return total


def test_importance_is_that_of_a_slow_reference_and_the_prompt_is_attended_exactly(monkeypatch):
    monkeypatch.setattr(file, "QUERY_BLOCK", 7)
    keeper = file.PrefixKeeper(25, scored=True)
    q, k, v = (torch.randn(2, heads, 18, 16, dtype=torch.double) for heads in (4, 2, 2))
    out, scored = keeper.prefill(q, k, v)
    assert torch.allclose(out, keeper.attend(q, k, v), atol=1e-10)
    for b in range(2):
        assert scored.importance[b].tolist() == pytest.approx(importance_slowly(q[b], k[b]))


def test_the_whole_budget_gives_the_plain_model_bit_for_bit():
    model, ids = small(), ids_of(2, 40)
    plain = walk(model, ids, 30)
    assert torch.equal(walk(prefixkv(copy.deepcopy(model), budget=1.0), ids, 30), plain)
    kept = prefixkv(copy.deepcopy(model), ratios=[1.0, 1.0])
    assert torch.allclose(walk(kept, ids, 30), plain, atol=1e-5)


@given(seed=st.integers(0, 999), layers=st.integers(1, 6), tokens=st.integers(2, 80), budget=st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_sizes_meet_the_budget_and_stay_possible(seed, layers, tokens, budget):
    generator = torch.Generator().manual_seed(seed)
    importances = [torch.rand(2, tokens, generator=generator) ** (1 + i) for i in range(layers)]
    sizes = file.layer_sizes(importances, budget)
    assert sum(sizes) == max(layers, round(budget * tokens * layers))
    assert all(1 <= size <= tokens for size in sizes)


def test_the_mass_rises_with_the_budget_and_binary_search_lands_near_it():
    masses = file.curves([torch.rand(1, 200) ** (1 + i) for i in range(5)])
    found = [file.prefix_mass(masses, wanted) for wanted in (100, 300, 500, 900)]
    assert found == sorted(found)
    for wanted, p in zip((100, 300, 500, 900), found, strict=True):
        assert abs(sum(file.sizes_at(masses, p)) - wanted) <= 5
        slow = [next(i + 1 for i, mass in enumerate(m.tolist()) if mass >= p) for m in masses]
        assert file.sizes_at(masses, p) == slow


def test_equal_importance_gives_equal_layers():
    sizes = file.layer_sizes([torch.ones(1, 64)] * 4, 0.5)
    assert sizes == [32] * 4


def test_kept_sets_are_nested_in_the_budget_and_hold_first_and_last():
    k = torch.arange(40.0).reshape(1, 1, 40, 1)
    part = file.Scored(k, k, torch.rand(1, 40))
    before = set()
    for size in (2, 5, 11, 30, 40):
        kept = set(file.trimmed(part, size).pair.k.filled.flatten().tolist())
        assert len(kept) == size and {0.0, 39.0} <= kept and before <= kept
        before = kept


def test_decode_drops_the_token_25_before_the_end_when_the_share_is_exceeded():
    keeper = file.PrefixKeeper(25, scored=True)
    tokens = 60
    k = torch.arange(float(tokens)).reshape(1, 1, tokens, 1).expand(1, 1, tokens, 2).contiguous()
    kept = file.trimmed(file.Scored(k, k, torch.rand(1, tokens)), 45)
    expected = kept.pair.k.filled[0, 0, :, 0].tolist()
    for place in range(tokens, tokens + 30):
        new = torch.full((1, 1, 1, 2), float(place))
        _, kept = keeper.step(torch.randn(1, 1, 1, 2), new, new, kept)
        expected.append(float(place))
        if len(expected) > round(45 / 60 * (place + 1)):
            del expected[len(expected) - 25]
        assert kept.pair.k.filled[0, 0, :, 0].tolist() == expected
        assert kept.pair.v.filled[0, 0, :, 1].tolist() == expected


def test_a_short_cache_drops_the_oldest_behind_the_first():
    assert [file.place_to_drop(used, 25) for used in (2, 3, 20, 25, 26, 27, 60)] == [0, 1, 1, 1, 1, 2, 35]
    assert file.place_to_drop(5, 1) == 4
    keeper = file.PrefixKeeper(25, scored=True)
    k = torch.arange(20.0).reshape(1, 1, 20, 1)
    kept = file.trimmed(file.Scored(k, k, torch.arange(20.0)[None]), 5)  # 0, 16, 17, 18, 19
    for place in range(20, 23):  # a quarter of 21, 22 and 23 tokens are five, six and six
        new = torch.full((1, 1, 1, 1), float(place))
        _, kept = keeper.step(torch.randn(1, 1, 1, 1), new, new, kept)
    assert kept.pair.k.filled.flatten().tolist() == [0.0, 18.0, 19.0, 20.0, 21.0, 22.0]


def test_cache_bytes_are_the_share_of_the_dense_cache_at_every_length():
    model = prefixkv(small(), budget=0.4)

    def check(tokens, cache):
        held = [part.pair.used for part in cache.kept]
        assert model.cache_bytes(cache) == 2 * sum(held) * 2 * 2 * 16 * 4
        for part in cache.kept:
            assert part.pair.used <= max(1, round(part.ratio * tokens))
        if tokens == 50:
            assert sum(held) == 40

    walk(model, ids_of(2, 70), 50, check)


def test_kept_tokens_alone_decide_the_next_step():
    """A step equals attention over the kept keys written out."""
    model, ids = prefixkv(small(layers=1), budget=0.3), ids_of(1, 41)
    with torch.no_grad():
        _, cache = model.prefill(ids[:, :40])
        kept = cache.kept[0].pair
        k, v = kept.k.filled.clone(), kept.v.filled.clone()
        block, by = model.decoder.blocks[0], model.decoder.rotation(40, 1)
        x = model.decoder.embed(ids[:, 40:])
        q, new_k, new_v = block.attention.project(block.norm1(x), by)
        keys, values = (
            torch.cat([k, new_k], 2).repeat_interleave(2, 1),
            torch.cat([v, new_v], 2).repeat_interleave(2, 1),
        )
        attended = (q @ keys.transpose(2, 3) / 4).softmax(-1) @ values
        x = x + block.attention.merge(attended)
        expected = model.decoder.head(model.decoder.norm(x + block.network(block.norm2(x))))[:, 0]
        logits, _ = model.decode(ids[:, 40:], cache)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_the_offline_recipe_is_the_mean_of_online_ratios_and_needs_no_map():
    model = small()
    ratios = file.recipe(copy.deepcopy(model), [ids_of(1, 40, seed) for seed in range(3)], 0.5)
    assert len(ratios) == 2 and sum(ratios) == pytest.approx(1.0)
    fixed = prefixkv(copy.deepcopy(model), ratios=ratios)
    assert not keepers(fixed)[0].scored
    with torch.no_grad():
        logits, cache = fixed.prefill(ids_of(2, 40))
        assert torch.allclose(logits, model.prefill(ids_of(2, 40))[0], atol=1e-6)
    assert [part.pair.used for part in cache.kept] == [40 - round((1 - ratio) * 40) for ratio in ratios]
    with pytest.raises(ValueError, match="one per layer"):
        prefixkv(small(), ratios=[0.5])
