"""Networks of transformers from a configuration or a local folder: counted by hand, and refused in words."""

import json
import shutil
import subprocess

import pytest
import torch

from bench.config import catalogue
from bench.errors import UsageError
from bench.meters import macs, params
from bench.store.records import Store
from tests.faults.driver import command, environment
from tests.sweeping import configuration, sweep

pytest.importorskip("transformers")
from suites.common.hf_bridge import import_transformers
from suites.common.hf_models import hf_model

transformers = import_transformers()

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT, PICTURE = {**SMALL, "vocab_size": 100}, {**SMALL, "image_size": 32, "patch_size": 8}


def layers(tokens):
    """MACs of two layers of width 32: four projections, scores and sums, and a network of 64 hidden values."""
    return 2 * (4 * tokens * 32 * 32 + 2 * tokens * tokens * 32 + 2 * tokens * 32 * 64)


CONFIGURATIONS = {
    "BertForSequenceClassification": (lambda: transformers.BertConfig(**TEXT), layers(16) + 32 * 32 + 2 * 32),
    "BertModel": (lambda: transformers.BertConfig(**TEXT), layers(16) + 32 * 32),
    "ViTForImageClassification": (lambda: transformers.ViTConfig(**PICTURE), layers(17) + 16 * 192 * 32 + 2 * 32),
    "CLIPModel": (lambda: transformers.CLIPConfig(text_config=TEXT, vision_config=PICTURE, projection_dim=16), None),
    "T5ForConditionalGeneration": (
        lambda: transformers.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=100),
        None,
    ),
    "YolosForObjectDetection": (lambda: transformers.YolosConfig(**{**PICTURE, "image_size": [32, 32]}), None),
}


def folder_of(root, architecture):
    config = CONFIGURATIONS[architecture][0]()
    config.architectures = [architecture]
    config.save_pretrained(root / architecture)
    return root / architecture


@pytest.mark.parametrize("architecture", CONFIGURATIONS)
def test_a_network_of_any_kind_runs_with_its_own_inputs_and_counts_per_sample(tmp_path, architecture):
    module = hf_model(name=str(folder_of(tmp_path, architecture)), length=16)
    assert type(module.model).__name__ == architecture
    one, two = (macs.count(module, module.example_inputs(batch), second_count=False) for batch in (1, 2))
    assert not one.at_least
    assert two.macs == 2 * one.macs or architecture == "CLIPModel"  # its scores pair every text with every picture
    right = CONFIGURATIONS[architecture][1]
    assert right is None or one.macs == right
    assert isinstance(module(*module.example_inputs(1)), transformers.utils.ModelOutput)


def test_the_scores_of_text_and_pictures_grow_with_the_square_of_the_batch(tmp_path):
    module = hf_model(name=str(folder_of(tmp_path, "CLIPModel")), length=16)
    one, two = (macs.count(module, module.example_inputs(batch), second_count=False).macs for batch in (1, 2))
    assert two - 2 * one == 2 * 16  # four pairs instead of two


def test_a_causal_model_offers_what_generate_needs(tmp_path):
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, bos_token_id=1, eos_token_id=2)
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    module = hf_model(name=str(tmp_path))
    ids = torch.randint(0, 100, (2, 6))
    first, cache = module.prefill(ids)
    second, _ = module.decode(first.argmax(-1, keepdim=True), cache)
    assert first.shape == second.shape == (2, 100)


@pytest.mark.parametrize("config", [transformers.GPT2Config, transformers.BertConfig])
def test_a_configuration_that_names_no_network_is_a_decoder_if_its_kind_only_writes(tmp_path, config):
    config(**TEXT, bos_token_id=1, eos_token_id=2).save_pretrained(tmp_path)
    assert hasattr(hf_model(name=str(tmp_path), length=8), "prefill") == (config is transformers.GPT2Config)


def test_weights_of_the_folder_are_loaded(tmp_path):
    folder = folder_of(tmp_path, "BertModel")
    stored = hf_model(name=str(folder / "config.json"), length=8)
    stored.model.save_pretrained(folder)
    again = hf_model(name=str(folder), length=8)
    ids = again.example_inputs(1)
    torch.testing.assert_close(again(*ids).last_hidden_state, stored(*ids).last_hidden_state)


def test_tied_weights_count_once(tmp_path):
    config = transformers.BertConfig(**TEXT)
    config.architectures = ["BertForMaskedLM"]
    config.save_pretrained(tmp_path)
    module = hf_model(name=str(tmp_path), length=8)
    names = {id(p): p.numel() for p in module.parameters()}
    assert params.measure(module).total == sum(names.values())


def test_an_edited_configuration_is_another_case_and_a_moved_folder_is_not(tmp_path):
    folder = folder_of(tmp_path, "BertModel")
    digest = lambda place: catalogue.load().model(f"hf:{place}").digest  # noqa: E731 - one line is enough
    first = digest(folder)
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert digest(moved) == first
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**text, "num_hidden_layers": 3}))
    assert digest(folder) != first


def test_code_of_a_folder_is_not_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: ...\nclass MineConfig: ...\n")
    settings = {
        "model_type": "mine",
        "architectures": ["Mine"],
        "auto_map": {"AutoConfig": "mine.MineConfig", "AutoModel": "mine.Mine"},
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match="no configuration of transformers"):
        hf_model(name=str(tmp_path))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "no configuration"),
        ('{"model_type": "bert", "architectures": ["Evil"]}', "its network Evil is not one of transformers"),
        ('{"model_type": "bert", "hidden_size": 7}', "BertModel cannot be made of it"),
    ],
)
def test_a_folder_that_makes_no_network_is_refused_with_its_name(tmp_path, settings, message):
    (tmp_path / "config.json").write_text(settings)
    with pytest.raises(UsageError, match=message) as told:
        hf_model(name=str(tmp_path))
    assert "hf:" in str(told.value)


def test_a_name_of_the_hub_is_not_looked_up(tmp_path):
    with pytest.raises(UsageError, match="nothing is downloaded"):
        catalogue.load().model("hf:google/bert")


@pytest.mark.slow
def test_a_whole_sweep_of_a_folder_with_spaces(tmp_path):
    folder = folder_of(tmp_path / "my models", "ViTForImageClassification")
    argv = [word for word in command(tmp_path, ["x"]) if word != "suite=faultsuite"]
    argv += [f"model='hf:{folder}'", "suite.batches=[2]"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=300
    )
    (record,) = Store(tmp_path / "results").iterate()
    assert record["status"] == "ok", done.stderr
    values = {row["metric"]: row["value"] for row in record["readings"]}
    assert values["macs"] == CONFIGURATIONS["ViTForImageClassification"][1]
    assert values["latency_ms"] > 0 and values["peak_memory_bytes"] > 0


@pytest.mark.slow
def test_outputs_with_a_cache_and_keyword_inputs_are_measured_as_they_are(tmp_path):
    (record,) = sweep(configuration(tmp_path, ["tests.field.modules:llama"])).records
    values = {row["metric"]: row["value"] for row in record["readings"]}
    grouped = 2 * (16 * 32 * (32 + 2 * 16 + 32) + 2 * 16 * 16 * 32 + 3 * 16 * 32 * 64) + 16 * 32 * 100
    # its table of angles is a product as well: 4 frequencies by 16 positions
    assert record["status"] == "ok", record["error"]
    assert values["macs"] == pytest.approx(grouped, abs=4 * 16)
    assert values["latency_ms"] > 0 and values["peak_memory_bytes"] > 0
