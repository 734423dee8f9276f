"""LPViT: its curves, what the power term does to an allocation, whole blocks, and tuning that leaves zeros alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from suites.common.digits_vit import digits_vit
from suites.pruning.layers import prunable
from suites.pruning.lpvit import _gradients, curve, equal_slopes, lpvit, whole_blocks
from suites.pruning.structures import blocks
from tests.suites.pruning.test_learning import lesson


def transformer(task=True):
    torch.manual_seed(0)
    model = digits_vit(width=16, heads=2, depth=2, resolution=8, mlp_ratio=2.0)
    if task:
        model.task = lesson(model)
    return model


def zeros(model):
    return {name: int((layer.weight == 0).sum()) for name, layer in prunable(model, "test").items()}


def test_curves_rise_and_layers_meet_the_target():
    torch.manual_seed(0)
    weight, gradient = torch.randn(32, 32), torch.randn(32, 32)
    bend = curve(weight, gradient, (weight * gradient).abs(), (8, 8))
    assert float(bend[0]) == 0
    assert float(bend.max()) > 0
    rates = equal_slopes([bend, 10 * bend], [0.0, 0.0], [1024, 1024], 0.5)
    assert sum(rates) / 2 == pytest.approx(0.5, abs=1e-6)
    assert rates[0] > rates[1]
    assert max(rates) <= 0.95


def test_a_curve_is_its_formula_point_by_point():
    torch.manual_seed(0)
    weight, gradient = torch.randn(16, 24).double(), torch.randn(16, 24).double()
    score = (weight * gradient).abs()
    found, smooth = curve(weight, gradient, score, (4, 8)), 0.0
    for point in range(1, 101):
        gone = ~blocks(score, (4, 8), point / 100 if point < 100 else 0.0, gone=12 * point // 100).mask
        change = -(weight * gone)
        value = (change * gradient).square().mean() + 0.5 * ((change * gradient).sum() ** 2 + 1e-7 * change.norm() ** 2)
        smooth = 0.9 * smooth + 0.1 * float(value)
        assert float(found[point]) == pytest.approx(smooth, rel=1e-9)


def test_the_power_term_takes_large_layers_whatever_they_distort():
    """Its slope is a layer's size, beta follows the steepest layer: with one steep layer it outweighs all others."""
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    bends, sizes = [grid**2, 0.1 * grid**2, 100 * grid**2], [3000, 1000, 1000]
    plain = equal_slopes(bends, [0.0] * 3, sizes, 0.5)
    powered = equal_slopes(bends, [size / 100 for size in sizes], sizes, 0.5)
    assert plain[1] == pytest.approx(0.95)  # where least is bent goes most
    assert powered[0] > 0.8 > plain[0]
    assert powered[1] == 0.0


@given(st.lists(st.tuples(st.floats(0, 0.95), st.integers(1, 60)), min_size=1, max_size=9))
def test_whole_blocks_are_as_many_as_asked_for_and_near_their_shares(layers):
    rates = {str(i): rate for i, (rate, _) in enumerate(layers)}
    number = {str(i): count for i, (_, count) in enumerate(layers)}
    wanted = int(sum(rates[name] * number[name] for name in rates))
    found = whole_blocks(rates, number, wanted)
    assert sum(found.values()) == wanted
    assert all(abs(found[name] - rates[name] * number[name]) < 1 + 1e-6 for name in rates)


@pytest.mark.parametrize("allocation", ["curves", "uniform"])
@pytest.mark.parametrize("block", [[8, 8], [4, 8], [16, 2]])
def test_the_sparsity_is_met_to_the_block_and_the_patches_take_part(allocation, block):
    model = lpvit(transformer(), sparsity=0.5, block=block, allocation=allocation, samples=8, kernel="mask")
    gone, size = zeros(model), block[0] * block[1]
    assert gone.pop("head") == 0  # of ten outputs
    assert gone["patch_embed.proj"] > 0
    assert sum(gone.values()) == sum(prunable(model, "test")[name].weight.numel() for name in gone) // 2 // size * size


def test_gradients_are_those_of_all_samples_at_once():
    model = transformer()
    layers = prunable(model, "test", lambda _, layer: isinstance(layer, nn.Linear))
    found = _gradients(model, layers, 100)  # in parts of 64 and 36
    inputs, _ = next(iter(model.task.training_batches(100, 1, 0)))
    wanted = torch.autograd.grad(model(inputs).square().mean(), [layer.weight for layer in layers.values()])
    for one, other in zip(found.values(), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_tuning_holds_the_blocks_and_moves_the_rest():
    plain, tuned = (
        lpvit(transformer(), block=[8, 8], samples=8, steps=steps, kernel="mask", allocation="uniform")
        for steps in (0, 3)
    )
    for name, layer in prunable(plain, "test").items():
        other = tuned.get_submodule(name)
        assert torch.equal(layer.weight == 0, other.weight == 0)
        assert not torch.equal(layer.weight, other.weight)


def test_tuning_asks_for_a_task_and_blocks_for_a_layer_that_they_divide():
    with pytest.raises(ValueError, match="learns from data"):
        lpvit(transformer(task=False), block=[8, 8], allocation="uniform", steps=3)
    with pytest.raises(ValueError, match=r"lpvit\(block=\[7, 7\]\)"):
        lpvit(transformer(), block=[7, 7])
