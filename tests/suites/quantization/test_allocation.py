"""Bits under a budget: the programme's check cases, exhaustive search, and HAWQ's order."""

import random

import pytest
import torch
from torch import nn

from suites.quantization.allocate import NoAllocation, allocate, choose, choose_exhaustively
from suites.quantization.hawq import handed_out
from suites.quantization.hawqv3 import (
    RESNET18_TIES,
    assigned_bit_operations,
    assigned_bytes,
    resnet_layers,
    tied_pairs,
)
from suites.quantization.hessian import hessian_vector, top_eigenvalue, trace
from suites.quantization.lrp_qvit import by_relevance
from suites.quantization.mixdq import mean_bits

TRACE = """.06857826 .03162379 .03298575 .01205663 .02222431 .00596336 .06931772 .00807129 .00372905 .00530698 .00209011
.00737569 .00210454 .00151197 .00158041 .00078146 .00451841 .00098745 .00072944"""
ERR8 = """.0235 .0125 .0102 .0082 .0145 .0344 .0023 .0287 .0148 .0333 .0682 .0027 .0448 .0336 .0576 .1130 .0102 .0947
.0532"""
ERR4 = """6.743 3.9691 3.3281 2.6796 4.7277 10.5966 .6827 9.0942 4.8857 10.7599 21.7546 .8603 14.5324 10.9651 18.7706
36.4044 3.1572 29.6994 17.4016"""
INT4_MS = """.21094404 .21092674 .21104113 .21086851 .13642465 .19167506 .02532183 .19148203 .19142914 .11395316
.20556011 .01917474 .20566918 .20566509 .13185102 .22287786 .01790088 .22304611 .22286099"""
INT8_MS = """.36189111 .36211718 .31141909 .30454471 .19184896 .38948934 .0334169 .38904905 .3892859 .19134735 .34307431
.02802354 .34313329 .34310756 .21117103 .37376585 .02896843 .37398187 .37405185"""


def numbers(text):
    return [float(word) for word in text.split()]


SENSITIVITY = [t * (a - b) for t, a, b in zip(numbers(TRACE), numbers(ERR8), numbers(ERR4), strict=True)]
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


@pytest.mark.parametrize(
    "cost4, cost8, budget, bits, objective",
    [
        ([w / 2 for w in WEIGHTS[1:-1]], WEIGHTS[1:-1], 0.5, "8888888888888884844", -1.233207),
        ([16 * m for m in MACS[1:-1]], [64 * m for m in MACS[1:-1]], 0.5, "8884888848884444444", -1.092024),
        (numbers(INT4_MS), numbers(INT8_MS), 0.25, "8884848444444444444", -0.847289),
    ],
)
def test_the_programme_of_the_published_tables(cost4, cost8, budget, bits, objective):
    found = allocate(SENSITIVITY, cost4, cost8, RESNET18_TIES, budget)
    assert found.text == bits and found.objective == pytest.approx(objective, abs=1e-6)
    assert found.cost <= sum(cost4) + budget * (sum(cost8) - sum(cost4)) + 1e-9 * sum(cost8)
    assert all(found.bits[a] == found.bits[b] for a, b in RESNET18_TIES)


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


def test_a_budget_that_nothing_meets_is_said():
    with pytest.raises(NoAllocation, match="no choice of bits costs"):
        choose([[1.0, 0.0]], [[4.0, 8.0]], 3.0)
    with pytest.raises(NoAllocation):
        choose_exhaustively([[1.0, 0.0]], [[4.0, 8.0]], 3.0)
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
