"""Methods on tiny networks of diffusers: settings that change nothing, references, what runs, nothing left over."""

import pytest
import torch

from bench.meters import macs
from suites.common.released_diffusers import CONFIGS
from suites.diffusion import closed_forms as forms
from suites.diffusion.banded import band_mask, executed_pairs
from suites.diffusion.bottleneck import bottleneck
from suites.diffusion.cachequant import cachequant
from suites.diffusion.flexdit import flexdit, kinds
from suites.diffusion.pattern_operator import pairs
from suites.diffusion.patterns import Layout
from suites.diffusion.rettention import rettention
from suites.diffusion.sparse_vdit import sparse_vdit
from tests.suites.diffusion.sampling import images

pytest.importorskip("diffusers")
import diffusers

from suites.common.diffusers_bridge import DiffusersModel
from suites.diffusion.attending import Tokens
from suites.diffusion.bottleneck_diffusers import as_given, as_maps
from suites.diffusion.cachequant_diffusers import heard, skipped
from suites.diffusion.rettention_diffusers import WindowPass


def seeded(kind, **fields):
    torch.manual_seed(0)
    return getattr(diffusers, kind)(**fields).eval()


def pixart(depth=2):
    network = seeded(
        "PixArtTransformer2DModel", num_attention_heads=2, attention_head_dim=8, sample_size=8, num_layers=depth,
        caption_channels=4096, cross_attention_dim=16,
    )  # fmt: skip
    return DiffusersModel(network, words=3)


def unet():
    fields = {name: value for name, value in CONFIGS["small_diffuser"].items() if name != "_class_name"}
    return DiffusersModel(seeded("UNet2DConditionModel", **fields), words=2)


def flux(side=4):
    network = seeded(
        "FluxTransformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return DiffusersModel(network, latent=[side, side], words=3)


def hunyuan():
    network = seeded(
        "HunyuanVideoTransformer3DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10,
        num_layers=1, num_single_layers=1, num_refiner_layers=1, patch_size=1, text_embed_dim=16,
        pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    return DiffusersModel(network, latent=[3, 2, 4], words=5)


def cogvideox():
    network = seeded(
        "CogVideoXTransformer3DModel", num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4,
        time_embed_dim=8, text_embed_dim=8, num_layers=2, sample_width=8, sample_height=8, sample_frames=9,
        max_text_seq_length=5,
    )  # fmt: skip
    return DiffusersModel(network, latent=[3, 8, 8], words=5)


def counted(model):
    found = macs.count(model, model.example_inputs(1), {}, second_count=False, inspect_values=False)
    assert not found.at_least
    return found.macs, found.method_macs


IDENTITIES = {
    "rettention": (pixart, lambda model: rettention(model, warmup=4)),
    "cachequant": (unet, lambda model: cachequant(model, interval=1)),
    "bottleneck": (
        flux, lambda model: bottleneck(model, scales=[1.0], steps=[4], strengths=[0.0], shifts=[1.0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_setting_that_changes_nothing_gives_the_plain_images_bit_for_bit(name):
    plain, method = IDENTITIES[name]
    assert torch.equal(images(plain(), guidance=2.0, steps=4), images(method(plain()), guidance=2.0, steps=4))


ROWS = {
    "rettention": lambda: rettention(pixart(), s=0.25, warmup=1, refresh=3),
    "rettention of a video": lambda: rettention(hunyuan(), s=0.5, warmup=0, refresh=2),
    "sparse_vdit": lambda: sparse_vdit(cogvideox(), pattern="multi_diagonal"),
    "cachequant": lambda: cachequant(unet(), interval=3, images=2),
    "bottleneck": lambda: bottleneck(flux(8), scales=[1.0, 0.5, 1.0], steps=[1, 2, 1]),
    "flexdit": lambda: flexdit(pixart(8)),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_run_leaves_nothing_to_the_next(name):
    model = ROWS[name]()
    first, other = (images(model, seed=seed, guidance=1.5, steps=4) for seed in (0, 1))
    images(model, steps=2)
    assert torch.equal(first, images(model, guidance=1.5, steps=4)) and not torch.equal(first, other)
    assert torch.isfinite(first).all()


def test_a_window_beside_words_is_the_masked_dense_attention():
    """Three frames of eight places behind five words, of which two are padding in one sample."""
    tokens = Tokens(3, 8, 5, True)
    q, k, v = (torch.randn(2, 2, 29, 4, dtype=torch.double) for _ in range(3))
    padding = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    padding[1, ..., 3:] = False
    mask = torch.cat([padding.expand(2, 1, 24, 5), band_mask(8, 2).repeat(3, 3).expand(2, 1, 24, 24)], dim=-1)
    scores = (q[:, :, 5:] @ k.transpose(-1, -2) / 2).masked_fill(~mask, float("-inf"))
    out, mass = WindowPass()(q, k, v, 2, tokens, padding)
    assert torch.allclose(out, scores.softmax(-1) @ v) and torch.allclose(mass, scores.logsumexp(-1))


@pytest.mark.parametrize("network", [pixart, hunyuan, cogvideox])
def test_a_window_over_everything_is_the_plain_network_also_in_its_sparse_steps(network):
    plain = images(network(), steps=4)
    assert torch.allclose(plain, images(rettention(network(), s=2.0, warmup=0, refresh=4), steps=4), atol=1e-4)


def test_steps_of_windows_count_what_runs_and_a_refresh_what_the_method_adds():
    model = rettention(pixart(), s=0.5, warmup=1, refresh=5)
    model.plan({"steps": 3})
    state, found = model.start(model.example_noise(1, 0), model.example_cond(1)), []
    whole, window = forms.pixart(16, 3, 16, 2), 2 * 2 * executed_pairs(16, 4) * 16

    class Step(torch.nn.Module):
        def __init__(self, index, state):
            super().__init__()
            self.model, self.index, self.state = model, index, state

        def forward(self, x):
            return self.model.step(self.index, self.state)["x"]

    with torch.no_grad():
        for index in range(3):
            count = macs.count(Step(index, state), (state["x"],), {}, second_count=False, inspect_values=False)
            found.append((count.macs, count.method_macs))
            state = model.step(index, state)
    assert found == [(whole, 0), (whole, window), (whole - 2 * 2 * 16**2 * 16 + window, 0)]


@pytest.mark.parametrize("network, layers, width, frames", [(hunyuan, 2, 20, 3), (cogvideox, 2, 16, 3)])
def test_patterns_over_everything_are_the_plain_network_and_others_run_their_pairs(network, layers, width, frames):
    plain = network()
    inputs = plain.example_inputs(1)
    places = {hunyuan: 8, cogvideox: 16}[network]
    with torch.no_grad():
        for pattern in ("full", "diagonal", "multi_diagonal", "stripe"):
            wide = sparse_vdit(network(), pattern=pattern, band=99, near=99, columns=99)
            assert torch.allclose(plain(*inputs), wide(*inputs), atol=1e-4)
    tokens, whole = frames * places + 5, counted(plain)[0]
    layout = Layout(frames, places, 3, 1, 4)
    for pattern in ("diagonal", "multi_diagonal", "stripe", "skip"):
        few = sparse_vdit(network(), pattern=pattern, band=3, near=1, columns=4)
        saved = tokens**2 - pairs(pattern, layout, 5, executed=True)
        assert counted(few) == (whole - layers * 2 * saved * width, 0)


def test_a_skipped_step_is_the_network_s_own_from_its_own_feature_and_counts_its_outer_part():
    model = cachequant(unet(), interval=6, schedule="uniform", correction=False)
    x, times, *cond = model.example_inputs(2)
    with torch.no_grad():
        found, feature = heard(model, x, times, tuple(cond))
        assert torch.allclose(found, skipped(model, x, times, tuple(cond), feature), atol=1e-5)
    plan = model.plan({"steps": 6, "guidance": 2.0})
    assert [step["mode"] for step in plan] == ["full"] + ["cached"] * 5

    class Skipped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return skipped(self.model, x, times[:1], (cond[0][:1],), feature[:1])

    shape = forms.UnetShape(8, 1, 16, (1, 2), (False, True), 2, 16, 1)
    count = macs.count(Skipped(), (x[:1],), {}, second_count=False, inspect_values=False)
    assert count.macs == forms.unet_skipped(shape) and counted(unet())[0] == forms.unet(shape)


def test_stages_of_flux_are_told_their_places_and_cost_what_their_size_costs():
    model = bottleneck(flux(8), scales=[1.0, 0.5, 1.0], steps=[1, 2, 1])
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append([tuple(each.shape) for each in inputs] + [inputs[1]]))
    images(model, batch=1)
    assert [each[0][1] for each in seen] == [16, 4, 4, 16] == [each[4][0] for each in seen]
    times = [float(each[-1]) for each in seen]
    assert times[0] == 1 and times == sorted(times, reverse=True)  # Flux is told times in 0..1
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(as_maps(model, as_given(model, latents), (8, 8)), latents)
    patch = as_given(model, latents)[:, 5].unflatten(-1, (4, 2, 2))  # the second patch of the second row
    assert torch.equal(patch, latents[:, :, 2:4, 2:4])


def test_flexdit_on_pixart_counts_its_closed_form_and_passes_dense_tokens_through():
    chosen = kinds(8, 1, 2, 1, 1)
    model = flexdit(pixart(8), fixed=4)
    assert counted(model) == (forms.pixart_flexdit(chosen, 16, 4, 3, 16), 0)
    assert forms.pixart_flexdit(["plain"] * 8, 16, 4, 3, 16) == forms.pixart(16, 3, 16, 8)
    inputs, recovery = model.example_inputs(1), model.model.transformer_blocks[3]
    given = []
    recovery.block.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    model.model.transformer_blocks[1].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    with torch.no_grad():
        model(*inputs)
    assert torch.equal(given[0], given[1])  # what the module was given is what its recovery goes on with
    assert recovery.shared.dense is None


def test_what_cannot_be_done_on_a_network_of_diffusers_is_said():
    for method, network, why in (
        (rettention, unet, "works on transformers of diffusers"),
        (sparse_vdit, cogvideox, "searches networks of this house"),
        (lambda model: sparse_vdit(model, pattern="skip"), pixart, "makes pictures"),
        (lambda model: cachequant(model, bits="w8a8"), unet, "rounds networks of this house"),
        (cachequant, pixart, "works on UNet2DConditionModel"),
        (bottleneck, pixart, "works on flows"),
        (lambda model: bottleneck(model, scales=[1.0, 0.75, 1.0]), flux, "no multiple of the patch"),
        (flexdit, flux, "works on square pictures by diffusers' PixArt"),
        (lambda model: cachequant(rettention(model)), pixart, "another method already"),
    ):
        with pytest.raises(ValueError, match=why):
            method(network())
