"""Reversible chains: inverses, gradients of ordinary autograd, bytes that are kept, products that are made again."""

import copy

import pytest
import torch
from torch import nn

from bench.meters import macs
from suites.common.checkpointing import checkpoint
from suites.tiny_memory import deeprftv2 as rft
from suites.tiny_memory.reversible import Chain, Move, reversible
from suites.tiny_memory.reversible_unet import (
    Coupling,
    coupling_macs,
    coupling_parameters,
    reversible_unet,
    saved_bytes,
    step_forwards,
)
from tests.saved_bytes import saved_bytes as autograd_keeps
from tests.workloads.subjects import FakeBuilt
from tests.workloads.test_facts import counts_of, values


def chain(width=8, count=3, expansion=2):
    torch.manual_seed(0)
    return Chain([Coupling(width, expansion) for _ in range(count)])


def halves(width=8, side=4, dtype=torch.float32):
    torch.manual_seed(1)
    return [torch.randn(1, width // 2, side, side, side, dtype=dtype, requires_grad=True) for _ in range(2)]


def test_closed_forms_are_those_of_the_check_cases():
    assert coupling_parameters(64, 4) == 24_448 == sum(p.numel() for p in Coupling(64, 4).parameters())
    assert saved_bytes(16, 4, 16**3, 4) == 18_874_368
    assert saved_bytes(16, 4, 16**3, 4, "reversible") == 262_144 == saved_bytes(16, 4, 16**3, 9, "reversible")
    assert saved_bytes(16, 4, 16**3, 4, "checkpoint") == 4 * 262_144
    assert 4 * 240 * 240 * 155 * 4 == 142_848_000
    with pytest.raises(ValueError, match="how"):
        saved_bytes(16, 4, 8, 1, "thrifty")


@pytest.mark.parametrize("make, states", [
    (chain, lambda: [h.detach().double() for h in halves()]),
    (lambda: rft.SubUnets(4, 3), lambda: [torch.randn(1, 4 * 2**v, 16 >> v, 16 >> v).double() for v in range(3)]),
])  # fmt: skip
def test_the_inverse_returns_the_input(make, states):
    torch.manual_seed(0)
    net, given = make().double(), states()
    for part in net.modules():
        if isinstance(part, Move) and part.scale is not None:
            nn.init.constant_(part.scale, 0.7)
    with torch.no_grad():
        found = net.inverse(*net(*given))
    for before, after in zip(given, found, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def _gradients(net, states):
    for state in states:
        state.grad = None
    net.zero_grad()
    outs = net(*states)
    sum((out * (place + 1) * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()
        for place, out in enumerate(outs)).backward()  # fmt: skip
    return [state.grad.clone() for state in states] + [part.grad.clone() for part in net.parameters()]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_gradients_of_couplings_are_those_of_autograd(count, dtype, tolerance):
    net, states = chain(count=count).to(dtype), halves(dtype=dtype)
    wanted = _gradients(net, states)
    found = _gradients(reversible(net), states)
    largest = max(float(a.abs().max()) for a in wanted)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_gradients_of_sub_unets_are_those_of_autograd_scales_included(dtype, tolerance):
    torch.manual_seed(0)
    net = rft.SubUnets(4, 3).to(dtype)
    scales = [part.scale for part in net.modules() if isinstance(part, Move)]
    for place, scale in enumerate(scales):
        nn.init.constant_(scale, (0.5, 1.2, 0.05)[place % 3])  # the last is held at 0.1 and gets no gradient
    states = [torch.randn(2, 4 * 2**v, 16 >> v, 16 >> v, dtype=dtype, requires_grad=True) for v in range(3)]
    wanted = _gradients(net, states)
    found = _gradients(reversible(net), states)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance * float(a.abs().max()) + 1e-12)
    assert scales[2].grad == 0 != scales[1].grad


@pytest.mark.parametrize("expansion", [2, 4])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_saved_bytes_of_a_chain_are_those_of_the_formula(expansion, count):
    width, side = 8, 4
    statistics = count * 2 * 2 * 4 * (2 * expansion + 1) * (width // 2)  # mean and deviation of every channel
    for how, change in (("ordinary", lambda net: net), ("reversible", reversible), ("checkpoint", checkpoint)):
        net, states = chain(width, count, expansion), halves(width, side)
        change(net).train()
        kept, _ = autograd_keeps(lambda net=net, states=states: net(*states), list(net.parameters()))
        formula = saved_bytes(width, expansion, side**3, count, how)
        assert 0 <= kept - formula <= (statistics if how == "ordinary" else 0), how


def test_saved_bytes_of_sub_unets_do_not_grow_where_they_are_rebuilt():
    assert rft.state_bytes(16, 64) == 458_752
    kept = {}
    for count in (2, 8):
        for how in ("ordinary", "reversible"):
            net = rft.SubUnets(4, count)
            net.how = how
            states = [torch.randn(1, 4 * 2**v, 16 >> v, 16 >> v, requires_grad=True) for v in range(3)]
            kept[how, count], _ = autograd_keeps(lambda net=net, s=states: net(*s), [*net.parameters(), *states])
    assert kept["reversible", 2] == kept["reversible", 8] == rft.state_bytes(4, 16)
    # the states that come in are the caller's
    first = rft.state_bytes(4, 16)
    assert all(kept["ordinary", count] == rft.saved_bytes(4, 16, count) - first for count in (2, 8))
    assert kept["ordinary", 8] / kept["ordinary", 2] == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("change", [lambda net: net, reversible, checkpoint, lambda net: checkpoint(net, sqrt=True)])
def test_a_networks_promise_is_what_its_chains_keep(change):
    """Of a U-Net what is kept beside the chains is the same however they run, but for statistics of its norms."""
    net = change(rft.deeprftv2(width=4, sub_unets=3, resolution=16)).train()
    states = [torch.randn(1, 4 * 2**v, 16 >> v, 16 >> v, requires_grad=True) for v in range(3)]
    kept, _ = autograd_keeps(lambda: net.body(*states), list(net.parameters()))
    assert kept == net.promised_saved_bytes
    beside = []
    for how in (change, reversible):
        net = how(reversible_unet(width=4, couplings=3, expansion=2, levels=2, side=8)).train()
        (x,) = net.example_inputs(1)
        kept, _ = autograd_keeps(lambda net=net, x=x: net(x), [*net.parameters(), x])
        beside.append(kept - net.promised_saved_bytes)
    statistics = 4 * 2 * 2 * 3 * (2 * 5 * 2 + 5 * 4)  # a mean and a deviation of every channel that a norm sees
    assert 0 <= beside[0] - beside[1] <= statistics and net.promised_saved_bytes == 4 * (2 * 4 * 512 + 8 * 64)


class Whole(nn.Module):
    """A chain on states that need gradients too, so that every product has both of its own."""

    def __init__(self, net, states):
        super().__init__()
        self.net, self.states = net, nn.ParameterList(nn.Parameter(state.detach()) for state in states)

    def forward(self, x):
        return sum(out.sum() for out in self.net(*self.states)) * x

    def loss(self, outputs, targets):
        return outputs.sum()


def _executed(net, states):
    """Products of a forward and of a whole step, as the instrument counts them, and of them those made again."""
    subject = FakeBuilt(Whole(net, states), (torch.ones(1),))
    with torch.no_grad():
        forward = macs.count(subject.module, subject.args, second_count=False).executed_macs
    found = values(counts_of("training_step", subject, batch=1))
    return forward, forward + found["macs_backward"], found["macs_recomputed"]


@pytest.mark.parametrize("change, how", [
    (lambda net: net, "ordinary"), (reversible, "reversible"), (checkpoint, "checkpoint"),
])  # fmt: skip
def test_a_step_makes_three_or_four_forwards_products(change, how):
    net, states = change(chain()).train(), halves()
    forward, step, again = _executed(net, states)
    assert forward == 3 * coupling_macs(8, 2, 64)
    assert step == step_forwards(how) * forward
    assert again == (step_forwards(how) - 3) * forward


def test_a_step_of_sub_unets_makes_a_third_more_products():
    net = rft.SubUnets(4, 2)
    states = [torch.randn(1, 4 * 2**v, 16 >> v, 16 >> v, requires_grad=True) for v in range(3)]
    forward, ordinary, _ = _executed(net, states)
    assert forward == 2 * rft.exchange_macs(4, 16)
    assert _executed(reversible(net), states)[1] / ordinary == pytest.approx(4 / 3)


@pytest.mark.parametrize("make", [
    lambda: reversible_unet(width=4, couplings=2, expansion=2, levels=2, side=8),
    lambda: rft.deeprftv2(width=4, sub_unets=2, resolution=16),
    lambda: rft.deeprftv2(width=4, sub_unets=2, resolution=16, kernel=False),
])  # fmt: skip
@pytest.mark.parametrize("change", [reversible, checkpoint, lambda net: checkpoint(net, sqrt=True)])
def test_whole_networks_learn_the_same(make, change):
    torch.manual_seed(0)
    plain = make().double().train()
    for part in plain.modules():
        if isinstance(part, nn.Conv2d) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.1)
    other = change(copy.deepcopy(plain))
    (x,) = (part.double() for part in plain.example_inputs(2))
    grads = []
    for net in (plain, other):
        net(x).square().mean().backward()
        grads.append([part.grad for part in net.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_without_couplings_the_net_is_plain():
    torch.manual_seed(0)
    net = reversible_unet(width=4, couplings=0, levels=2, side=8)
    (x,) = net.example_inputs(1)
    plain = net(x)
    assert torch.equal(reversible(net)(x), plain)
    expected = net.stem(x)
    expected = net.head(net.ups[0](net.downs[0](expected)) + expected)
    assert torch.equal(plain, expected)


def test_a_kernel_of_one_leaves_the_map_and_both_forms_make_equal_products():
    x = torch.randn(1, 3, 8, 8)
    r = torch.fft.fft2(x, norm="ortho")
    torch.testing.assert_close(rft.applied(torch.ones_like(r), r), x)
    from torch.utils.flop_counter import FlopCounterMode

    counted = []
    for kernel in (True, False):
        net = rft.deeprftv2(width=4, sub_unets=1, resolution=16, kernel=kernel)
        (x,) = net.example_inputs(1)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(x)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1]
    assert rft.fourier_operations(16, 64) == 2 * 16 * 5 * 4096 * 12


def test_errors_of_rebuilding_grow_with_depth():
    errors = []
    for count in (1, 16):
        net, states = chain(count=count), [h.detach() for h in halves()]
        with torch.no_grad():
            found = net.inverse(*net(*states))
        errors.append(max(float((a - b).abs().max()) for a, b in zip(states, found, strict=True)))
    assert errors[0] < errors[1] < 1e-3
    made = [reversible(reversible_unet(width=4, couplings=n, expansion=2, levels=1, side=4)) for n in (1, 12)]
    assert 0 < made[0].rebuilding_error < made[1].rebuilding_error < 1e-3
    assert reversible(reversible_unet(width=4, couplings=0, levels=1, side=4)).rebuilding_error == 0


def test_what_could_not_be_rebuilt_is_refused():
    with pytest.raises(ValueError, match="dropout"):
        Move(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), 0, [1])
    with pytest.raises(ValueError, match="batch norms"):
        Move(nn.BatchNorm3d(2), 0, [1])
    with pytest.raises(ValueError, match="undone"):
        Move(nn.Identity(), 0, [0, 1])
    with pytest.raises(ValueError, match="reversible works on"):
        reversible(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="even"):
        reversible_unet(width=3)
