"""Sparse spectral training: gradients, sampling, rounds, and the ledger of its bytes."""

import copy

import pytest
import torch
from torch import nn

from suites.common.decoder import decoder
from suites.common.gpt import gpt
from suites.common.lora import LoraLinear
from suites.lowrank import spectral as sp
from suites.lowrank.sst import GaLore, galore, lora, relora, sst


@pytest.fixture(params=[(10, 6), (6, 10), (8, 8)])
def pair(request):
    plain = nn.Linear(*request.param).double()
    return plain, sp.SpectralLinear(plain, 3)


def test_outputs_and_input_gradients_are_those_of_the_plain_map(pair):
    plain, spectral = pair
    x = torch.randn(4, plain.in_features, dtype=torch.double)
    grads = []
    for part in (plain, spectral):
        own = x.clone().requires_grad_()
        out = part(own)
        out.square().sum().backward()
        grads.append(own.grad)
        torch.testing.assert_close(out, plain(x))
    torch.testing.assert_close(*grads)


def test_gradients_of_vectors_leave_out_the_singular_value_and_that_of_s_does_not(pair):
    plain, spectral = pair
    x = torch.randn(4, plain.in_features, dtype=torch.double)
    for part in (plain, spectral):
        part(x).square().sum().backward()
    g = plain.weight.grad
    torch.testing.assert_close(spectral.u_active.grad, (g @ spectral.v_active.mT).mT)
    torch.testing.assert_close(spectral.v_active.grad, (g.mT @ spectral.u_active.mT).mT)
    u, v = torch.cat([spectral.u_active, spectral.u_frozen]), torch.cat([spectral.v_active, spectral.v_frozen])
    torch.testing.assert_close(spectral.s.grad, (u @ g @ v.mT).diagonal())


def test_sampling_and_a_new_svd_leave_the_weight_as_it_is(pair):
    plain, spectral = pair
    for change in (spectral.choose, spectral.again, spectral.choose):
        change()
        torch.testing.assert_close(spectral.merged().weight, plain.weight, rtol=1e-5, atol=1e-7)


def test_within_an_iteration_frozen_vectors_stay_bit_for_bit_and_active_ones_move_and_are_unit():
    model = sst(gpt(width=16, layers=1, heads=2, hidden=24, vocabulary=13, context=6), rank=4, iteration=3)
    optimizer = model.make_optimizer()
    layer = model.blocks[0].network.fc1
    ids = torch.randint(13, (2, 6))
    frozen, active = layer.u_frozen.detach().clone(), layer.u_active.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        model(ids).square().mean().backward()
        optimizer.step()
    assert torch.equal(layer.u_frozen, frozen) and not torch.equal(layer.u_active, active)
    torch.testing.assert_close(layer.u_active.norm(dim=1), torch.ones(4))
    assert (layer.s >= 0).all()
    assert layer.u_active in optimizer.state and layer.u_frozen not in optimizer.state
    model(ids).square().mean().backward()
    optimizer.step()  # the third step ends the iteration: another sample, no state of it
    assert layer.u_active not in optimizer.state


def test_the_first_iteration_samples_its_triplets_as_well():
    """At r = 2 of 40 the two largest are drawn together in about one of 800 times; W stays as it is."""
    layer = sp.SpectralLinear(nn.Linear(40, 40, bias=False), 2)
    largest, weight = layer.s[:2].clone(), layer.merged().weight.clone()
    optimizer = sp.SpectralAdamW(layer, 1e-3, iteration=5)
    assert torch.equal(layer.s[:2], largest)  # a step that is timed, not learned from
    optimizer.begin()
    assert not torch.equal(layer.s[:2].sort().values, largest.sort().values)
    torch.testing.assert_close(layer.merged().weight, weight, rtol=1e-4, atol=1e-5)


def test_every_triplet_trains_where_the_rank_is_full():
    plain = nn.Linear(6, 5)
    spectral = sp.SpectralLinear(plain, 5)
    assert spectral.u_frozen.numel() == 0
    x = torch.randn(3, 6)
    torch.testing.assert_close(spectral(x), plain(x), rtol=1e-4, atol=1e-5)


def test_trained_values_are_those_of_the_check_cases():
    with torch.device("meta"):
        model = decoder(width=2048, layers=24, heads=32, hidden=5461, vocabulary=32_000)
        assert sum(p.numel() for p in model.parameters()) == 1_339_082_752
        sst(model, rank=128)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 251_051_008
    assert sp.trained_values(6, 10, 3) == 3 * 16 + 6
    assert sp.stored_values(10, 6) == 36 + 6 + 60


def test_opt_125m_trains_51_of_125_million():
    pytest.importorskip("transformers")
    from suites.common.hf_bridge import released_decoder

    with torch.device("meta"):
        model = sst(released_decoder(name="opt_125m"), rank=64)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 50_976_768


def test_the_ledger_says_where_it_pays():
    m = 96
    assert sp.step_bytes(m, m) == 16 * m * m
    assert sp.step_bytes(m, m, 8) == 4 * (2 * m * m + m) + 12 * (2 * 8 * m + m)
    assert sp.step_bytes(m, m, 30) < sp.step_bytes(m, m) < sp.step_bytes(m, m, 33)


def test_the_bytes_of_a_step_are_the_ledgers():
    from bench import measure  # noqa: F401 - the door that users take

    linear = nn.Linear(16, 24, bias=False)
    layer = sp.SpectralLinear(linear, 3)
    optimizer = sp.SpectralAdamW(layer, 1e-3, iteration=10)
    layer(torch.randn(2, 16)).sum().backward()
    optimizer.step()
    weights = sum(p.numel() for p in layer.parameters())
    grads = sum(p.grad.numel() for p in layer.parameters() if p.grad is not None)
    moments = sum(v.numel() for state in optimizer.state.values() for v in state.values() if v.dim())
    assert 4 * (weights + grads + moments) == sp.step_bytes(24, 16, 3)


@pytest.mark.parametrize("method", [sst, lora, relora, galore])
def test_a_method_that_has_not_learned_yet_is_the_plain_network(method):
    plain = gpt(width=16, layers=2, heads=2, hidden=24, vocabulary=13, context=6)
    ids = torch.randint(13, (2, 6))
    with torch.no_grad():
        torch.testing.assert_close(method(copy.deepcopy(plain), rank=4)(ids), plain(ids), rtol=1e-4, atol=1e-5)


def test_a_melted_product_leaves_the_outputs_as_they_are():
    part = LoraLinear(nn.Linear(7, 5), 2, 8.0)
    nn.init.normal_(part.b)
    x = torch.randn(3, 7)
    with torch.no_grad():
        before = part(x)
        part.melt()
        torch.testing.assert_close(part(x), before, rtol=1e-4, atol=1e-5)
    assert not part.b.any()


def test_galore_at_a_rank_of_no_reduction_is_adam_and_below_keeps_small_moments():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 4))
    twin = copy.deepcopy(model)
    ours = GaLore(model, 1e-2, rank=8, refresh=2, scale=0.25)  # no side is above 8: nothing is projected
    theirs = torch.optim.AdamW(twin.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.05)
    for _ in range(3):
        x = torch.randn(5, 6)
        for net, optimizer in ((model, ours), (twin, theirs)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(model[0].weight, twin[0].weight, rtol=1e-5, atol=1e-6)
    small = GaLore(model, 1e-2, rank=2, refresh=2, scale=0.25)
    model(torch.randn(5, 6)).sum().backward()
    small.step()
    assert small.state[model[0].weight]["first"].shape == (2, 6)
