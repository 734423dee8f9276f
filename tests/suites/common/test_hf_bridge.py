"""Decoders of transformers from a configuration: the same calls as the house's own."""

import json

import pytest
import torch

from bench.errors import UsageError
from suites.common.hf_bridge import hf_decoder

pytestmark = pytest.mark.slow

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_prompt_and_steps_equal_one_parallel_forward(folder, cache):
    model = hf_decoder(name=str(folder), cache=cache, capacity=40)
    ids = torch.randint(61, (2, 20))
    with torch.no_grad():
        full = model(ids)
        logits, kept = model.prefill(ids[:, :12])
        assert torch.allclose(logits, full[:, 11], atol=1e-4)
        saved = model.copy_cache(kept)
        for place in range(12, 20):
            logits, kept = model.decode(ids[:, place : place + 1], kept)
            assert torch.allclose(logits, full[:, place], atol=1e-4)
        assert model.cache_bytes(kept) == 2 * 20 * 2 * 2 * 2 * 8 * 4
        again, _ = model.decode(ids[:, 12:13], saved)
    assert torch.allclose(again, full[:, 12], atol=1e-4)
    assert model.cache_allocated(kept) == (2 if cache == "static" else 1) * model.cache_bytes(kept)


def test_weights_of_a_folder_are_loaded_and_a_file_gives_random_ones(folder):
    first = hf_decoder(name=str(folder / "config.json"))
    first.model.save_pretrained(folder)
    second = hf_decoder(name=str(folder))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_a_state_is_counted_whatever_came_before_and_an_own_way_of_keeping_is_refused(tmp_path):
    sizes = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    (tmp_path / "mamba.json").write_text(json.dumps({"model_type": "mamba", **sizes}))
    model, ids = hf_decoder(name=str(tmp_path / "mamba.json")), torch.randint(61, (2, 9))
    with torch.no_grad():
        _, kept = model.prefill(ids[:, :6])
        first = model.cache_bytes(kept)
        for place in range(6, 9):
            logits, kept = model.decode(ids[:, place : place + 1], kept)
        assert torch.allclose(logits, model(ids)[:, -1], atol=1e-4)
    assert first == model.cache_bytes(kept) == model.cache_allocated(kept) == 2 * 2 * 64 * (8 + 4) * 4
    (tmp_path / "rwkv.json").write_text(json.dumps({"model_type": "rwkv", "attention_hidden_size": 32, **sizes}))
    with pytest.raises(UsageError, match="in an own way"):
        hf_decoder(name=str(tmp_path / "rwkv.json"))


def test_what_is_not_there_says_so(tmp_path):
    with pytest.raises(UsageError, match="nothing is downloaded"):
        hf_decoder(name="no/such/model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="not a causal language model"):
        hf_decoder(name=str(tmp_path))
