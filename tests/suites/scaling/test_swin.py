"""Swin and Swin V2: timm's network, a loop over windows, biases that carry over, and counts."""

import math
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from bench.meters import macs
from suites.common.task import TaskError
from suites.common.timm_bridge import import_timm
from suites.scaling.position_bias import PositionBias, bias_macs, position_bias
from suites.scaling.swin import Block, Swin, block_macs, shift_mask, swin
from suites.scaling.transfer import ResizedDigits
from tests.suites.ops.agree import apart

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
NAMES = {
    "patch_embed.proj": "patch", "patch_embed.norm": "patch_norm", "attn.cpb_mlp": "attention.bias.net",
    "attn.logit_scale": "attention.scale",
    "attn.relative_position_bias_table": "attention.bias.table", "attn.": "attention.",
    "mlp.fc": "fc", "head.fc": "head",
}  # fmt: skip


def spread(model):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.double().eval()


def ours_from(theirs, **settings):
    """Our network with the weights of timm's."""
    model, state = swin(**settings).double(), {}
    places, place = {}, 0
    for stage, layer in enumerate(theirs.layers):
        if stage:
            places[f"layers.{stage}.downsample."], place = f"layers.{place}.", place + 1
        for block in range(len(layer.blocks)):
            places[f"layers.{stage}.blocks.{block}."], place = f"layers.{place}.", place + 1
    for name, value in theirs.named_parameters():
        own = name
        for old, new in [*places.items(), *NAMES.items()]:
            own = own.replace(old, new) if old in own else own
        state[own] = value
    model.load_state_dict(state)
    return model


@needs_timm
@pytest.mark.parametrize("version", [1, 2])
def test_it_is_timms_network(version):
    import_timm()
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    kind = {1: SwinTransformer, 2: SwinTransformerV2}[version]
    theirs = spread(kind(img_size=64, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, num_classes=5))
    mine = ours_from(
        theirs, width=16, depths=[2, 2], heads=[1, 2], window=4, resolution=64, classes=5, version=version,
        bias="log" if version == 2 else "table",
    )  # fmt: skip
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(mine(images), theirs(images), rtol=1e-6, atol=1e-8)


def test_a_shifted_block_is_a_loop_over_windows():
    torch.manual_seed(0)
    block = spread(Block(8, 2, 8, 4, True, "log", 2, False))
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    moved, made = x.roll((-2, -2), (1, 2)), torch.zeros_like(x)
    mask = shift_mask(8, 4, 2, x)
    for number, (i, j) in enumerate((i, j) for i in (0, 4) for j in (0, 4)):
        window = moved[:, i : i + 4, j : j + 4].reshape(1, 16, 8)
        made[:, i : i + 4, j : j + 4] = block.attention(window, mask[number : number + 1]).reshape(1, 4, 4, 8)
    torch.testing.assert_close(block.attended(x), made.roll((2, 2), (1, 2)))
    assert sorted(mask.unique().tolist()) == [-100.0, 0.0] and (mask[0] == 0).all() and (mask[3] != 0).any()


def test_a_window_over_the_map_is_global_cosine_attention():
    torch.manual_seed(0)
    block = spread(Block(8, 2, 4, 4, True, "log", 2, False))
    attention, x = block.attention, torch.randn(2, 4, 4, 8, dtype=torch.float64)
    tokens = x.flatten(1, 2)
    weight, bias = attention.qkv.weight, torch.cat([attention.q_bias, torch.zeros(8), attention.v_bias])
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in F.linear(tokens, weight, bias).chunk(3, -1))
    logits = (
        F.cosine_similarity(q[..., :, None, :], k[..., None, :, :], dim=-1) * attention.scale.exp() + attention.bias()
    )
    expected = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2)).reshape(2, 4, 4, 8)
    torch.testing.assert_close(block.attended(x), expected)


def test_cosines_are_never_multiplied_by_more_than_a_hundred():
    block = Block(8, 2, 4, 4, False, "log", 2, False)
    torch.nn.init.normal_(block.attention.qkv.weight)
    x = torch.randn(1, 4, 4, 8)
    made = []
    for value in (math.log(100.0), 50.0):
        block.attention.scale.data.fill_(value)
        made.append(block.attended(x))
    torch.testing.assert_close(made[0], made[1])


def test_norms_of_zero_behind_the_branches_are_the_identity():
    block = Block(8, 2, 4, 4, False, "log", 2, False)
    for norm in (block.norm1, block.norm2):
        torch.nn.init.zeros_(norm.weight)
    x = torch.randn(1, 4, 4, 8)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("kind", ["log", "linear", "table"])
def test_a_bias_at_its_own_window_is_the_one_it_was_trained_with_and_carries_over_smoothly(kind):
    torch.manual_seed(0)
    bias = PositionBias(2, 4, kind)
    at_home = bias()
    bias.window = 8
    assert bias().shape == (2, 64, 64)
    bias.window = 4
    torch.testing.assert_close(bias(), at_home)


def test_log_spaced_offsets_by_hand():
    bias = PositionBias(1, 4, "log")
    bias.window = 7  # offsets to 6, of a window trained with offsets to 3: twice as far, and not twice as large
    offsets = bias.offsets().reshape(13, 13, 2)
    assert float(offsets[9, 6, 0]) == pytest.approx(math.log2(8 * 3 / 3 + 1) / 3)
    assert float(offsets[12, 6, 0]) == pytest.approx(math.log2(8 * 6 / 3 + 1) / 3)
    assert float(offsets[0, 6, 0]) == pytest.approx(-math.log2(17) / 3) and float(offsets[6, 6].abs().sum()) == 0


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["log", "linear", "table"])
def test_the_bias_alone_is_its_definition(kind, cached):
    assert apart(position_bias(bias=kind, window=5, cached=cached)) < 1e-6


def test_a_kept_bias_follows_its_weights():
    bias = PositionBias(1, 3, "log", cached=True).eval()
    with torch.no_grad():
        before = bias()
        bias.net[0].weight.mul_(2.0)
        assert not torch.equal(bias(), before)


def test_counts_of_a_block_and_of_the_bias():
    assert bias_macs(8, 3) == 576_000
    with torch.device("meta"):
        block, x = Block(96, 3, 64, 8, False, "log", 2, False), torch.empty(1, 64, 64, 96)
    found = macs.count(block, (x,), second_count=False, inspect_values=False)
    assert (
        found.macs == block_macs(64 * 64, 96, 8, 3) and block_macs(4096, 96, 8, 3, cached=True) == found.macs - 576_000
    )


def test_resizing_keeps_the_weights_and_refuses_what_does_not_fit():
    model = swin(width=8, depths=[1, 1], heads=[1, 2], window=4, resolution=32)
    names = list(model.state_dict())
    model.resize(64, 8)
    assert list(model.state_dict()) == names and model(torch.randn(1, 3, 64, 64)).shape == (1, 10)
    with pytest.raises(ValueError, match="windows of 5"):
        model.resize(64, 5)
    with pytest.raises(ValueError, match="does not fall into windows"):
        swin(resolution=50)


def test_the_task_learns_at_one_resolution_and_is_judged_at_another(tmp_path, monkeypatch):
    model = swin(width=8, depths=[1, 1], heads=[1, 2], trained_resolution=16, trained_window=2, resolution=32, window=4)
    assert isinstance(model, Swin)
    task, seen = ResizedDigits(tmp_path, 0), []
    task.fits(model, "tiny")
    assert next(task.batches(3))[0].shape == (3, 3, 32, 32)
    monkeypatch.setattr(
        "suites.common.tasks.digits.train", lambda module, how, batches, seed: seen.append(next(batches(1, 0))[0].shape)
    )
    found = task.learn(model)
    assert seen == [(32, 3, 16, 16)] and model.resolution == 32 and found["trained_window"] == 2
    with pytest.raises(TaskError, match="cannot be resized"):
        task.fits(torch.nn.Linear(2, 2), "other")


def test_a_checkpointed_swin_has_the_same_gradients_and_keeps_less():
    saved = []
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = swin(width=8, depths=[1, 2], heads=[1, 2], resolution=32, checkpointed=checkpointed).train()
        images = torch.randn(2, 3, 32, 32)
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(images).square().sum()
        loss.backward()
        saved.append(sum(kept))
        found.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))
    assert saved[1] < 0.5 * saved[0]
