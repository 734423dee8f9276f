"""Released decoders have their published sizes: by closed forms, and by the library's own networks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import UsageError
from suites.common.decoder_shape import (
    active_parameters,
    cache_bytes_per_token,
    cached_numbers,
    parameters,
    training_flops_per_token,
)
from suites.common.decoder_shapes import SHAPES, shape_of
from suites.common.released_configs import CONFIGS

#: Parameters as the tensors of the released files add up to.
LLAMA_LIKE = {
    "llama_7b": 6_738_415_616, "llama_13b": 13_015_864_320, "llama_30b": 32_528_943_616, "llama_65b": 65_285_660_672,
    "llama2_70b": 68_976_648_192, "llama3_8b": 8_030_261_248, "llama3_70b": 70_553_706_496,
    "llama3_2_1b": 1_235_814_400, "llama3_2_3b": 3_212_749_824, "codellama_34b": 33_743_970_304,
    "tinyllama_1_1b": 1_100_048_384, "smollm2_135m": 134_515_008, "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384, "yi_6b": 6_061_035_520, "yi_34b": 34_388_917_248, "mistral_7b": 7_241_732_096,
    "mistral_7b_v0_3": 7_248_023_552, "mistral_nemo_12b": 12_247_782_400, "mistral_large_2": 122_610_069_504,
    "mixtral_8x7b": 46_702_792_704, "mixtral_8x22b": 140_620_634_112, "gemma_2b": 2_506_172_416,
    "gemma_7b": 8_537_680_896, "phi3_mini": 3_821_079_552, "phi3_medium": 13_960_238_080, "phi4": 14_659_507_200,
    "qwen2_0_5b": 494_032_768, "qwen2_1_5b": 1_543_714_304, "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_14b": 14_770_033_664, "qwen2_5_32b": 32_763_876_352, "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976, "qwen3_4b": 4_022_468_096, "qwen3_14b": 14_768_307_200, "qwen3_32b": 32_762_123_264,
    "qwen3_30b_a3b": 30_532_122_624, "qwen3_235b_a22b": 235_093_634_560, "deepseek_v2": 235_741_434_880,
}  # fmt: skip

#: The same, and bytes of a cached token at two bytes a number: 4 x layers x key heads x head size.
OF_OTHER_BLOCKS = {
    "gpt2": (124_439_808, 36_864), "gpt2_medium": (354_823_168, 98_304), "gpt2_large": (774_030_080, 184_320),
    "gpt2_xl": (1_557_611_200, 307_200), "gpt_neo_125m": (125_198_592, 36_864),
    "gpt_neo_1_3b": (1_315_575_808, 196_608), "gpt_j_6b": (6_050_882_784, 458_752),
    "gpt_neox_20b": (20_554_567_680, 1_081_344), "opt_125m": (125_239_296, 36_864), "opt_350m": (331_196_416, 98_304),
    "opt_1_3b": (1_315_758_080, 196_608), "opt_2_7b": (2_651_596_800, 327_680), "opt_6_7b": (6_658_473_984, 524_288),
    "opt_13b": (12_853_473_280, 819_200), "opt_30b": (29_974_540_288, 1_376_256), "pythia_70m": (70_426_624, 12_288),
    "pythia_160m": (162_322_944, 36_864), "pythia_410m": (405_334_016, 98_304), "pythia_1b": (1_011_781_632, 131_072),
    "pythia_1_4b": (1_414_647_808, 196_608), "pythia_2_8b": (2_775_208_960, 327_680),
    "pythia_6_9b": (6_857_302_016, 524_288), "pythia_12b": (11_846_072_320, 737_280),
    "bloom_560m": (559_214_592, 98_304), "bloom_7b1": (7_069_016_064, 491_520),
    "bloom_176b": (176_247_271_424, 4_014_080), "phi_1_5": (1_418_270_720, 196_608), "phi_2": (2_779_683_840, 327_680),
    "gemma2_2b": (2_614_341_888, 106_496), "gemma2_9b": (9_241_705_984, 344_064),
    "gemma2_27b": (27_227_128_320, 376_832), "gemma3_1b": (999_885_952, 26_624), "falcon_7b": (6_921_720_704, 8192),
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers():
    from suites.common.hf_bridge import import_transformers
    from suites.common.torchvision_remedy import NotInstalled

    try:
        return import_transformers()
    except NotInstalled as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_llama_like_decoders_have_their_published_parameters(name):
    assert parameters(shape_of(name)) == LLAMA_LIKE[name]


@pytest.mark.parametrize(
    "name, cache",
    [
        ("llama_65b", 2_621_440), ("llama2_70b", 327_680), ("llama3_8b", 131_072), ("llama3_2_1b", 32_768),
        ("mistral_7b", 131_072), ("mixtral_8x22b", 229_376), ("gemma_2b", 18_432), ("gemma_7b", 458_752),
        ("qwen2_5_3b", 36_864), ("qwen3_30b_a3b", 98_304), ("phi3_mini", 393_216), ("deepseek_v2", 69_120),
    ],
)  # fmt: skip
def test_a_cached_token_takes_two_bytes_for_each_key_and_value(name, cache):
    shape = shape_of(name)
    assert cache_bytes_per_token(shape, 2) == 2 * sum(cached_numbers(layer) for layer in shape.layers) == cache


@pytest.mark.parametrize(
    "name, total, active",
    [
        ("deepseek_v3", 671e9, 37e9), ("deepseek_v2", 236e9, 21e9), ("mixtral_8x7b", 46.7e9, 12.9e9),
        ("mixtral_8x22b", 141e9, 39e9), ("qwen3_235b_a22b", 235e9, 22e9),
    ],
)  # fmt: skip
def test_active_parameters_are_the_printed_ones(name, total, active):
    shape = shape_of(name)
    assert parameters(shape) == pytest.approx(total, rel=0.005)
    assert active_parameters(shape) == pytest.approx(active, rel=0.02)
    assert active_parameters(shape, embedding=False) == active_parameters(shape) - shape.vocabulary * shape.width


def test_a_dense_decoder_is_active_as_a_whole_and_its_tied_table_is_its_head():
    assert active_parameters(shape_of("llama3_8b")) == parameters(shape_of("llama3_8b"))
    tied = shape_of("llama3_2_1b")
    assert active_parameters(tied, embedding=False) == parameters(tied)


def test_operations_of_training_are_what_the_brief_reproduces_and_what_it_does_not():
    found = {
        name: training_flops_per_token(shape_of(name), 4096) / 1e9
        for name in ("deepseek_v3", "llama3_1_405b", "qwen2_5_72b")
    }
    assert found["deepseek_v3"] == pytest.approx(250.45, abs=0.005)
    assert found["llama3_1_405b"] == pytest.approx(2473, abs=0.5)  # the paper prints 2448
    assert found["qwen2_5_72b"] == pytest.approx(445, abs=0.5)  # and 394
    whole = training_flops_per_token(shape_of("llama2_7b"), 4096, causal=False)
    assert whole - training_flops_per_token(shape_of("llama2_7b"), 4096) == 6 * 2048 * 32 * 2 * 4096


def test_every_published_size_stands_in_a_table_and_none_is_missing():
    assert set(OF_OTHER_BLOCKS) <= set(CONFIGS)
    assert set(LLAMA_LIKE) <= set(SHAPES)
    assert set(CONFIGS) - set(OF_OTHER_BLOCKS) == {"gpt_neo_2_7b", "opt_66b"}  # sizes that we could not look up


def test_decoders_of_other_blocks_have_their_published_parameters_and_cache(transformers):
    from suites.common.hf_bridge import released_decoder

    for name, (count, cache) in OF_OTHER_BLOCKS.items():
        with torch.device("meta"):
            model = released_decoder(name=name)
        assert sum(p.numel() for p in model.parameters()) == count, name
        assert _cached_token(model.model.config) == cache, name


def _cached_token(config):
    """2 bytes x keys and values x layers x key heads x head size, from the configuration alone."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    if getattr(config, "multi_query", False):
        groups = 1
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * 2 * config.num_hidden_layers * groups * head


@pytest.mark.parametrize("name", ["gpt2", "opt_125m", "pythia_160m", "falcon_7b", "gemma2_2b"])
def test_prompt_step_and_cache_of_other_blocks_are_the_closed_form(transformers, name):
    from suites.common.hf_bridge import released_decoder

    with torch.device("meta"):
        model = released_decoder(name=name, layers=2)
        ids = torch.zeros(1, 48, dtype=torch.long)
    linear, square, head = _by_hand(name)
    assert _executed(lambda: model.prefill(ids)) == 48 * linear + square * 48**2 + head
    _, cache = model.prefill(ids)
    assert _executed(lambda: model.decode(ids[:, :1], cache)) == linear + square * 49 + head
    assert model.cache_bytes(cache) == 49 * 2 * OF_OTHER_BLOCKS[name][1] * 2 // CONFIGS_LAYERS[name]


#: Layers of the released configurations above.
CONFIGS_LAYERS = {"gpt2": 12, "opt_125m": 12, "pythia_160m": 12, "falcon_7b": 32, "gemma2_2b": 26}


def _by_hand(name):
    """Products of two layers' weights, of a query with a key, and of the head, written out from the papers' sizes."""
    if name == "falcon_7b":  # 71 query heads of 64, one key head, network 4 d, no bias
        return 2 * (4544 * (71 + 2) * 64 + 71 * 64 * 4544 + 8 * 4544**2), 2 * 2 * 71 * 64, 65_024 * 4544
    if name == "gemma2_2b":  # 8 heads of 256, 4 key heads, gated network of 9216
        attention = 2304 * 256 * (8 + 2 * 4) + 8 * 256 * 2304
        return 2 * (attention + 3 * 2304 * 9216), 2 * 2 * 8 * 256, 256_000 * 2304
    vocabulary = {"gpt2": 50_257, "opt_125m": 50_272, "pythia_160m": 50_304}[name]
    return 2 * 12 * 768**2, 2 * 2 * 768, vocabulary * 768


def _executed(run):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    "name, kind, fields",
    [
        ("llama3_2_1b", "llama", {"tie_word_embeddings": True}),
        ("qwen2_7b", "qwen2", {"tie_word_embeddings": False}),
        ("qwen3_0_6b", "qwen3", {"tie_word_embeddings": True}),
        ("mixtral_8x7b", "mixtral", {}),
        ("gemma_2b", "gemma", {"tie_word_embeddings": True}),
    ],
)  # fmt: skip
def test_closed_forms_are_the_librarys_own_parameters(transformers, name, kind, fields):
    shape = shape_of(name)
    first = shape.layers[0]
    hidden = first.hidden if first.experts is None else first.experts.width
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=hidden,
        num_hidden_layers=len(shape.layers), num_attention_heads=first.heads, num_key_value_heads=first.kv_heads,
        head_dim=first.head, **fields,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == parameters(shape)


def test_a_misspelt_name_gets_the_nearest(transformers):
    from suites.common.hf_bridge import released_decoder

    with pytest.raises(UsageError, match="gpt2_xl"):
        released_decoder(name="gpt2_xll")
