import argparse

import pytest
import torch
from safetensors.torch import save_file

from suites.common import timm_bridge
from suites.common.checkpoint import CheckpointError, load_checkpoint
from suites.common.vit import vit
from tests.suites.common.test_vit import timm

TINY = {"width": 16, "heads": 2, "depth": 2, "patch": 4, "resolution": 16, "classes": 5}


def build(**changes):
    return vit(**{**TINY, **changes})


def same(one, other):
    return all(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in one.state_dict())


@pytest.mark.parametrize("nested", [None, "model", "state_dict"])
def test_torch_files_load_also_when_nested(tmp_path, nested):
    source, target = build(), build()
    state = source.state_dict()
    torch.save(state if nested is None else {nested: state, "epoch": 300}, tmp_path / "w.pth")
    load_checkpoint(target, tmp_path / "w.pth")
    assert same(source, target)


def test_safetensors_load_and_wrappers_names_are_seen_through(tmp_path):
    source, target = build(), build()
    save_file({f"module.{k}": v.clone() for k, v in source.state_dict().items()}, tmp_path / "w.safetensors")
    load_checkpoint(target, tmp_path / "w.safetensors")
    assert same(source, target)


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    torch.save({"model": build().state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"refused.*safetensors\.torch\.save_file"):
        load_checkpoint(build(), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_and_missing_files_are_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=f"{name} does not exist"):
        load_checkpoint(build(), tmp_path / name)
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(build(), tmp_path / name)


def test_wrong_names_are_told_with_the_nearest(tmp_path):
    state = dict(build().state_dict())
    state["blocks.0.attn.qkv_weight"] = state.pop("blocks.0.attn.qkv.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r'did you mean "blocks\.0\.attn\.qkv_weight"'):
        load_checkpoint(build(), tmp_path / "w.pth")


def test_another_head_is_told_with_the_number_of_classes(tmp_path):
    torch.save(build(classes=7).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="build the model with classes=7"):
        load_checkpoint(build(), tmp_path / "w.pth")


def test_a_failed_load_leaves_the_module_as_it_was(tmp_path):
    torch.save(build(depth=3).state_dict(), tmp_path / "w.pth")
    module = build()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(CheckpointError, match="beyond the model"):
        load_checkpoint(module, tmp_path / "w.pth")
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_positions_are_resized_as_timm_does_it(tmp_path):
    timm()
    from timm.layers import resample_abs_pos_embed

    source, target = build(distilled=True), build(distilled=True, resolution=24)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    told = load_checkpoint(target, tmp_path / "w.pth")
    expected = resample_abs_pos_embed(source.pos_embed.detach(), (6, 6), num_prefix_tokens=2)
    assert told["resized_positions"] == (4, 6)
    assert torch.allclose(target.pos_embed, expected, atol=1e-6)


def test_a_checkpoint_of_timm_loads_by_name(tmp_path):
    theirs = timm().create_model("deit_tiny_patch16_224")
    torch.save({"model": theirs.state_dict()}, tmp_path / "deit.pth")
    ours = vit(width=192, heads=3, depth=12, patch=16)
    load_checkpoint(ours, tmp_path / "deit.pth")
    assert same(ours, timm_bridge.as_vit(theirs))
