"""Merged experts: permutations, identities, groups, and the sizes that are printed."""

import copy
import importlib

import pytest
import torch

from suites.common.hf_bridge import import_transformers
from suites.lowrank import expert_merging as em
from suites.lowrank import mc_smoe as mc
from suites.lowrank.switch import bucket, parameters, switch

BASE = {"width": 768, "heads": 12, "hidden": 3072, "experts": 32, "layers": 12, "vocabulary": 32_128}


@pytest.fixture
def model():
    return switch(width=32, heads=4, hidden=48, experts=4, layers=4, vocabulary=50, length=12)


IDS = torch.randint(50, (2, 11), generator=torch.Generator().manual_seed(0))


def values(module):
    return sum(p.numel() for p in module.parameters())


def close(a, b):
    with torch.no_grad():
        torch.testing.assert_close(a(IDS), b(IDS), rtol=1e-4, atol=1e-4)


def test_as_many_groups_as_experts_are_the_full_model(model):
    merged = mc.m_smoe(copy.deepcopy(model), mean_groups=4)
    close(merged, model)
    assert values(merged) == values(model)


def test_a_permutation_of_hidden_units_changes_nothing(model):
    permuted = copy.deepcopy(model)
    for _, mixture in permuted.mixtures():
        for expert in mixture.experts:
            em.permute(expert, torch.randperm(48))
    close(permuted, model)


def test_alignment_finds_a_permutation_again(model):
    _, mixture = model.mixtures()[1]
    order = torch.randperm(48)
    mixture.experts[1] = copy.deepcopy(mixture.experts[0])
    em.permute(mixture.experts[1], order)
    em.align(mixture)
    assert torch.equal(mixture.experts[1].wi.weight, mixture.experts[0].wi.weight)
    assert torch.equal(mixture.experts[1].wo.weight, mixture.experts[0].wo.weight)


def test_identical_experts_merge_to_themselves(model):
    for mixture in em.merged_mixtures(model):
        for place in range(1, 4):
            mixture.experts[place] = copy.deepcopy(mixture.experts[0])
            em.permute(mixture.experts[place], torch.randperm(48))
    close(mc.m_smoe(copy.deepcopy(model), mean_groups=1), model)


@pytest.mark.parametrize("rank, kept", [(8, 1.0), (32, 0.0)])
def test_all_rows_or_full_rank_reproduce_the_experts(model, rank, kept):
    close(mc.mc_smoe(copy.deepcopy(model), mean_groups=4, rank=rank, kept_rows=kept), model)


def test_groups_are_shared_out_over_mixtures_and_each_has_one():
    uses = [em.Use(torch.tensor([90.0, 6, 3, 1]), torch.eye(4)), em.Use(torch.tensor([25.0, 24, 26, 25]), torch.eye(4))]
    groups = em.grouping(uses, 2)
    assert sorted(set(groups[0])) == [0]  # 0.90; the next of this mixture, 0.06, comes after all of the other
    assert sorted(set(groups[1])) == [0, 2, 3]  # 0.26, and the first two of 0.25


def test_an_expert_joins_the_dominant_one_of_the_most_similar_logits():
    logits = torch.tensor([[1.0, 0, 0.9], [0, 1.0, 0.1], [0.9, 0.1, 1.0]])
    groups = em.grouping([em.Use(torch.tensor([5.0, 4, 1]), logits)], 2)
    assert groups == [[0, 1, 0]]


def test_a_merged_expert_is_the_mean_weighted_by_use(model):
    mixture = em.merged_mixtures(model)[0]
    em.align(mixture)
    first, second = (mixture.experts[place].wi.weight.detach().clone() for place in (0, 1))
    order = em.assignment(em.units(mixture.experts[0]), em.units(mixture.experts[1]))
    em.merge(mixture, [0, 0, 2, 3], torch.tensor([3.0, 1, 1, 1]))
    torch.testing.assert_close(mixture.experts[0].wi.weight, 0.75 * first + 0.25 * second[order])
    assert mixture.alias.tolist() == [0, 0, 1, 2] and len(mixture.experts) == 3


def test_sizes_are_those_of_the_check_cases():
    assert parameters(**BASE) == 1_978_514_688
    with torch.device("meta"):
        full = switch()
        assert values(full) == 1_978_514_688
        assert values(mc.m_smoe(full, mean_groups=8)) == 732_806_400
        compressed = mc.mc_smoe(switch(), mean_groups=8, rank=32, kept_rows=0.1)
    expert = mc.expert_values(768, 3072, 32, 0.1)
    assert expert == 718_080  # 717,619 with a tenth of a row's part; whole rows are 307 of 3072 and 77 of 768
    assert values(compressed) == 732_806_400 - 88 * (2 * 768 * 3072 - expert)
    assert 1 - values(compressed) / 1_978_514_688 == pytest.approx(0.808, abs=5e-4)


def test_rows_leave_on_a_cubic_schedule():
    assert mc.cubic_share(0, 10, 0.1) == 1.0
    assert mc.cubic_share(10, 10, 0.1) == 0.1
    assert mc.cubic_share(5, 10, 0.1) == pytest.approx(0.1 + 0.9 / 8)


def test_it_writes_through_its_cache_what_it_says_at_once(model):
    with torch.no_grad():
        whole = model(IDS)
        said, cache = model.prefill(IDS[:, :6])
        torch.testing.assert_close(said, whole[:, 5], rtol=1e-4, atol=1e-4)
        for place in range(6, 11):
            said, cache = model.decode(IDS[:, place : place + 1], cache)
            torch.testing.assert_close(said, whole[:, place], rtol=1e-4, atol=1e-4)
        assert not whole[:, :5].any()


def test_what_comes_later_changes_nothing_before(model):
    other = IDS.clone()
    other[:, 8] = (other[:, 8] + 1) % 50
    with torch.no_grad():
        torch.testing.assert_close(model(IDS)[:, :8], model(other)[:, :8], rtol=1e-4, atol=1e-4)


def test_buckets_are_those_of_transformers():
    import_transformers()
    t5 = importlib.import_module("transformers.models.t5.modeling_t5")
    distance = torch.arange(-200, 201)[None]
    for both in (True, False):
        theirs = t5.T5Attention._relative_position_bucket(distance, bidirectional=both)
        assert torch.equal(bucket(distance, both), theirs)
