"""Bits under a budget: the programme's check cases, exhaustive search, and HAWQ's order."""

import copy
import random

import pytest
import torch
from torch import nn

from suites.common.digits_resnet import digits_resnet
from suites.common.timm_bridge import timm_model
from suites.quantization.allocate import NoAllocation, allocate, choose, choose_exhaustively
from suites.quantization.hawq import handed_out
from suites.quantization.hawqv3 import (
    RESNET18_TIES,
    assigned_bit_operations,
    assigned_bytes,
    hawqv3,
    int8_ms,
    resnet_layers,
    tied_pairs,
)
from suites.quantization.hawqv3_tables import MS_4, MS_8, sensitivity
from suites.quantization.hessian import hessian_vector, top_eigenvalue, trace
from suites.quantization.lrp_qvit import by_relevance
from suites.quantization.mixdq import mean_bits
from suites.quantization.network import layers_of

WEIGHTS, MACS = resnet_layers(18)


def test_closed_forms_of_resnets():
    assert 1024 * sum(MACS) == 1_857_611_104_256
    for bits, size, operations in (
        ("8" * 19, 11_678_912, 116_100_694_016),
        ("4" * 19, 6_100_160, 34_714_419_200),
        ("8884888848884444444", 6_802_624, 74_174_431_232),
    ):
        assert assigned_bytes(WEIGHTS, bits) == size and assigned_bit_operations(MACS, bits) == operations
    weights, macs = resnet_layers(50)
    bits = "8888888848848884884484884888448448448448488488848848"
    assert assigned_bytes(weights, bits) == 19_324_096 and assigned_bit_operations(macs, bits) == 156_892_135_424
    # whole bytes a layer, ceil(n w / 8): 9 + ceil(3 x 4 / 8) + ceil(5 x 4 / 8) + 7
    assert assigned_bytes([9, 3, 5, 7], "44") == 9 + 2 + 3 + 7


@pytest.mark.parametrize(
    "cost4, cost8, budget, bits, objective",
    [
        ([w / 2 for w in WEIGHTS[1:-1]], WEIGHTS[1:-1], 0.5, "8888888888888884844", -1.233207),
        ([16 * m for m in MACS[1:-1]], [64 * m for m in MACS[1:-1]], 0.5, "8884888848884444444", -1.092024),
        (MS_4, MS_8, 0.25, "8884848444444444444", -0.847289),
    ],
)
def test_the_programme_of_the_published_tables(cost4, cost8, budget, bits, objective):
    found = allocate(sensitivity(), cost4, cost8, RESNET18_TIES, budget)
    assert found.text == bits and found.objective == pytest.approx(objective, abs=1e-6)
    assert found.cost <= sum(cost4) + budget * (sum(cost8) - sum(cost4)) + 1e-9 * sum(cost8)
    assert all(found.bits[a] == found.bits[b] for a, b in RESNET18_TIES)


@pytest.mark.parametrize(
    "settings, bits",
    [
        ({"constraint": "bytes"}, "8888888888888884844"),
        ({"constraint": "bit_operations"}, "8884888848884444444"),
        ({"constraint": "latency", "budget": 0.25}, "8884848444444444444"),
    ],
)
def test_a_resnet18_takes_the_bits_of_the_papers_tables(settings, bits):
    with torch.device("meta"):
        made = hawqv3(timm_model(name="resnet18"), table="resnet18", **settings)
    widths = list(made.widths.values())
    assert "".join(f"{width:g}" for width in widths[1:-1]) == bits and widths[0] == widths[-1] == 8


def test_a_budget_of_time_says_what_cannot_be_timed_here():
    torch.manual_seed(0)
    net = digits_resnet(blocks=1, width=4)
    with pytest.raises(
        NotImplementedError, match=r"in 4 bits, and no CPU .*in 8 bits the inner layers took [\d.e-]+ ms"
    ):
        hawqv3(copy.deepcopy(net), constraint="latency", samples=4)
    with pytest.raises(ValueError, match="19 inner layers of a ResNet-18, and this network has"):
        hawqv3(copy.deepcopy(net), constraint="latency", table="resnet18")
    layers = layers_of(net)
    taken = int8_ms(net, layers, [net.example_inputs(2)])
    assert list(taken) and set(taken) == set(layers) and min(taken.values()) > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_programme_is_as_good_as_trying_everything(seed):
    draw = random.Random(seed)
    layers = 6
    loss = [sorted((draw.random() for _ in range(3)), reverse=True) for _ in range(layers)]
    cost = [[size * width for width in (2, 4, 8)] for size in (draw.randint(1, 50) for _ in range(layers))]
    most = 0.6 * sum(row[-1] for row in cost)
    ties = [(0, 3)] if seed % 2 else []
    least = 0.4 * sum(row[-1] for row in cost) if seed % 3 == 0 else None
    fast = choose(loss, cost, most, least=least, ties=ties)
    slow = choose_exhaustively(loss, cost, most, least=least, ties=ties)
    total = lambda picks: sum(row[p] for row, p in zip(loss, picks, strict=True))  # noqa: E731
    assert total(fast) == pytest.approx(total(slow))


def test_a_choice_that_is_four_bytes_above_a_budget_of_a_thousand_million_is_none():
    loss, cost = [[0, -5], [0, -1]], [[0, 1_000_000_001], [0, 3]]
    assert choose(loss, cost, 1_000_000_000) == choose_exhaustively(loss, cost, 1_000_000_000) == [0, 1]
    assert choose(loss, cost, 1_000_000_004) == [1, 1]


def test_a_budget_that_nothing_meets_is_said():
    with pytest.raises(NoAllocation, match="no choice of bits costs"):
        choose([[1.0, 0.0]], [[4.0, 8.0]], 3.0)
    with pytest.raises(NoAllocation):
        choose_exhaustively([[1.0, 0.0]], [[4.0, 8.0]], 3.0)
    # 4 bytes at 4 bits and half of 4 more: the first layer's 2, or the others' 1 + 1, which gain 7; tied the last's 1
    assert allocate([-5, -4, -3], [2, 1, 1], [4, 2, 2], (), 0.5).text == "488"
    assert allocate([-5, -4, -3], [2, 1, 1], [4, 2, 2], [(0, 1)], 0.5).text == "448"
    with pytest.raises(ValueError, match="one of each a layer"):
        allocate([1.0], [1.0, 2.0], [1.0], (), 0.5)


def test_bits_are_handed_out_in_order_of_sensitivity():
    assert handed_out([0.1, 5.0, 0.3, 2.0], [2, 4, 8, 3]) == [2, 8, 3, 4]
    assert handed_out([1.0, 2.0, 3.0, 4.0], [8, 4]) == [4, 4, 8, 8]
    with pytest.raises(ValueError, match="at most one a block"):
        handed_out([1.0], [8, 4])


def test_eigenvalue_and_trace_of_a_known_hessian():
    eigenvalues = torch.tensor([5.0, 3.0, -1.0, 0.5])
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    hessian = rotation @ torch.diag(eigenvalues) @ rotation.t()
    x = torch.randn(4, requires_grad=True)
    closure = lambda: 0.5 * x @ hessian @ x  # noqa: E731
    assert top_eigenvalue(closure, [x], iterations=100, change=1e-6) == pytest.approx(5.0, rel=1e-3)
    assert trace(closure, [x], samples=400, change=0.0) == pytest.approx(7.5, abs=0.7)


def test_power_iteration_agrees_with_the_dense_hessian_of_a_small_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    inputs, wanted = torch.randn(32, 4).double(), torch.randint(0, 3, (32,))
    closure = lambda: nn.functional.cross_entropy(net(inputs), wanted)  # noqa: E731
    weight = net[0].weight

    def loss_of(values):
        hidden = torch.tanh(inputs @ values.reshape(6, 4).t() + net[0].bias)
        return nn.functional.cross_entropy(hidden @ net[2].weight.t() + net[2].bias, wanted)

    dense = torch.autograd.functional.hessian(loss_of, weight.detach().flatten())
    values = torch.linalg.eigvalsh(dense)
    largest = values[values.abs().argmax()]
    assert top_eigenvalue(closure, [weight], iterations=200, change=1e-5) == pytest.approx(float(largest), rel=0.01)
    vector = torch.randn_like(weight)
    made = hessian_vector(closure, [weight], [vector])[0]
    torch.testing.assert_close(made.flatten(), dense @ vector.flatten())


def test_shortcuts_are_tied_to_their_units():
    inner = ["stage1.0.conv1", "stage1.0.conv2", "stage2.0.conv1", "stage2.0.conv2", "stage2.0.shortcut.0"]
    assert tied_pairs(inner) == [(2, 4)]
    assert tied_pairs(["layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]) == [(0, 2)]


def test_equal_scores_give_uniform_bits_and_others_keep_the_mean():
    assert by_relevance([0.25] * 4, [10, 20, 30, 40], 6) == [6, 6, 6, 6]
    bits = by_relevance([0.5, 0.1, 0.2, 0.2], [16, 16, 16, 16], 6)
    assert sum(bits) == 24 and bits[0] == 8 and bits[1] == min(bits) and max(bits) - min(bits) <= 4


def test_mean_bits_of_the_published_mixture():
    assert mean_bits({2: 0.23769, 4: 0.64186, 8: 0.12044}) == pytest.approx(4.00634, abs=1e-4)
