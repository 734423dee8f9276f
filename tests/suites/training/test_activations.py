"""What is kept for a backward: MobileTL's masks and norms, offloaded activations, and the bytes of both."""

import copy
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from suites.common.checkpointing import checkpoint
from suites.common.gpt import gpt
from suites.training import mobiletl as tl
from suites.training.costs import saved_block_elements
from suites.training.offload_store import Store, file_system
from suites.training.plain import save_on_cpu
from suites.training.ssdtrain import keep_from, ssdtrain
from tests.saved_bytes import saved_bytes
from tests.workloads.subjects import FakeBuilt
from tests.workloads.test_facts import facts_of


@pytest.mark.parametrize("shape", [(3, 5), (16,), (2, 3, 7, 7), (1,)])
def test_packed_masks_come_back(shape):
    mask = torch.rand(shape) > 0.5
    bits = tl.packed(mask)
    assert bits.dtype == torch.uint8 and len(bits) == -(-mask.numel() // 8)
    assert torch.equal(tl.unpacked(bits, mask.shape), mask)


@pytest.mark.parametrize("mask", ["packed", "bool"])
def test_the_signed_step_is_exact_for_relu_and_a_step_for_the_others(mask):
    for kind in ("relu", "relu6", "hardswish"):
        x = (torch.randn(40) * 6).requires_grad_()
        tl.SignedActivation(kind, mask)(x).sum().backward()
        assert torch.equal(x.grad, (x.detach() > 0).float())
        if kind == "relu":
            other = x.detach().clone().requires_grad_()
            F.relu(other).sum().backward()
            assert torch.equal(x.grad, other.grad)


def test_a_constant_norm_is_the_frozen_one_and_keeps_no_activation():
    norm = nn.BatchNorm2d(6).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    constant = tl.ConstantNorm(norm, trains=True)
    x = torch.randn(2, 6, 5, 5, requires_grad=True)
    kept, out = saved_bytes(lambda: constant(x))
    torch.testing.assert_close(out, norm(x), rtol=1e-5, atol=1e-5)
    assert kept <= 6 * 4
    out.sum().backward()
    norm(x).sum().backward()
    torch.testing.assert_close(constant.shift.grad, norm.bias.grad)


def test_block_bytes_are_those_of_the_check_case():
    assert tl.block_bytes(96, 96, 14, 6) == 1_956_864
    assert tl.block_bytes(96, 96, 14, 6, mask="packed") == 1_081_920
    assert tl.block_bytes(96, 96, 14, 6, mask="bool") == 1_279_488
    assert pytest.approx(0.447, abs=1e-3) == 1 - 14.375 / 26
    # C 5 -> 7 and 15 -> 8 places by stride 2, t 4: x 1125, e 4500, d 1280, o 448
    assert tl.block_bytes(5, 7, 15, 4, 2) == 4 * (1125 + 2 * 4500 + 2 * 1280 + 448)
    assert tl.block_bytes(5, 7, 15, 4, 2, mask="packed") == 4 * (1125 + 4500 + 1280 + 448) + 5780 / 8
    # a gated block of V3: 44 units plainly, 20.375 here, 53.7 % less
    gated = [tl.block_bytes(96, 96, 14, 6, mask=mask, gated=True) / (4 * 96 * 14**2) for mask in (None, "packed")]
    assert gated == [44, 20.375]


def test_a_gated_block_saves_what_the_formula_says():
    """The first of V3-small's last seven, 40 -> 240 -> 40 channels with Hard-Swish and a gate of 64; means and factors
    of the gate and statistics of norms are a few numbers a channel.
    """
    for mask in (None, "packed"):
        model = tl.mobilenet(version="v3_small", width=1.0, resolution=32)
        changed = tl.frozen_blocks(model, blocks=7) if mask is None else tl.mobiletl(model, blocks=7, mask=mask)
        block = [part for part in changed.net.features if type(part).__name__ == "InvertedResidual"][4].train()
        x = torch.randn(3, 40, 4, 4, requires_grad=True)
        kept, _ = saved_bytes(lambda block=block, x=x: block(x), [*block.parameters(), *block.buffers()])
        expected = 3 * tl.block_bytes(40, 40, 4, 6, mask=mask, gated=True)
        assert 0 <= kept - expected <= 4 * (3 * 4 * (240 + 64) + 6 * 240 + 2 * 40), mask


@pytest.mark.parametrize("version", ["v2", "v3_small"])
@pytest.mark.parametrize("scales", [True, False])
def test_without_its_approximations_the_blocks_train_as_plain_ones(version, scales):
    """With exact derivatives the gradients of all that trains are autograd's: of plain blocks where the inner norms
    train whole, of blocks whose inner norms are in evaluation and keep their scale where their shift alone trains.
    """
    torch.manual_seed(0)
    model = tl.mobilenet(version=version, width=0.35, resolution=64).double()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    made = tl.mobiletl(copy.deepcopy(model), blocks=2, mask="exact", scales=scales).train()
    plain = tl.frozen_blocks(model, blocks=2).train()
    if not scales:
        _shift_alone(plain)
    x = torch.randn(4, 3, 64, 64).double()
    found = []
    for net in (made, plain):
        net(x).square().mean().backward()
        found.append({name.replace(".shift", ".bias"): p.grad for name, p in net.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 18
    sizes = {name: float(grad.abs().max()) for name, grad in found[1].items()}
    noise = 1e-12 * max(sizes.values())  # the shift before a norm that takes means of the batch has no gradient at all
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], rtol=0, atol=1e-9 * sizes[name] + noise, msg=name)
    assert sum(size > 1e3 * noise for size in sizes.values()) > 14


def _shift_alone(net):
    """Put the inner norms of the trained blocks in evaluation, with a scale that does not train."""
    for block in [part for part in net.net.features if type(part).__name__ == "InvertedResidual"][-2:]:
        for norm in [part for part in block.modules() if isinstance(part, nn.BatchNorm2d)][:-1]:
            norm.eval().weight.requires_grad_(False)


@pytest.mark.parametrize("mask", ["packed", "bool"])
def test_a_block_saves_what_the_formula_says(mask):
    model = tl.mobilenet(width=0.35, resolution=32)
    changed = tl.mobiletl(model, blocks=2, mask=mask)
    block = [part for part in changed.net.features if type(part).__name__ == "InvertedResidual"][-2].train()
    convolutions = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    inputs, hidden, outputs = convolutions[0].in_channels, convolutions[0].out_channels, convolutions[-1].out_channels
    x = torch.randn(3, inputs, 4, 4, requires_grad=True)
    weights = [*block.parameters(), *block.buffers()]
    kept, _ = saved_bytes(lambda: block(x), weights)
    expected = 3 * tl.block_bytes(inputs, outputs, 4, hidden // inputs, mask=mask)
    assert 0 <= kept - expected <= 2 * 4 * outputs + 8  # the last norm's batch statistics


def test_frozen_statistics_stay_bit_for_bit():
    model = tl.mobiletl(tl.mobilenet(width=0.1, resolution=32), blocks=1)
    before = copy.deepcopy(dict(model.named_buffers()))
    (x,) = model.example_inputs(2)
    model.train()
    model(x).sum().backward()
    for name, value in model.named_buffers():
        if name.endswith(("scale", "offset")):
            assert torch.equal(value, before[name])


SIZES = {"width": 16, "layers": 3, "heads": 2, "hidden": 64, "vocabulary": 31, "positions": "learned", "fused": True}


@pytest.mark.parametrize("store", ["ram", "file"])
@pytest.mark.parametrize("delay", [0, 2])
def test_losses_and_gradients_are_those_of_keeping(store, delay):
    torch.manual_seed(0)
    plain = gpt(context=12, **SIZES)
    moved = ssdtrain(copy.deepcopy(plain), store=store, least=16, delay_ms=delay, threads=1).train()
    plain.train()
    (ids,) = plain.example_inputs(2)
    for _ in range(2):
        losses = []
        for net in (plain, moved):
            net.zero_grad()
            loss = net(ids).square().mean()
            loss.backward()
            losses.append(loss.detach())
        assert torch.equal(*losses)
        for a, b in zip(plain.parameters(), moved.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
    del loss
    moved.store.pool.shutdown()  # writes that the backward did not wait for
    assert moved.store.held() == 0
    assert moved.store.writes and moved.store.read + moved.store.forwarded >= moved.store.writes


def test_nothing_is_written_where_all_blocks_are_kept():
    moved = ssdtrain(gpt(context=12, **SIZES), least=1, keep_last=3).train()
    (ids,) = moved.example_inputs(2)
    moved(ids).sum().backward()
    assert moved.store.writes == 0


@pytest.mark.parametrize("delay, kept", [(0, False), (30, True)])
def test_the_adaptive_rule_keeps_what_a_slow_store_could_not_take_and_changes_no_number(delay, kept):
    torch.manual_seed(0)
    plain = gpt(context=12, **SIZES).train()
    moved = ssdtrain(copy.deepcopy(plain), store="ram", least=16, delay_ms=delay, keep_last=1, adaptive=True).train()
    (ids,) = plain.example_inputs(2)
    writes = []
    for _ in range(4):
        for net in (plain, moved):
            net.zero_grad()
            net(ids).square().mean().backward()
        writes.append(moved.store.writes)
    assert moved.profile is None
    if kept:  # 30 ms a storage, and a block takes far less; nothing is written once that is known
        assert moved.last == 0 and writes[3] == writes[2] > 0
    for a, b in zip(plain.parameters(), moved.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def told(model, ids):
    """Readings of a step's facts by metric."""
    return {each.metric: each for each in facts_of("training_step", FakeBuilt(model, (ids,)), batch=len(ids)).readings}


def test_a_step_says_what_it_wrote_away_and_saves_in_all_what_the_plain_one_does():
    """Of three blocks the last stays; of B = 2, N = 12, D = 16, F = 64, H = 2 a block saves 16 B N D = 6144 numbers,
    4 B N = 96 of its norms and B N H = 48 of its attention. The block's input is the sum before it, made in the block
    before it and saved in its own. At least = 384 elements: 8 storages of B N D or more a block (input, norm 1, qkv,
    attention, sum, norm 2, fc1, GELU) go, 6144 x 4 B; statistics stay.
    """
    torch.manual_seed(0)
    plain = gpt(context=12, **SIZES)
    (ids,) = plain.example_inputs(2)
    wanted = told(copy.deepcopy(plain), ids)
    assert "offloaded_bytes" not in wanted
    for store in ("ram", "file"):
        found = told(ssdtrain(copy.deepcopy(plain), store=store, least=384), ids)
        assert found["saved_activation_bytes"].value == wanted["saved_activation_bytes"].value
        assert found["offloaded_bytes"].value == 2 * 6144 * 4
        assert found["exposed_wait_ms"].value >= 0
        assert ("memory" in found["offloaded_bytes"].method_note) or store == "file"
    kept = told(ssdtrain(copy.deepcopy(plain), least=384, keep_last=3), ids)
    assert kept["offloaded_bytes"].value == 0 and kept["exposed_wait_ms"].value == 0
    on_host = told(save_on_cpu(copy.deepcopy(plain)), ids)
    assert on_host["saved_activation_bytes"].value == wanted["saved_activation_bytes"].value
    assert on_host["offloaded_bytes"].value == 0  # it is on the host already
    assert on_host["exposed_wait_ms"].value is None


def test_shapes_alone_say_what_would_be_written():
    with torch.device("meta"):
        moved = ssdtrain(gpt(context=12, **SIZES), least=384).train()
        (ids,) = moved.example_inputs(2)
    moved(ids).sum().backward()
    said = moved.saved_elsewhere()
    shares = 2 * 2 * 12 * 12  # B H N N: attention is written out there, and keeps them
    assert said["offloaded"] == 2 * (6144 + shares) * 4 and said["waited_s"] is None and moved.store.writes == 0


@pytest.mark.parametrize("every", [1, 2])
def test_inputs_of_checkpointed_segments_are_written_away_and_gradients_stay(every):
    torch.manual_seed(0)
    plain = gpt(context=12, **SIZES).train()
    both = ssdtrain(checkpoint(copy.deepcopy(plain), every=every), store="file", least=16).train()
    (ids,) = plain.example_inputs(2)
    for net in (plain, both):
        net(ids).square().mean().backward()
    both.store.pool.shutdown()  # a backward takes from memory what is not written yet
    assert both.store.writes > 0
    for a, b in zip(plain.parameters(), both.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_a_store_is_held_to_its_bandwidth_by_all_threads_together():
    store = Store("ram", 4, 0.0, rate=1e6)
    storages = [torch.zeros(2500).untyped_storage() for _ in range(4)]  # 4 x 10 000 B at 10^6 B/s: 40 ms
    begun = time.perf_counter()
    for written in [store.pool.submit(store.put, key, each) for key, each in enumerate(storages)]:
        written.result()
    assert time.perf_counter() - begun >= 0.04 and store.bandwidth() <= 1e6
    begun = time.perf_counter()
    assert store.get(2, torch.device("cpu")) is storages[2]
    assert time.perf_counter() - begun >= 0.01


def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount():
    table = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\n"
    assert file_system(Path("/home/x"), table) == "ext4"
    assert file_system(Path("/tmp/offload-1"), table) == "tmpfs"
    assert file_system(Path("/tmp/disk/y"), table) == "xfs"
    assert file_system(Path("/tmp"), "") == "a file system that is not told"


@pytest.mark.parametrize("bandwidth, first", [(2, 3), (4, 5), (6, 6), (float("inf"), 8)])
def test_the_rule_keeps_from_the_modules_of_the_check_case(bandwidth, first):
    assert keep_from([100] * 8, [10] * 8, bandwidth) == first


def test_a_block_saves_sixteen_times_its_tokens():
    torch.manual_seed(0)
    model = gpt(context=12, **SIZES).train()
    block = model.blocks[0]
    x = torch.randn(2, 12, 16, requires_grad=True)
    kept, _ = saved_bytes(lambda: block(x, None), list(block.parameters()))
    whole = 4 * saved_block_elements(2, 12, 16)
    statistics = 4 * (4 * 2 * 12 + 2 * 2 * 12)  # means and deviations of two norms, one number a query and head
    assert saved_block_elements(1, 128, 256) * 4 == 2_097_152
    assert whole <= kept <= whole + statistics + 4 * 2 * 12 * 16  # or 17 where the attention's output is copied
