"""ZipVL: how many tokens, which, what they attend to, and what is kept of them."""

import copy

import pytest
import torch

from suites.decode import zipvl as file
from suites.decode.zipvl import zipvl
from tests.suites.decode.walking import ids_of, keepers, small, walk

FEW = {"recent_probes": 8, "random_probes": 8, "residual": 12}


def chosen_slowly(q, k, tau, recent, drawn):
    """Important tokens of one sample by loops over probes and heads."""
    heads, tokens, size = q.shape
    share = heads // k.shape[0]
    probes = file.probe_queries(tokens, recent, drawn, q.device).tolist()
    mass, seen = [0.0] * tokens, [0] * tokens
    for place in probes:
        for head in range(heads):
            scores = torch.stack([q[head, place] @ k[head // share, j] / size**0.5 for j in range(place + 1)])
            for j, weight in enumerate(scores.softmax(0).tolist()):
                mass[j] += weight / heads
        for j in range(place + 1):
            seen[j] += 1
    ordered, total, count = sorted(mass, reverse=True), 0.0, 0
    while total < tau * sum(mass) * (1 - 1e-12):
        total += ordered[count]
        count += 1
    importance = [m / max(1, n) for m, n in zip(mass, seen, strict=True)]
    importance[-1] = float("inf")
    best = sorted(range(tokens), key=lambda j: -importance[j])[:count]
    return sorted(best)


@pytest.mark.parametrize("tau", [0.5, 0.8, 0.975])
def test_the_important_tokens_are_those_of_a_slow_reference(tau):
    keeper = keepers(zipvl(small(), tau=tau, **FEW))[0]
    q, k = torch.randn(1, 4, 40, 16, dtype=torch.double) * 2, torch.randn(1, 2, 40, 16, dtype=torch.double)
    chosen, others = keeper.chosen(q, k)
    assert chosen[0].tolist() == chosen_slowly(q[0], k[0], tau, 8, 8)
    assert sorted(chosen[0].tolist() + others[0].tolist()) == list(range(40))


def test_the_count_is_minimal():
    mass = torch.rand(1, 50).double()
    for tau in (0.1, 0.5, 0.96, 0.975, 1.0):
        p = file.fewest(mass, tau)
        ordered = mass[0].sort(descending=True).values
        assert ordered[:p].sum() >= tau * mass.sum() * (1 - 1e-12)
        assert p == 1 or ordered[: p - 1].sum() < tau * mass.sum()


def test_probes_are_the_last_queries_and_seeded_random_ones():
    probes = file.probe_queries(100, 10, 5, torch.device("cpu")).tolist()
    assert probes[-10:] == list(range(90, 100)) and len(set(probes)) == 15 and probes == sorted(probes)
    assert file.probe_queries(100, 10, 5, torch.device("cpu")).tolist() == probes
    assert file.probe_queries(6, 10, 5, torch.device("cpu")).tolist() == list(range(6))


def test_only_important_tokens_attend_and_are_attended():
    keeper = keepers(zipvl(small(), tau=0.6, **FEW))[0]
    q, k, v = (torch.randn(2, heads, 30, 16) for heads in (4, 2, 2))
    out, cache = keeper.prefill(q, k, v)
    chosen, others = keeper.chosen(q, k)
    for b in range(2):
        assert torch.all(out[b, :, others[b]] == 0)
        rows = chosen[b].tolist()
        for head in range(4):
            for place, i in enumerate(rows):
                seen = rows[: place + 1]
                weights = (q[b, head, i] @ k[b, head // 2, seen].t() / 4).softmax(0)
                assert torch.allclose(out[b, head, i], weights @ v[b, head // 2, seen], atol=1e-5)
    assert cache.count == 30 and chosen.shape[1] < 30


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_all_tokens_at_sixteen_bits_give_the_plain_logits(version):
    model, ids = small(), ids_of(2, 50)
    plain = walk(model, ids, 20)
    assert torch.equal(walk(zipvl(copy.deepcopy(model), tau=1.0, high_bits=16), ids, 20), plain)
    model.requires_grad_(False)
    for block in model.blocks:  # without the shortcut: everything goes through the method's own cache
        block.attention.keeper = file.ZipKeeper(1.0, 16, None if version == "v2" else 16, 12, 8, 8)
    assert torch.allclose(walk(model, ids, 20), plain, atol=1e-4)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_cache_bytes_are_the_closed_form_across_packings(version):
    model = zipvl(small(layers=1), tau=0.7, version=version, high_bits=4, low_bits=2, **FEW)
    recents = []

    def check(tokens, cache):
        kept = cache.kept[0]
        high, rest = kept.old.high[0].codes.shape[2], kept.old.rest[0].codes.shape[2] if kept.old.rest else 0
        assert kept.count == high + rest
        assert version == "v2" or kept.count + kept.recent.used == tokens
        per_token = 2 * 2 * 2 * 2  # scale and minimum of two bytes, per key head, for key and value
        packed = high * (2 * 2 * 8 + per_token) + rest * (2 * 2 * 4 + per_token)
        plain = kept.recent.used * 2 * 2 * 16 * 4
        counts = kept.mass.numel() * 4 + kept.queries.numel() * 4
        assert model.cache_bytes(cache) == packed + plain + counts
        recents.append(kept.recent.used)

    walk(model, ids_of(1, 60), 30, check)
    assert max(recents) == 11 and recents.count(0) == 3
    assert model.cache_bits()["nominal"] < 4


def test_savings_are_those_of_the_brief():
    assert round(100 * file.attention_saving(0.421), 1) == 82.3
    assert file.nominal_bits(0.5) == 3.0 and file.nominal_bits(0.5, 4, 0) == 2.0


def test_a_chunk_of_tokens_sees_what_single_steps_see():
    model, ids = zipvl(small(), tau=0.8, **FEW), ids_of(2, 40)
    with torch.no_grad():
        _, cache = model.prefill(ids[:, :34])
        together, _ = model.decode(ids[:, 34:], cache)
    assert torch.allclose(together, walk(model, ids, 34)[:, -1], atol=1e-4)
