"""Masks that move, one threshold for all convolutions, and gates of channels and layers that leave the same network."""

import copy

import pytest
import torch
from torch import nn

from suites.common.digits_resnet import digits_resnet
from suites.common.digits_vit import digits_vit
from suites.common.mlp import digits_mlp
from suites.pruning.global_magnitude import global_magnitude
from suites.pruning.lottery import lottery, next_masks
from suites.pruning.nets.gpt import gpt
from suites.pruning.polarization import Gated, Partial, freeze, gated_blocks, polarization
from suites.pruning.rigl import regrown, rigl
from suites.pruning.sparse_ift import resnet18_cifar
from suites.pruning.transformers import Nothing, blocks_of
from suites.pruning.vtrans import Gates, _absorbed, apply_gates, living, share_of
from tests.suites.pruning.test_learning import lesson


def test_one_threshold_takes_its_share_of_all_convolutions_and_no_linear_weight():
    weights = {"a": torch.tensor([[0.1, 0.2, 0.3, 0.9]]), "b": torch.tensor([[1.0, 2.0], [3.0, 0.25]])}
    masks = next_masks(weights, {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}, 0.5)
    assert masks["a"].tolist() == [[False, False, False, True]]
    assert masks["b"].tolist() == [[True, True], [True, False]]
    torch.manual_seed(0)
    model = lottery(digits_resnet(width=4, resolution=8), rounds=2, steps=0, conv_rate=0.2, scope="global")
    convolutions = [part.weight for part in model.modules() if isinstance(part, nn.Conv2d)]
    total = sum(weight.numel() for weight in convolutions)
    first = total - int(0.2 * total)
    assert sum(int((weight != 0).sum()) for weight in convolutions) == first - int(0.2 * first)
    assert bool((model.head.weight != 0).all())
    with pytest.raises(ValueError, match="scope='global'"):
        lottery(digits_mlp(widths=[8], resolution=8), rounds=1, steps=0, scope="global")


def test_a_threshold_over_all_convolutions_takes_a_fifth_where_nothing_else_is_said():
    torch.manual_seed(0)
    model = lottery(digits_resnet(width=4, resolution=8), rounds=1, steps=0, scope="global")
    convolutions = [part.weight for part in model.modules() if isinstance(part, nn.Conv2d)]
    total = sum(weight.numel() for weight in convolutions)
    assert sum(int((weight != 0).sum()) for weight in convolutions) == total - total // 5


def test_the_smallest_leave_and_the_steepest_grow():
    weight = torch.tensor([3.0, 0.1, 2.0, 0.0, 0.0, 0.0])
    mask = torch.tensor([True, True, True, False, False, False])
    assert regrown(weight, mask, torch.tensor([9.0, 0.0, 9.0, 1.0, 5.0, 2.0]), 0.34).tolist() == [1, 0, 1, 0, 1, 0]
    # what left may come back where its gradient is the largest
    assert regrown(weight, mask, torch.tensor([0.0, 7.0, 0.0, 1.0, 5.0, 2.0]), 0.34).tolist() == mask.tolist()


@pytest.mark.parametrize("prune", [
    lambda model: lottery(model, rounds=2, steps=0, workload="training_step"),
    lambda model: global_magnitude(model, sparsity=0.5, workload="training_step"),
])  # fmt: skip
def test_a_step_of_training_leaves_dropped_weights_where_they_are(prune):
    torch.manual_seed(0)
    model = prune(digits_mlp(widths=[16, 8], resolution=8))
    model(*model.example_inputs(3)).square().sum().backward()
    for layer in model.layers:
        gone = layer.weight == 0
        assert bool(gone.any()) and not bool(layer.weight.grad[gone].any()) and bool(layer.weight.grad.any())
        assert layer.weight_counts["trained"] == layer.weight_counts["nonzero"]


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_masks_that_move_keep_their_density_and_static_ones_stay(drop):
    model = digits_mlp(widths=[16, 8], resolution=8)
    before = [layer.held.clone() for layer in list(rigl(copy.deepcopy(model), density=0.3).layers)[1:]]
    model.task = lesson(model)
    found = rigl(model, density=0.3, steps=9, every=2, drop=drop)
    assert bool((found.layers[0].weight != 0).all())
    moved = 0
    for layer, first in zip(list(found.layers)[1:], before, strict=True):
        assert int(layer.held.sum()) == first.numel() - int(0.7 * first.numel())
        assert not bool(layer.weight[~layer.held].any())
        moved += int((layer.held != first).sum())
    assert (moved > 0) == (drop > 0)


def test_masks_of_sparse_ift_move_and_a_plain_network_has_none():
    torch.manual_seed(0)
    model = resnet18_cifar(family="wide", sparsity=0.5, width=4, blocks=[1, 1], classes=10, resolution=8, channels=1)
    first = {name: layer.held.clone() for name, layer in model.sparse().items()}
    model.task = lesson(model)
    found = rigl(model, steps=6, every=2, drop=0.5)
    for name, layer in found.sparse().items():
        assert int((layer.weight != 0).sum()) <= int(layer.held.sum()) == int(first[name].sum())
    assert any(not torch.equal(layer.held, first[name]) for name, layer in found.sparse().items())
    with pytest.raises(ValueError, match="set density"):
        rigl(digits_mlp(widths=[8], resolution=8))


def test_closed_channels_leave_the_network_that_their_gates_made():
    torch.manual_seed(0)
    model = digits_resnet(width=4, blocks=2, resolution=8)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    gated = polarization(model, per="channel", steps=0, tuning=0, frozen=False)
    names, means = [name for name, part in gated.named_modules() if isinstance(part, Gated)], []
    for place, name in enumerate(names):
        gate = gated.get_submodule(name).gate
        places = torch.arange(gate.second.out_features)
        means.append((places % (place + 1) == 0).float() if place < 2 else 0.0 * places)  # all, every second, none
        with torch.no_grad():
            gate.second.weight.zero_()
            gate.second.bias.copy_(20 * means[-1] - 10)
    x = gated.example_inputs(3)
    with torch.no_grad():
        wanted = gated(*x)
        freeze(gated, names, torch.cat(means))
        assert torch.allclose(gated(*x), wanted, atol=1e-6)
    kinds = [type(gated.get_submodule(name)).__name__ for name in names]
    assert kinds == ["BasicBlock", "Partial", "Closed", "Closed"]
    assert isinstance(gated.get_submodule(names[1]), Partial) and gated_blocks(gated) == names[:1]


@pytest.mark.parametrize("build", [
    lambda: gpt(width=16, layers=3, heads=2, vocabulary=11, length=12),
    lambda: digits_vit(width=16, heads=2, depth=3, resolution=8),
])  # fmt: skip
def test_a_closed_layer_goes_and_leaves_its_last_bias(build):
    torch.manual_seed(0)
    model = build()
    blocks = blocks_of(model, "test")
    gates = Gates(model, blocks).eval()
    with torch.no_grad():
        for gate in gates.every():
            gate.mu.fill_(1.0)
        gates.layers.logvar[[0, 3]] = 3.0  # attention of the first block, MLP of the second
    x = model.example_inputs(2)
    with torch.no_grad():
        blocks[0].attn.head_gate = torch.zeros(2)
        blocks[1].mlp.gate = torch.zeros(64)
        wanted = model(*x)
        apply_gates(model, blocks, _absorbed(model, blocks, gates, 1.0, hidden=True))
        assert torch.allclose(model(*x), wanted, atol=1e-5)
    assert isinstance(blocks[0].attn, Nothing) and not hasattr(blocks[1].mlp, "fc1")
    assert float(gates.size(blocks_of(build(), "test")).detach()) == pytest.approx(1 - (1 / 3 + 2 / 3) / 3, abs=1e-3)


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("hidden", [True, False])
def test_units_are_closed_by_their_noise_down_to_the_target(keep, hidden):
    torch.manual_seed(0)
    model = digits_vit(width=16, heads=4, depth=2, resolution=8)
    blocks = blocks_of(model, "test")
    gates = Gates(model, blocks)
    with torch.no_grad():
        gates.layers.logvar.fill_(-20.0)  # a layer is a third of this network
    lives = living(gates, blocks, keep, hidden)
    assert keep - 0.1 < share_of(blocks, lives) <= keep
    assert bool(lives["hidden"].all()) or hidden
    noise = {name: site.noise().detach() for name, site in gates.sites().items()}
    kept = max(float(noise[name][mask].max()) for name, mask in lives.items() if name != "hidden" or hidden)
    gone = [noise[name][~mask] for name, mask in lives.items()]
    assert min(float(each.min()) for each in gone if len(each)) >= kept - 1e-6 or any(
        m.sum() == 1 for m in lives.values()
    )
    before = sum(p.numel() for p in blocks[0].parameters())
    apply_gates(model, blocks, _absorbed(model, blocks, gates.eval(), keep, hidden))
    assert sum(p.numel() for p in model.blocks[0].parameters()) < before
