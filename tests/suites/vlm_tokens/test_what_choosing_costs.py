"""Products of the methods themselves, worked out by what each multiplies; width 24, heads of 12, 1 + 64 + 4 tokens."""

import pytest
import torch

from bench.meters import macs
from suites.vlm_tokens import closed_forms
from suites.vlm_tokens.adatoken import adatoken
from suites.vlm_tokens.aim import aim
from suites.vlm_tokens.controls import fastv, sparsevlm
from suites.vlm_tokens.corematching import corematching
from suites.vlm_tokens.csp import csp
from suites.vlm_tokens.pyramiddrop import pyramiddrop
from suites.vlm_tokens.visiondrop import visiondrop

D, HEAD, TOWER = 24, 12, 65


def cost(reduced, ids):
    return macs.count(reduced, (ids,)).method_macs


@pytest.mark.parametrize("form", ["reuse", "minimal", "released"])
def test_pyramiddrop(make, prompts, form):
    reduced = pyramiddrop(make(), score=form)
    stages = [(64, 32), (32, 16), (16, 8)]
    wanted = sum(closed_forms.last_row_macs(reduced.shape, 5, *stage, form) for stage in stages)
    assert cost(reduced, prompts(reduced.model, batch=1)) == wanted


def test_fastv_is_one_row_and_words_are_a_row_each(make, prompts):
    ids = prompts(make(), batch=1)
    assert cost(fastv(make()), ids) == 69 * D
    counts = [69, 5 + 32, 5 + 16]
    reduced = sparsevlm(make(), kept=[32, 16, 8], cuts=[1, 2, 3])
    assert cost(reduced, ids) == sum(4 * n * D for n in counts)
    assert cost(adatoken(make(), ratios=[1.0, 0.5, 0.25, 0.125]), ids) == sum(4 * n * D for n in counts)


def test_aim_matches_and_ranks(make, prompts):
    reduced = aim(make(), merge=0.25, l1=1, span=2)
    ids = prompts(reduced.model, batch=1)
    assert reduced.plan(69) == [16, 16, 8, 0]
    ranked = sum(closed_forms.aim_pruning_macs(reduced.shape, 5 + n) for n in (16, 8))
    assert cost(reduced, ids) == closed_forms.merging_macs(64, [32, 16], D) + ranked


def test_visiondrop_ranks_in_the_tower_and_in_a_layer(make, prompts):
    reduced = visiondrop(make(), splits=[[20, 4], [10, 2]])
    tower = TOWER * D + (64 - 20 - 4) * 4 * HEAD
    layer = 25 * D * D + 24 * D * D + 24 * 25 * D + (24 - 10 - 2) * 2 * HEAD
    assert cost(reduced, prompts(reduced.model, batch=1)) == tower + layer


def test_corematching_matches_every_token_with_one(make, prompts):
    reduced = corematching(make(), keep=0.5)
    assert cost(reduced, prompts(reduced.model, batch=1)) == 64 * 32


def test_csp_prunes_by_one_row_and_may_ask_the_tower(make, prompts):
    ids = prompts(make(), batch=1)
    pruned = closed_forms.last_row_macs(make().shape, 5, 64, 8)
    assert cost(csp(make()), ids) == pruned
    assert cost(csp(make(), choose="cls"), ids) == pruned + TOWER * D


def test_a_reused_key_is_projected_once(make, prompts):
    """The layer and the method together project the keys of all tokens once, and no more."""
    whole, cut = make(), pyramiddrop(make(), cuts=[3])
    ids = prompts(whole, batch=1)
    plain, found = macs.count(whole, (ids,)), macs.count(cut, (ids,))
    last = {n: n * (4 * D * D + 3 * D * 32) + 2 * n * n * D for n in (69, 37)}
    assert plain.macs - found.macs == last[69] - last[37]
    assert found.method_macs == 32 * D * D + D * D + 69 * D
    assert torch.equal(whole(ids), make()(ids))
