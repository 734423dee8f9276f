"""Scores, proximal steps, gates and schedules by hand; methods that learn reach what they aim at."""

import copy
import math

import pytest
import torch
from torch import nn

from suites.common.digits_vit import digits_vit
from suites.common.mlp import digits_mlp
from suites.pruning import scores
from suites.pruning.ecoflap import kept_by_block
from suites.pruning.lottery import next_mask
from suites.pruning.nm_flow import Flow, decay_at, nm_flow, patterns_of, state_at
from suites.pruning.optin import distortions, optin, selected, tokens_of
from suites.pruning.polarization import polarity
from suites.pruning.spa import full_numbers, learned_numbers, task_bytes
from suites.pruning.sparse_ift import resnet18_cifar
from suites.pruning.spdf import spdf
from suites.pruning.ssvi import Variational, mean_size, regrow, signal_to_noise, ssvi, watch
from suites.pruning.structures import n_of_m
from suites.pruning.transformers import blocks_of
from suites.pruning.vtrans import Bottleneck
from suites.pruning.wgsef import _step, group_lasso, open_shares, prox, wgsef
from suites.pruning.yolo_slimming import channel_divergence, gain_rate


def test_prox_of_the_envelope_by_hand():
    groups = torch.tensor([[3.0], [2.0], [1.0]])
    assert torch.allclose(prox(groups, 2, 1.0), torch.tensor([[1.5], [1.0], [0.0]]), atol=1e-5)
    assert torch.allclose(prox(groups, 1, 1.0), torch.tensor([[4 / 3], [1 / 3], [0.0]]), atol=1e-5)
    assert torch.allclose(prox(groups, 3, 1.0), groups / 2)


def test_prox_minimises_its_objective():
    torch.manual_seed(0)
    groups, d, k, strength = torch.randn(5, 3), torch.rand(5) + 0.5, 2, 0.7
    found = prox(groups, k, strength, d)

    def penalty(x):
        norms = x.norm(dim=1)
        if int((norms > 0).sum()) <= k:
            return 0.5 * (norms.square() * d).sum()
        u = _best_u(norms * d.sqrt(), k)
        return 0.5 * (norms.square() * d / u.clamp(min=1e-9)).sum()

    def objective(x):
        return 0.5 * (x - groups).square().sum() + strength * penalty(x)

    best = float(objective(found))
    for _ in range(200):
        assert float(objective(found * (1 + 0.05 * torch.randn_like(found)))) >= best - 1e-4


def _best_u(v, k):
    """u that minimises sum v^2 / u with 0 <= u <= 1 and sum k: clip(alpha v, 0, 1)."""
    low, high = 0.0, 1e6
    for _ in range(100):
        alpha = (low + high) / 2
        low, high = (alpha, high) if float((alpha * v).clamp(max=1).sum()) < k else (low, alpha)
    return (high * v).clamp(max=1)


def test_open_shares_sum_to_k_and_lasso_shrinks():
    shares = open_shares(torch.tensor([3.0, 2.0, 1.0, 0.0]), 2, 0.5, torch.ones(4))
    assert float(shares.sum()) == pytest.approx(2, abs=1e-4)
    assert float(shares[3]) == 0
    assert torch.allclose(
        group_lasso(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0), torch.tensor([[2.4, 3.2], [0.0, 0.0]])
    )


def test_signal_to_noise_by_hand_and_by_sampling():
    mu, sigma = torch.tensor(0.1), torch.tensor(0.2)
    assert float(mean_size(mu, sigma)) == pytest.approx(0.17912, abs=1e-5)
    assert float(signal_to_noise(mu, sigma)) == pytest.approx(1.33818, abs=1e-5)
    torch.manual_seed(0)
    drawn = (mu + sigma * torch.randn(200_000)).abs()
    assert float(drawn.mean() / drawn.std()) == pytest.approx(1.338, abs=0.01)


def test_without_deviation_the_sparse_network_is_left():
    torch.manual_seed(0)
    model = ssvi(digits_mlp(widths=[16, 8], resolution=8), density=0.2)
    x = model.example_inputs(3)
    with torch.no_grad():
        wanted = model(*x)
        for part in model.modules():
            if isinstance(part, Variational):
                part.raw.fill_(-100.0)
                part.sampling = True
        assert torch.allclose(model(*x), wanted, atol=1e-4)


def test_regrowing_keeps_the_number_and_starts_at_zero():
    torch.manual_seed(0)
    layer = Variational(nn.Linear(20, 10), (torch.rand(10, 20) < 0.2).float())
    before, count = layer.mask.clone(), int(layer.mask.sum())
    layer.mean.grad = torch.randn_like(layer.mean)
    moved = regrow(layer, 0.3)
    assert moved == int(0.3 * count)
    assert int(layer.mask.sum()) == count
    new = (layer.mask == 1) & (before == 0)
    assert int(new.sum()) == moved
    assert not bool(layer.mean[new].any())


def test_weights_grow_where_the_loss_asks_for_them():
    """Outputs summed over x = (1, 2, -5) have the gradient (1, 2, -5) by the means, of absent weights as well."""
    layer = Variational(nn.Linear(3, 1, bias=False), torch.tensor([[1.0, 0.0, 0.0]]))
    x = torch.tensor([[1.0, 2.0, -5.0]])
    watch([layer], lambda: layer(x).sum())
    assert torch.allclose(layer.mean.grad, x)
    assert regrow(layer, 1.0) == 1
    assert layer.mask.tolist() == [[0, 0, 1]]
    layer(x).sum().backward()  # while it learns, absent weights have none
    assert layer.mean.grad[0, :2].tolist() == [1.0, 2.0]  # left from before
    assert float(layer.mean.grad[0, 2]) == -10.0


def test_drawn_weights_are_shared_by_a_batch_and_absent_ones_stay_zero():
    torch.manual_seed(0)
    layer = Variational(nn.Linear(3, 2, bias=False), torch.tensor([[1.0, 0.0, 1.0]] * 2), sigma=0.5).eval()
    layer.sampling = True
    with torch.no_grad():
        drawn = layer(torch.eye(3))  # the columns of one weight
        assert not bool(drawn[1].any())
        assert not torch.allclose(drawn.t(), layer.mean * layer.mask)
        same = layer(torch.ones(4, 3))
        assert torch.allclose(same, same[:1].expand(4, -1))


def test_beta_rank_is_l1_where_deviations_are_equal():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(6)[:, :4, None, None] * torch.arange(1.0, 7)[:, None, None, None])
        conv.weight[4:] = 0
    x = torch.randn(256, 4, 3, 3)
    rank = scores.beta_rank(conv, x)
    # |W| = k at one input of deviation 1 gives k x k: the order of L1
    assert rank[:4].argsort().tolist() == [0, 1, 2, 3]
    assert float(rank[4]) == 0
    window = scores.window_deviation(conv, x)
    assert torch.allclose(window, x.transpose(0, 1).flatten(0, 1).std(0, unbiased=False), atol=1e-5)
    assert scores.beta_rank(conv, torch.zeros(2, 4, 3, 3)).tolist() == [0.0] * 6


def test_windows_as_released_are_cut_from_channels_and_rows():
    """Place (y, x) takes channel y and row x of all columns and images; there is no third channel."""
    conv, x = nn.Conv2d(2, 4, 1), torch.randn(5, 2, 3, 3)
    found = scores.window_deviation(conv, x, as_released=True)
    for channel in range(2):
        for row in range(3):
            assert float(found[channel, row]) == pytest.approx(float(x[:, channel, row].std(unbiased=False)))
    assert found[2].tolist() == [0.0] * 3
    wide = nn.Conv2d(2, 4, 3, padding=1)  # windows of 3 from the padded maps: channels 1.. and rows 1 to 3 at (1, 1)
    padded = nn.functional.pad(x, [1, 1, 1, 1])
    found = scores.window_deviation(wide, x, as_released=True)
    assert float(found[1, 1]) == pytest.approx(float(padded[:, 1:4, 1:4].std(unbiased=False)))


def test_shares_of_groups_and_budgets_are_decimal():
    """0.29 of 100 are 29 and of 200 are 58, although in binary they are a little less."""
    weight = torch.rand(100, 3)
    wanted = prox(weight, 29, 0.5)
    _step(weight, 0.29, 0.5, "envelope")
    assert torch.allclose(weight, wanted)
    ((heads, neurons),) = selected(torch.zeros(1, 1), torch.arange(1.0, 101)[None], (100, 1), 0.29)
    assert (len(heads), len(neurons)) == (0, 58)


def test_wanda_by_hand():
    found = scores.wanda(torch.tensor([[1.0, -2.0]]), torch.tensor([9.0, 1.0]))
    assert found.tolist() == [[3.0, 2.0]]


def test_the_polar_term_is_zero_exactly_where_all_agree():
    assert float(polarity(torch.tensor([0.0, 1.0, 1.0]))) == 0
    assert float(polarity(torch.tensor([0.5, 1.0]))) == pytest.approx(0.125)


def test_lottery_rounds_take_the_smallest_survivors():
    weight = torch.tensor([[0.1, -5.0, 0.2, 3.0, 1.0]])
    mask = torch.tensor([[False, True, True, True, True]])
    assert next_mask(weight, mask, 0.5).tolist() == [[False, True, False, True, False]]


def test_gates_open_and_close_by_noise():
    gate = Bottleneck(3)
    with torch.no_grad():
        gate.mu.copy_(torch.tensor([1.0, 0.5, 0.1]))
        gate.logvar.copy_(torch.tensor([-1.0, -1.5, -1.0]))
    assert (gate.noise() <= 0).tolist() == [True, True, False]
    assert float(gate.divergence().detach()) == pytest.approx(
        0.5 * sum(math.log(1 + m**2 / math.exp(v)) for m, v in ((1, -1), (0.5, -1.5), (0.1, -1)))
    )


def test_flows_of_gradients():
    weight = torch.tensor([[1.0, 0.1, 2.0, 0.2]], requires_grad=True)
    flow = Flow(2, 4)
    assert torch.allclose(flow(weight), weight)
    flow.decay = 0.5
    assert torch.allclose(flow(weight), torch.tensor([[1.0, 0.05, 2.0, 0.1]]))
    flow.decay = 0.0
    assert torch.equal(flow(weight) != 0, n_of_m(weight.detach().abs(), 2, 4).mask)
    flow(weight).sum().backward()
    assert weight.grad.tolist() == [[1.0] * 4]
    flow.pull, weight.grad = 0.5, None
    flow(weight).sum().backward()
    assert torch.allclose(weight.grad, torch.tensor([[1.0, 1.05, 1.0, 1.1]]))


def test_a_step_of_the_flow_masks_forward_and_keeps_every_gradient():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.mlp = nn.Linear(8, 3)
    masked = nm_flow(copy.deepcopy(model), n=2, m=8)
    model = nm_flow(model, n=2, m=8, workload="training_step")
    x = torch.randn(5, 8)
    assert torch.allclose(model(x), masked(x))
    model(x).sum().backward()
    assert torch.allclose(model.mlp.layer.weight.grad, x.sum(0).expand(3, 8))
    assert model.mlp.weight_counts == {"dense": 24, "nonzero": 6, "executed": 24, "returned": 6}


def test_a_step_of_the_envelope_is_one_of_descent_and_the_prox():
    torch.manual_seed(0)
    model = wgsef(digits_mlp(widths=[6], resolution=8), keep=0.5, steps=0, tuning=0, workload="training_step")
    x = model.example_inputs(4)[0]
    model(x).square().mean().backward()
    weight = model.layers[0].weight
    moved = weight.detach() - 0.05 * weight.grad
    last = model.layers[1].weight.detach() - 0.05 * model.layers[1].weight.grad
    model.make_optimizer().step()
    assert torch.allclose(model.layers[0].weight, prox(moved, 3, 0.5 * 0.05), atol=1e-6)
    assert torch.allclose(model.layers[1].weight, last, atol=1e-6)


def test_schedules_end_at_the_pattern():
    assert patterns_of("stepwise", 1, 8) == [(7, 8), (4, 8), (2, 8), (1, 8)]
    assert patterns_of("geometric", 2, 4) == [(16, 32), (8, 16), (4, 8), (2, 4)]
    assert decay_at("linear", 0.0) == 1.0
    assert decay_at("linear", 0.4) == pytest.approx(0.5)
    assert decay_at("exponential", 0.9) == 0.0
    for schedule in ("linear", "exponential", "stepwise", "geometric", "srste"):
        assert state_at(schedule, 0.99, 1, 8)[:3] == (1, 8, 0.0)


def test_importance_sets_what_each_matrix_keeps():
    layers = {f"blocks.{b}.{n}": nn.Linear(10, 10) for b in (0, 1) for n in ("a", "b")}
    keep = kept_by_block(layers, [1.0, 1.0, 3.0, 3.0], 0.5, 0.1)
    assert sum(keep.values()) == 200
    assert keep["blocks.0.a"] + keep["blocks.0.b"] == 90  # 80 at first, 40 more as 2 : 6
    uniform = kept_by_block(layers, [100.0] * 4, 0.5, 0.0)
    assert set(uniform.values()) == {50}
    # int(0.994 x 192) = 190 of 48 + 16 + 64 + 64: 47.5, 15.83, 63.33, 63.33, and no matrix keeps more than it has
    sizes = {"qkv": (4, 12), "proj": (4, 4), "fc1": (4, 16), "fc2": (16, 4)}
    layers = {f"blocks.0.{name}": nn.Linear(*size) for name, size in sizes.items()}
    assert list(kept_by_block(layers, [1.0] * 4, 0.006, 0.1).values()) == [48, 16, 63, 63]


def test_the_budget_buys_heads_and_features():
    heads, neurons = torch.tensor([[5.0, 1.0]]), torch.tensor([[4.0, 3.0, 0.1, 0.1]])
    ((kept_heads, kept_neurons),) = selected(heads, neurons, (20, 10), 0.5)
    assert kept_heads.tolist() == [0]
    assert kept_neurons.tolist() == [0, 1]


def test_a_unit_that_does_nothing_has_no_score():
    torch.manual_seed(0)
    model = digits_vit(width=16, heads=2, depth=2, resolution=8, mlp_ratio=1.0)
    blocks = blocks_of(model, "test")
    with torch.no_grad():
        blocks[0].attn.proj.weight[:, :8] = 0
        blocks[0].mlp.fc2.weight[:, 3] = 0
        for part in model.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(5)
    heads, neurons = distortions(model, blocks, model.example_inputs(4)[0], 1)
    assert float(heads[0, 0]) == pytest.approx(0, abs=1e-6)
    assert float(heads[0, 1]) > 1e-4
    assert float(neurons[0, 3]) == pytest.approx(0, abs=1e-6)


def test_optin_keeps_within_its_budget():
    torch.manual_seed(0)
    model = optin(digits_vit(width=16, heads=2, depth=2, resolution=8), budget=0.5, samples=4)
    tokens = model.tokens
    head, neuron = tokens * (4 * 16 * 8 + 2 * tokens * 8), 2 * tokens * 16
    total = 2 * (2 * head + 64 * neuron)
    left = 0
    for block in model.blocks:
        left += head * getattr(block.attn, "heads", 0)
        left += neuron * (block.mlp.fc1.out_features if hasattr(block.mlp, "fc1") else 0)
    assert left <= 0.5 * total
    assert left > 0.4 * total


def test_optin_prices_heads_at_the_tokens_that_the_network_runs():
    from suites.common.bert import bert
    from suites.pruning.nets.gpt import gpt

    assert tokens_of(bert(width=16, size=8, layers=1, length=200, vocabulary=11)) == 200
    assert tokens_of(gpt(width=16, layers=1, heads=2, vocabulary=11, length=300, tokens=200)) == 200


def test_dropped_weights_get_no_gradient():
    from suites.pruning.nets.gpt import gpt

    torch.manual_seed(0)
    model = gpt(width=16, layers=1, heads=2, vocabulary=11, length=8)
    model = spdf(model, sparsity=0.75, workload="training_step")
    model(model.example_inputs(2)[0]).square().mean().backward()
    layer = model.blocks[0].mlp.fc1
    assert int((layer.weight != 0).sum()) == 1024 - 768
    assert not bool(layer.weight.grad[~layer.held].any())
    assert bool(layer.weight.grad[layer.held].any())
    assert not list(spdf(gpt(width=16, layers=1, heads=2, vocabulary=11, length=8)).buffers())  # a forward holds none


def test_distillation_of_channels():
    x = torch.randn(2, 3, 4, 4)
    assert float(channel_divergence(x, x)) == pytest.approx(0, abs=1e-6)
    assert float(channel_divergence(x, torch.randn_like(x))) > 0
    assert gain_rate(0, 10) == 1e-2
    assert gain_rate(10, 10) == pytest.approx(1e-3)


def test_a_doped_layer_too_narrow_for_a_dense_path_is_refused():
    with pytest.raises(ValueError, match="no product left for a dense path from 4 to 4"):  # 9 x .25 x 16 / 40 = 0.9
        resnet18_cifar(family="doped", sparsity=0.25, width=4, blocks=[1])


def test_numbers_of_a_task():
    assert learned_numbers(256, 512, 32, bias=True) == 25_088
    assert full_numbers([(64, 64, 3)], 0.5) == 9 * 32 * 32
    assert task_bytes([(256, 512, 1)], 32, 512) == 96 + 4 * 25_088
