"""Networks of diffusers from files, folders and class names: counted as closed forms say, refused with what to do."""

import json

import pytest
import torch

from bench.config import catalogue as catalogues
from bench.errors import UsageError
from bench.meters import macs
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
