"""Predicted filters, classified pixels and chosen canvases: what is gathered equals what is masked."""

import copy

import pytest
import torch

from suites.common.digits_resnet import digits_resnet
from suites.dynamic.canvas import canvas, drawn, policy_macs, sketch_net
from suites.dynamic.ftwt import Gated, firing, ftwt, targets
from suites.dynamic.pcsr import _two_means, pcsr
from suites.dynamic.sr_nets import sr_net
from suites.dynamic.vgg_bn import vgg_bn

from . import counting

NETS = {
    "vgg": lambda: vgg_bn(channels=[6, 8, 10], stages=[1, 1, 1], resolution=16),
    "resnet": lambda: digits_resnet(blocks=1, width=4, resolution=16),
}


@torch.no_grad()
@pytest.mark.parametrize("net", sorted(NETS))
def test_gathered_filters_equal_masked_ones_and_cost_what_fires(net):
    plain = NETS[net]()
    images = torch.randn(4, 3, 16, 16)
    network = ftwt(copy.deepcopy(plain))
    gates = [module for module in network.modules() if isinstance(module, Gated)]
    gathered = network(images)
    cost, predictors = counting.of(network, (images[:1],))
    fired = [share.sum().item() for share in firing(network, images[:1])]
    for gate in gates:
        gate.way = "masked"
    torch.testing.assert_close(network(images), gathered, rtol=1e-4, atol=1e-5)
    assert predictors == sum(gate.conv.in_channels * gate.conv.out_channels for gate in gates)
    dense = counting.of(plain, (images[:1],))[0]
    assert counting.of(network, (images[:1],))[0] == dense > cost
    if net == "vgg":
        a, b, c = fired
        assert cost == 9 * (256 * 3 * a + 64 * a * b + 16 * b * c) + 100


@torch.no_grad()
@pytest.mark.parametrize("pool", ["max", "average"])
def test_a_predictor_may_be_given_parts_of_the_map(pool):
    network = ftwt(NETS["vgg"](), pool=pool, target=24)
    gates = [module for module in network.modules() if isinstance(module, Gated)]
    # d = round(sqrt(24 / 3)) = 3, round(sqrt(24 / 6)) = 2, round(sqrt(24 / 8)) = round(1.73) = 2
    assert [gate.side for gate in gates] == [3, 2, 2]
    images = torch.randn(3, 3, 16, 16)
    gathered = network(images)
    assert counting.of(network, (images[:1],))[1] == 3 * 9 * 6 + 6 * 4 * 8 + 8 * 4 * 10
    for gate in gates:
        gate.way = "masked"
    torch.testing.assert_close(network(images), gathered, rtol=1e-4, atol=1e-5)
    x = torch.rand(1, 6, 4, 4)
    corner = x[:, :, :2, :2].flatten(2)
    wanted = corner.amax(2) if pool == "max" else corner.mean(2)
    torch.testing.assert_close(gates[1].pooled(x)[:, :, 0], wanted)


@torch.no_grad()
def test_the_static_control_makes_no_predictions():
    network = ftwt(NETS["vgg"]())
    gates = [module for module in network.modules() if isinstance(module, Gated)]
    for gate in gates:
        gate.fixed = torch.arange(gate.conv.out_channels) % 2 == 0  # 3 of 6, 4 of 8, 5 of 10
    images = torch.randn(2, 3, 16, 16)
    gathered = network(images)
    products = 9 * (256 * 3 * 3 + 64 * 3 * 4 + 16 * 4 * 5) + 100
    assert counting.of(network, (images[:1],)) == (products, 0)
    assert [share.tolist() for share in firing(network, images)] == [gate.fixed.float().tolist() for gate in gates]
    for gate in gates:
        gate.way = "masked"
    assert counting.of(network, (images[:1],))[1] == 0
    torch.testing.assert_close(network(images), gathered, rtol=1e-4, atol=1e-5)


def test_targets_of_a_fixed_share_are_as_many_of_the_largest_responses():
    output = torch.tensor([5.0, 0.5, 3.0, 1.5])[None, :, None, None].expand(1, 4, 2, 2)
    assert targets(output, 0.4, 2).tolist() == [[True, False, True, False]]  # r alone would take the first only
    gate = next(m for m in ftwt(NETS["vgg"](), keep=0.5).modules() if isinstance(m, Gated))
    assert gate.kept == 3


def test_targets_are_the_largest_responses_until_their_share_exceeds_r():
    output = torch.tensor([5.0, 3.0, 1.5, 0.5])[None, :, None, None].expand(1, 4, 2, 2)
    assert targets(output, 0.4).tolist() == [[True, False, False, False]]
    assert targets(output, 0.7).tolist() == [[True, True, False, False]]
    assert targets(output, 0.9).tolist() == [[True, True, True, False]]
    dead = torch.tensor([1.0, 0.0, 2.0])[None, :, None, None]
    assert targets(dead, 1.0).tolist() == [[True, False, True]]


@torch.no_grad()
def test_pixels_of_one_network_are_those_that_were_picked():
    network = pcsr(sr_net(width=8, side=5), width=6, hidden=7, refine=False)
    images = torch.rand(2, 3, 5, 5)
    read = network.queries(images)
    chosen = network.choose(network.classifier(read), 25)
    assert 0 < chosen.float().mean() < 1
    colours = torch.where(chosen[..., None], network.heavy_net(read), network.light_net(read))
    torch.testing.assert_close(network(images), network._picture(colours, images), rtol=1e-5, atol=1e-6)
    assert network.shares.tolist() == chosen.float().mean(dim=1).tolist()
    heavy = int(chosen.sum())
    light, large, judge = network.pixel_macs
    backbone = counting.of(network.backbone, (images,))[0]
    assert counting.of(network, (images,))[0] == backbone + 800 * judge + heavy * large + (800 - heavy) * light


def test_a_width_that_groups_do_not_divide_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="width=6: CARN-M has groups of 4"):
        pcsr(sr_net(kind="carn", width=8, side=4), width=6)


@torch.no_grad()
def test_a_larger_power_of_the_cost_sends_fewer_pixels_to_the_heavy_network():
    network = pcsr(sr_net(width=8, side=5), width=6)
    images, shares = torch.rand(3, 3, 5, 5), []
    for k in (0.0, 0.1, 0.5, 5.0):
        network.k = k
        network(images)
        shares.append(float(network.shares.mean()))
    assert shares == sorted(shares, reverse=True) and shares[-1] == 0
    light, heavy = network.costs()
    assert light + heavy == pytest.approx(1) and light < heavy


def test_two_means_split_two_groups():
    assert _two_means(torch.tensor([0.1, 0.12, 0.2, 0.8, 0.9])).tolist() == [False, False, False, True, True]


@torch.no_grad()
def test_sketches_of_one_canvas_run_together_and_pay_for_their_own():
    network = canvas(sketch_net(width=0.1, points=8, size=32), sizes=[32, 64], policy="ink", border=0.5)
    strokes = torch.rand(5, 8, 3)
    strokes[..., 2] = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])[:, None]
    answer = network(strokes)
    assert network.paths.tolist() == [0, 1, 0, 1, 1]
    alone = torch.stack(
        [network.net.classify(s[None], 32 if p == 0 else 64)[0] for s, p in zip(strokes, network.paths, strict=True)]
    )
    torch.testing.assert_close(answer, alone, rtol=1e-4, atol=1e-5)
    network.kind = "gru"
    assert counting.of(network, (strokes,))[1] == 5 * policy_macs(8, 2)


def test_a_drawn_line_is_where_it_was_drawn():
    line = torch.tensor([[[0.0, 0.5, 0.0], [1.0, 0.5, 1.0], [1.0, 0.0, 0.0]]])  # across, then up with the pen lifted
    picture = drawn(line, 32)[0, 0]
    assert picture[15:17, 8:24].min() > 0.7
    assert picture[2:6].max() < 0.01
