"""Networks of diffusers from files, folders and class names: counted as closed forms say, refused with what to do."""

import json
import math
from typing import get_args, get_type_hints

import pytest
import torch

from bench.config import catalogue as catalogues
from bench.errors import UsageError
from bench.meters import macs
from suites.common.diffusers_schedulers import NAMED, Scheduling, of_pipeline, scheduling
from suites.common.released_diffusers import CONFIGS
from suites.diffusion import closed_forms as forms

pytest.importorskip("diffusers")
from suites.common.diffusers_bridge import diffusers_model, released_diffuser

SMALL = CONFIGS["small_diffuser"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    return tmp_path


def counted(build):
    with torch.device("meta"):
        model = build()
        inputs = model.example_inputs(1)
    found = macs.count(model, inputs, {}, second_count=False, inspect_values=False)
    assert not found.at_least
    return sum(p.numel() for p in model.parameters()), found.macs


def test_a_file_a_folder_and_a_pipeline_s_folder_give_the_same_network(folder):
    (folder / "pipeline" / "unet").mkdir(parents=True)
    (folder / "pipeline" / "unet" / "config.json").write_text(json.dumps(SMALL))
    names = [str(folder / "config.json"), str(folder), str(folder / "pipeline")]
    assert len({repr(diffusers_model(name=name).model) for name in names}) == 1


def test_weights_of_a_folder_are_loaded(folder):
    first = diffusers_model(name=str(folder))
    first.model.save_pretrained(folder)
    second = diffusers_model(name=str(folder))
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize("scheduler, evaluations", [("flow_euler", 3), ("ddim", 3), ("pndm", 15), ("dpm_solver", 3)])
def test_a_scheduler_runs_and_leaves_nothing_to_the_next_image(folder, scheduler, evaluations):
    torch.manual_seed(0)
    model = diffusers_model(name=str(folder), words=2, scheduler=scheduler)

    @torch.no_grad()
    def run(seed):
        plan = model.plan({"steps": 3 if scheduler != "pndm" else 6})
        state = model.start(model.example_noise(1, seed), model.example_cond(1))
        for index in range(len(plan)):
            state = model.step(index, state)
        return len(plan), model.finish(state)

    steps, first = run(0)
    run(1)
    assert torch.equal(first, run(0)[1]) and torch.isfinite(first).all() and steps == evaluations


def test_released_networks_have_their_parameters_and_products():
    assert counted(lambda: released_diffuser(name="flux_dev")) == (11_901_408_320, forms.flux(4096))
    assert counted(lambda: released_diffuser(name="sd15_unet")) == (859_520_964, forms.unet(forms.SD15))
    assert counted(lambda: released_diffuser(name="ldm4_unet", words=1))[1] == forms.unet(forms.LDM4)
    assert counted(lambda: released_diffuser(name="pixart_alpha_256"))[1] == forms.pixart(256)
    assert counted(lambda: released_diffuser(name="kandinsky22_prior")) == (1_026_225_920, 82_292_850_688)


@pytest.mark.slow
def test_the_network_behind_a_prior_is_counted_from_its_image_embedding():
    params, products = counted(lambda: released_diffuser(name="kandinsky22_unet"))
    assert f"{params / 1e9:.2f}" == "1.25" and products > 0


def test_a_size_can_be_said_in_pixels_or_in_latents():
    one = counted(lambda: released_diffuser(name="pixart_alpha_256", resolution=512))[1]
    assert one == counted(lambda: released_diffuser(name="pixart_alpha_256", latent=[64, 64]))[1] == forms.pixart(1024)


def test_what_is_none_of_diffusers_says_so_and_what_to_do(folder):
    with pytest.raises(UsageError, match=r"UNet2DConditionModell: diffusers has no such network.*UNet2DConditionModel"):
        diffusers_model(name="UNet2DConditionModell")
    with pytest.raises(UsageError, match="there is no example of what it is called with"):
        diffusers_model(name="AutoencoderKL")
    (folder / "other.json").write_text("{}")
    with pytest.raises(UsageError, match='has no "_class_name"'):
        diffusers_model(name=str(folder / "other.json"))
    (folder / "broken.json").write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        diffusers_model(name=str(folder / "broken.json"))
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=r"there is no config\.json in it"):
        diffusers_model(name=str(folder / "empty"))
    with pytest.raises(UsageError, match="no multiple of the 8 pixels"):
        diffusers_model(name=str(folder), resolution=12)


def test_the_prefix_takes_paths_and_class_names_and_names_a_missing_file(folder):
    known = catalogues.load()
    assert known.model(f"diffusers:{folder}").content == folder
    entry = known.model("diffusers:DiTTransformer2DModel")
    assert entry.content is None and entry.settings["name"] == "DiTTransformer2DModel"
    with pytest.raises(UsageError, match="nothing is downloaded"):
        known.model("diffusers:some/where.json")


def pipeline(tmp_path, scheduler):
    for name, file, fields in (("unet", "config.json", SMALL), ("scheduler", "scheduler_config.json", scheduler)):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(fields))
    return diffusers_model(name=str(tmp_path), words=2)


@torch.no_grad()
def ran(model, steps=3):
    plan = model.plan({"steps": steps})
    state = model.start(model.example_noise(1, 0), model.example_cond(1))
    for index in range(len(plan)):
        state = model.step(index, state)
    return [step["t"] for step in plan], model.finish(state)


def test_a_pipeline_is_sampled_by_its_own_scheduler_with_its_fields(tmp_path):
    fields = {"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0", "prediction_type": "v_prediction"}
    model = pipeline(tmp_path, {**fields, "timestep_spacing": "trailing"})
    times, found = ran(model)
    assert times == [999.0, 666.0, 332.0] and torch.isfinite(found).all() and torch.equal(found, ran(model)[1])
    # noise as wide as the scheduler begins, which is told the network divided by it
    begun = model.start(model.example_noise(1, 0), model.example_cond(1))["x"]
    assert torch.allclose(begun, model.example_noise(1, 0) * float(model.fresh_scheduler().init_noise_sigma))
    # another scheduler by name reads the pipeline's fields, of which what is predicted is one
    other = diffusers_model(name=str(tmp_path), words=2, scheduler="ddim")
    assert other.how.made(3, 1).config.prediction_type == "v_prediction"
    assert diffusers_model(name=str(tmp_path / "unet"), words=2).scheduler == "ddim"  # whose folder has no scheduler


def test_a_shift_that_follows_the_picture_s_size_is_the_pipeline_s_of_flux(tmp_path):
    shift = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256}
    fields = {"_class_name": "FlowMatchEulerDiscreteScheduler", "max_image_seq_len": 4096, "shift": 3.0, **shift}
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(fields))
    for patches, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        sigmas = of_pipeline(tmp_path).made(4, patches).sigmas
        wanted = [math.exp(mu) / (math.exp(mu) + 1 / t - 1) if t else 0 for t in (1.0, 0.75, 0.5, 0.25, 0.0)]
        assert sigmas.tolist() == pytest.approx(wanted, abs=1e-6)


def test_cogvideox_follows_velocities_of_a_diffusion_and_not_a_flow(tmp_path):
    scheduler = scheduling(None, None, "CogVideoXTransformer3DModel")
    assert scheduler.name == "cogvideox" and scheduler.made(4, 1).config.prediction_type == "v_prediction"
    for door in (diffusers_model, released_diffuser):
        named = get_type_hints(door)["scheduler"]
        assert set(get_args(get_args(named)[0])) == set(NAMED)
    (tmp_path / "scheduler").mkdir()
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "CogVideoXDPMScheduler", "snr_shift_scale": 1.0}))
    assert of_pipeline(tmp_path) == Scheduling("CogVideoXDDIMScheduler", {"snr_shift_scale": 1.0})
    file.write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    with pytest.raises(UsageError, match=r"DDPMScheduler draws noise on the way.*scheduler=flow_euler or ddim"):
        of_pipeline(tmp_path).made(4, 1)
    file.write_text("[]")
    with pytest.raises(UsageError, match="no configuration of a scheduler"):
        of_pipeline(tmp_path)


def test_videos_of_cogvideox_have_the_frames_that_their_configuration_says():
    """49 frames of 480 x 720 px are 13 x 30 x 45 tokens; 81 of 768 x 1360 are 22 latents, 11 x 48 x 85 tokens."""
    for name, tokens, width, patch in (("cogvideox_2b", 17_550, 1920, 64), ("cogvideox1_5_5b", 44_880, 3072, 128)):
        ends = 2 * tokens * patch * width + 226 * 4096 * width + 512 * (width + 512) + 512 * 2 * width
        wanted = forms.blocks(1, tokens + 226, width) + ends + 2 * 512 * 6 * width
        assert counted(lambda name=name: released_diffuser(name=name, layers=1))[1] == wanted, name
