"""Models of published sizes are transformers' own, part by part, and count as the papers' arithmetic does."""

import pytest
import torch

from bench.errors import UsageError
from bench.meters import macs
from suites.common.llama_bridge import weights_of
from suites.vlm_tokens import closed_forms, schedules
from suites.vlm_tokens.published import SMALL_TOWER, published_visual
from suites.vlm_tokens.pyramiddrop import pyramiddrop
from suites.vlm_tokens.visiondrop import visiondrop, visionzip

transformers = pytest.importorskip("transformers")


def llava_of(model, tower, text):
    """transformers' LLaVA of these sizes; with a model, of its weights."""
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **tower},
        text_config={"model_type": "llama", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, **text},
        image_token_index=text["vocab_size"] - 1, vision_feature_layer=-2, projector_hidden_act="gelu",
    )  # fmt: skip
    llava = transformers.LlavaForConditionalGeneration(config).eval()
    if model is None:
        return llava
    inner = llava.model
    inner.vision_tower.load_state_dict(model.tower.model.state_dict())
    inner.multi_modal_projector.load_state_dict(model.projector.state_dict())
    for name, weight in weights_of(model.decoder).items():
        owner = llava if name == "lm_head" else inner.language_model
        owner.get_submodule(name.removeprefix("model.")).weight = weight
    return llava


def test_the_small_model_is_transformers_llava_to_the_logits():
    torch.manual_seed(0)
    model = published_visual(name="small_llava", prefix=2)
    text = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4,
            "num_key_value_heads": 4, "vocab_size": 64}  # fmt: skip
    llava = llava_of(model, SMALL_TOWER, text)
    ids = torch.randint(60, (1, 2 + 16 + 5))
    named = ids.clone()
    named[:, 2:18] = 63
    wanted = llava(input_ids=named, pixel_values=torch.zeros(1, 3, 56, 56)).logits[:, -1]
    torch.testing.assert_close(model(ids), wanted, rtol=1e-4, atol=1e-5)
    logits, cache = model.prefill(ids)
    new = logits.argmax(dim=-1, keepdim=True)
    further = llava(input_ids=torch.cat([named, new], 1), pixel_values=torch.zeros(1, 3, 56, 56)).logits[:, -1]
    torch.testing.assert_close(model.decode(new, cache)[0], further, rtol=1e-4, atol=1e-5)


def test_llava_1_5_has_the_parameters_of_its_released_configuration():
    with torch.device("meta"):
        model = published_visual(name="llava_1_5_7b")
    assert sum(p.numel() for p in model.parameters()) == 7_063_427_072


def test_a_tower_runs_the_layers_that_are_read_or_all_of_them():
    torch.manual_seed(0)
    used, whole = (published_visual(name="small_llava", layers=1, whole_tower=w, prefix=2) for w in (False, True))
    ids = torch.zeros(1, 20, dtype=torch.long)
    counts = [macs.count(model, (ids,)).macs for model in (used, whole)]
    layer = 17 * (4 * 32**2 + 2 * 32 * 64) + 2 * 17**2 * 32
    assert counts[1] - counts[0] == layer
    whole.load_state_dict(used.state_dict())
    torch.testing.assert_close(whole(ids), used(ids))


def test_products_of_a_reduced_published_model_are_the_closed_form():
    torch.manual_seed(0)
    model = pyramiddrop(published_visual(name="small_llava", prefix=2))
    ids = torch.zeros(1, 24, dtype=torch.long)
    found = macs.count(model, (ids,))
    tower = closed_forms.vit_macs(17, 32, 2, 64, 3 * 14 * 14) + 16 * (32 * 48 + 48 * 48)
    counts = schedules.pyramiddrop(16, 8)
    assert counts == [16, 16, 8, 8, 4, 4, 2, 2]
    assert found.macs == tower + closed_forms.prefill_macs(model.shape, 8, counts)
    cuts = [(16, 8, 2), (8, 4, 4), (4, 2, 6)]
    assert found.method_macs == sum(closed_forms.last_row_macs(model.shape, 8, a, b) for a, b, _ in cuts)


def test_the_towers_tokens_go_before_the_projector():
    torch.manual_seed(0)
    ids = torch.zeros(1, 24, dtype=torch.long)
    model = visionzip(published_visual(name="small_llava", prefix=2, layers=2), dominant=5, contextual=2)
    tower = closed_forms.vit_macs(17, 32, 2, 64, 3 * 14 * 14) + 7 * (32 * 48 + 48 * 48)
    found = macs.count(model, (ids,))
    assert found.macs == tower + closed_forms.prefill_macs(model.shape, 8, [7, 7])
    # the class token's row, and similarities of nine tokens with two targets, by heads of 16 numbers
    assert found.method_macs == 17 * 32 + 9 * 2 * 16


def test_pooled_patches_are_not_ranked_by_the_tower():
    with torch.device("meta"):
        model = published_visual(name="llava_onevision_7b", layers=1)
    with pytest.raises(ValueError, match="pools"):
        visiondrop(model)


def test_unknown_names_and_settings_that_a_model_has_not_are_refused():
    with pytest.raises(UsageError, match="llava_1_5_7b"):
        published_visual(name="llava_1_5_7")
    with pytest.raises(ValueError, match="as its tower gives them"):
        published_visual(name="small_llava", tokens=5)
    with pytest.raises(ValueError, match="no words between"):
        published_visual(name="small_llava", history=1)
