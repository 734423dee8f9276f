"""ED-ViT: pruning by masks against the slow definition, the rule for widths, placement, and fused specialists."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.workloads.split_cut import Cut
from suites.common.tasks.digits import Digits, Training
from suites.common.vit import vit as plain_vit
from suites.serving.ed_vit import ed_vit, pruned_vit
from suites.serving.placement import Device, Load, groups, placed, widest
from suites.serving.split_vit import params_of, size_mib, split_vit, with_heads
from suites.serving.vit_pruning import Kept, cut_out, divergences
from tests.suites.conftest import spread
from tests.suites.serving.cutting import built, facts, parts_of


def vit(**settings):
    torch.manual_seed(0)
    return spread(split_vit(**{"width": 16, "heads": 4, "depth": 2, "patch": 8, **settings}))


def slow_divergence(model, images, kind, block, channel):
    """Divergence of the answers where one channel is put to zero by hooks, one at a time."""
    plain = model(images).log_softmax(-1)
    handles = []
    if kind == "residual":

        def masked(x):
            x = x.clone()
            x[..., channel] = 0
            return x

        tokens = masked(model.embed(images).x)
        for each in model.blocks:
            tokens = masked(tokens + each.attn(each.norm1(tokens))[0])
            tokens = masked(tokens + each.mlp(each.norm2(tokens)))
        found = model.head(model.norm(tokens)[:, 0]).log_softmax(-1)
    else:
        part = model.blocks[block].attn.proj if kind == "head" else model.blocks[block].mlp.fc2
        size = model.width // model.blocks[block].attn.heads if kind == "head" else 1

        def hide(module, args):
            x = args[0].clone()
            x[..., channel * size : (channel + 1) * size] = 0
            return (x,)

        handles.append(part.register_forward_pre_hook(hide))
        found = model(images).log_softmax(-1)
    for handle in handles:
        handle.remove()
    return F.kl_div(found, plain, reduction="none", log_target=True).sum(-1).mean()


@torch.no_grad()
def test_divergences_are_those_of_one_mask_at_a_time():
    model = vit()
    images = torch.randn(3, 3, 32, 32)
    residual, heads, hidden = divergences(model, images)
    assert residual.shape == (16,) and heads[0].shape == (4,) and hidden[1].shape == (64,)
    for channel in (0, 7, 15):
        assert residual[channel] == pytest.approx(
            slow_divergence(model, images, "residual", 0, channel).item(), rel=1e-3
        )
    for block in (0, 1):
        assert heads[block][2] == pytest.approx(
            slow_divergence(model, images, "head", block, 2).item(), rel=1e-3, abs=1e-7
        )
        assert hidden[block][40] == pytest.approx(
            slow_divergence(model, images, "mlp", block, 40).item(), rel=1e-3, abs=1e-7
        )


@torch.no_grad()
def test_keeping_everything_is_the_network():
    model = vit()
    same, everything = with_heads(model, 4), torch.arange
    cut_out(model, same, Kept(everything(16), [everything(4)] * 2, [everything(64)] * 2))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(same(images), model(images))


@torch.no_grad()
def test_what_is_cut_out_is_what_masks_leave():
    """Heads and hidden channels alone: their removal and their masking are the same function."""
    model = vit()
    for block in model.blocks:
        block.attn.proj.weight[:, 8:] = 0
        block.mlp.fc2.weight[:, 32:] = 0
    images, all_of_it = torch.randn(2, 3, 32, 32), torch.arange(16)
    narrow = split_vit(width=16, heads=4, depth=2, patch=8)
    for own in narrow.blocks:
        own.attn.heads = 2
        own.attn.qkv, own.attn.proj = torch.nn.Linear(16, 24), torch.nn.Linear(8, 16)
        own.mlp.fc1, own.mlp.fc2 = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)
    cut_out(model, narrow, Kept(all_of_it, [torch.arange(2)] * 2, [torch.arange(32)] * 2))
    own = [part.attn for part in narrow.blocks]
    for attention in own:
        attention.project = lambda x, a=attention: a.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)

    def through(x):
        for block in narrow.blocks:
            q, k, v = block.attn.project(block.norm1(x))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + block.attn.proj(y)
            x = x + block.mlp(block.norm2(x))
        return narrow.head(narrow.norm(x)[:, 0])

    assert torch.allclose(through(narrow.embed(images).x), model(images), atol=1e-4)


@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from([4, 8]))
@settings(max_examples=10, deadline=None)
def test_parameters_are_their_closed_form(heads, depth, patch):
    model = split_vit(width=4 * heads, heads=heads, depth=depth, patch=patch)
    assert sum(p.numel() for p in model.parameters()) == params_of(model, heads)


def test_a_narrow_vit_has_the_classes_and_proportions_of_the_whole():
    whole = plain_vit(width=32, heads=4, depth=2, patch=8, resolution=32, classes=100, mlp_ratio=2.0, qkv_bias=False)
    narrow = pruned_vit(whole, heads=2)
    assert narrow(torch.randn(1, 3, 32, 32)).shape == (1, 100) and narrow.blocks[0].mlp.fc1.out_features == 32
    # width 16, hidden 32: 4 x 256 + 2 x 16 x 32 + 9 x 16 + 32 - 3 x 16 a block
    ends = (3 * 64 + 1) * 16 + 16 + 17 * 16 + 2 * 16 + 17 * 100
    assert sum(p.numel() for p in narrow.parameters()) == params_of(whole, 2) == 2 * 2176 + ends
    assert ed_vit(whole, n=2, heads=1)(torch.randn(1, 3, 32, 32)).shape == (1, 100)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        same = with_heads(spread(whole), 4)
        cut_out(whole, same, Kept(torch.arange(32), [torch.arange(4)] * 2, [torch.arange(64)] * 2))
        assert torch.equal(same(images), whole(images))


def test_a_vit_with_two_special_tokens_is_refused():
    with pytest.raises(ValueError, match="distillation token"):
        pruned_vit(plain_vit(width=16, heads=2, depth=1, patch=8, resolution=32, distilled=True), heads=1)


# ---------------------------------------------------------------- rules
@given(st.integers(1, 10), st.integers(1, 10))
def test_classes_are_divided_evenly(classes, count):
    if count > classes:
        with pytest.raises(ValueError, match="at most"):
            groups(classes, count)
        return
    found = groups(classes, count)
    assert [label for each in found for label in each] == list(range(classes)) and max(map(len, found)) - min(
        map(len, found)
    ) <= 1


LOADS = st.lists(st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)), min_size=1, max_size=6)


@given(LOADS, st.lists(st.tuples(st.floats(1, 10), st.floats(1, 10)), min_size=1, max_size=4))
def test_no_device_is_given_more_than_it_has(loads, devices):
    wanted, given_devices = [Load(*load) for load in loads], [Device(*device) for device in devices]
    try:
        found = placed(wanted, given_devices)
    except ValueError:
        return
    for place, device in enumerate(given_devices):
        own = [load for load, where in zip(wanted, found, strict=True) if where == place]
        assert sum(load.memory for load in own) <= device.memory + 1e-9
        assert sum(load.energy for load in own) <= device.energy + 1e-9


def test_the_device_with_the_most_energy_is_taken_first():
    assert placed([Load(1, 1), Load(2, 1)], [Device(2, 5), Device(3, 9)]) == [1, 1]
    assert placed([Load(2, 5), Load(2, 5)], [Device(2, 5), Device(3, 9)]) == [1, 0]
    with pytest.raises(ValueError, match="take narrower"):
        placed([Load(9, 1)], [Device(2, 5)])


def test_a_budget_that_holds_nothing_is_refused():
    assert widest(4, 2, float, 6) == 3
    with pytest.raises(ValueError, match="one head"):
        widest(4, 2, float, 1)


# ---------------------------------------------------------------- the system
def test_every_specialist_is_a_device_and_the_slowest_decides():
    model = ed_vit(vit(), n=3, heads=1)
    subject = built(model)
    assert {"head_1", "head_2", "head_3", "encode_3"} <= set(parts_of(subject))
    found = facts(subject)
    assert found["payload_bytes", "encode_2"].value == 2 * 4 * 4 + 5
    assert (
        found["payload_bytes", "request"].value == 3 * (2 * 4 * 4 + 5)
        and found["payload_elements", "request"].value == 24
    )
    assert found["head_params", "request"].value == sum(p.numel() for p in model.specialists.parameters())


def test_specialists_that_share_a_device_run_one_after_another_and_answer_alike():
    apart, shared = (ed_vit(vit(), n=5, heads=1, devices=devices) for devices in (None, 2))
    shared.load_state_dict(apart.state_dict())
    assert apart.place_of == [0, 1, 2, 3, 4] and shared.place_of == [0, 1, 0, 1, 0]  # most energy left comes first
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(shared(images), apart(images))
    found = facts(built(shared))
    assert found["payload_bytes", "encode_1"].value == 2 * 3 * 4 * 4 + 5 and ("payload_bytes", "encode_3") not in found
    assert found["payload_elements", "request"].value == 2 * 5 * 4
    with pytest.raises(ValueError, match="no device has both left"):
        ed_vit(vit(), n=5, heads=1, devices=2, device_mib=2.5 * size_mib(vit(), 1))


def test_the_forward_is_the_workload_s_way():
    model = ed_vit(vit(), n=2, heads=2, bits=8)
    subject = built(model)
    cut = Cut(subject)
    with torch.no_grad():
        assert torch.equal(cut.answer(cut.decoded(cut.payloads())), model(subject.args[0]))


def test_as_large_as_so_many_specialists():
    model = vit()
    assert pruned_vit(model, heads=1, n=1).blocks[0].attn.heads == 1
    assert pruned_vit(model, heads=2, n=4).blocks[0].attn.heads == 4
    with pytest.raises(ValueError, match="the whole network has 4"):
        pruned_vit(model, heads=5)


def test_specialists_are_learned_pruned_and_fused(tmp_path):
    task = Digits(tmp_path, 0, training=Training(steps=30, grown_steps=5))

    def build():
        return split_vit(width=16, heads=2, depth=2, patch=8)

    task.prepare("small", build)
    whole = build()
    task.load(whole, "small")
    fused = ed_vit(whole, n=2, heads=1, steps=8)
    assert fused.learned["steps"] == 40 and fused.classes_of == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert all(isinstance(each.vit.head, torch.nn.Identity) for each in fused.specialists)
    again = build()
    task.load(again, "small")
    assert torch.equal(ed_vit(again, n=2, heads=1, steps=8).fusion[0].weight, fused.fusion[0].weight)
    assert pruned_vit(whole, heads=1, steps=8).learned["steps"] == 16
