"""SLAB-Swin: plain it is timm's Swin, folded it is the unfolded network."""

import pytest
import torch

from suites.attention.slab import LinearAttention
from suites.attention.slab_swin import WindowAttention, apart, folded_swin, macs, offsets_in_window, slab_swin

TINY = {"width": 24, "depths": [2, 1, 2, 1], "heads": [2, 2, 4, 4], "window": 2, "resolution": 64, "classes": 10}


def small(variant):
    torch.manual_seed(0)
    model = slab_swin(variant=variant, **TINY)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("variant", ["slab", "prepbn"])
def test_folding_changes_nothing(variant):
    model = small(variant)
    images = model.example_inputs(2)[0]
    with torch.no_grad():
        before = model(images)
        after = folded_swin(model)(images)
    assert torch.allclose(before, after, atol=1e-5)
    assert not any("bn" in name for name, _ in model.named_parameters())


def test_the_first_two_stages_attend_linearly_over_the_whole_map():
    linear = [m.grid for m in small("slab").modules() if isinstance(m, LinearAttention)]
    assert linear == [16, 16, 8]
    assert sum(isinstance(m, WindowAttention) for m in small("slab").modules()) == 3
    assert not any(isinstance(m, LinearAttention) for m in small("prepbn").modules())


def test_plain_tiny_has_the_size_of_swin_tiny():
    with torch.device("meta"):
        model = slab_swin(variant="plain")
    assert sum(p.numel() for p in model.parameters()) == 28_288_354
    assert round(macs(linear=False) / 1e9, 1) == 4.5


def test_plain_is_timms_swin_given_the_same_weights():
    from suites.common.torchvision_remedy import NotInstalled, import_beside_torchvision

    try:
        swin = import_beside_torchvision("timm.models.swin_transformer")
    except NotInstalled as reason:
        pytest.skip(str(reason))
    torch.manual_seed(0)
    theirs = swin.SwinTransformer(
        img_size=64,
        patch_size=4,
        num_classes=7,
        embed_dim=24,
        depths=(2, 2, 2, 2),
        num_heads=(2, 2, 4, 4),
        window_size=4,
    ).eval()
    ours = slab_swin(
        width=24, depths=[2, 2, 2, 2], heads=[2, 2, 4, 4], window=4, resolution=64, classes=7, variant="plain"
    )
    ours.load_state_dict(_renamed(theirs.state_dict(), ours))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-4)


def _renamed(state, ours):
    """timm's names in ours: its stages hold blocks, ours stand in one row."""
    first = {"patch_embed.proj": "patch_embed", "patch_embed.norm": "patch_norm", "norm": "norm", "head.fc": "head"}
    inner = {
        "norm1": "norm1", "norm2": "norm2", "attn.qkv": "attn.qkv", "attn.proj": "attn.proj", "mlp.fc1": "fc1",
        "mlp.fc2": "fc2", "attn.relative_position_bias_table": "attn.bias",
    }  # fmt: skip
    found, place = {}, 0
    for stage in range(4):
        if stage:
            for part in ("norm.weight", "norm.bias", "reduction.weight"):
                found[f"stages.{place}.{part}"] = state[f"layers.{stage}.downsample.{part}"]
            place += 1
        for block in range(2):
            for theirs, mine in inner.items():
                for kind in ("", ".weight", ".bias"):
                    key = f"layers.{stage}.blocks.{block}.{theirs}{kind}"
                    if key in state:
                        found[f"stages.{place}.{mine}{kind}"] = state[key]
            place += 1
    for theirs, mine in first.items():
        for kind in (".weight", ".bias"):
            found[mine + kind] = state[theirs + kind]
    assert set(found) == set(ours.state_dict())
    return found


def test_shifted_windows_keep_apart_what_the_roll_brings_together():
    mask = apart(4, 2, 1)
    assert mask.shape == (4, 4, 4)
    assert torch.equal(mask[0], torch.zeros(4, 4))  # the first window of the rolled grid holds old neighbours only
    assert int((mask[3] == 0).sum()) == 4  # in the last corner every token is alone
    assert torch.equal(apart(4, 2, 0), torch.zeros(4, 4, 4))


def test_offsets_of_a_window_are_counted_by_hand():
    assert offsets_in_window(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_what_does_not_fit_says_so():
    with pytest.raises(ValueError, match="does not divide the grids"):
        slab_swin(window=5)
    with pytest.raises(ValueError, match="LayerNorm cannot be folded"):
        slab_swin(variant="sla", folded=True, **TINY)
    with pytest.raises(ValueError, match="eval"):
        folded_swin(small("slab").train())
