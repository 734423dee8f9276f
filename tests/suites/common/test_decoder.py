"""The house decoder: against a slow reference and transformers; its caches; its counts in closed form."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import UsageError
from suites.common.decoder import Decoder, as_decoder, decoder, published_decoder
from suites.common.decoder_cache import DynamicKeeper, WindowKeeper, behind
from suites.common.decoder_shape import (
    Experts,
    Latent,
    cache_bytes_per_token,
    causal_unused_macs,
    distinct_experts,
    head_macs,
    layer_parameters,
    linear_macs,
    macs_decode_step,
    macs_prefill,
    macs_request,
    parameters,
    position_macs,
    step_seconds,
    step_weights,
    uniform,
)
from suites.common.decoder_shapes import SHAPES, shape_of
from tests.suites.common import slow_decoder
from tests.suites.conftest import spread

SMALL = {"width": 24, "layers": 2, "heads": 4, "hidden": 40, "vocabulary": 31}
LATENT = Latent(rank=10, rope=4, nope=6, value=5)
KINDS = {
    "mha": uniform(**SMALL),
    "gqa": uniform(**SMALL, kv_heads=2, qkv_bias=True),
    "mqa": uniform(**SMALL, kv_heads=1, qk_norm=True, head=8),
    "tied": uniform(**SMALL, tied=True),
    "latent": uniform(**SMALL, latent=LATENT),
    "latent_query": uniform(**SMALL, latent=Latent(rank=10, rope=4, nope=6, value=5, query_rank=7)),
    "experts": uniform(
        **SMALL, experts=Experts(count=8, chosen=2, width=12, groups=4, kept_groups=2, scale=2.5), dense_layers=1
    ),
    "experts_softmax": uniform(
        **SMALL, experts=Experts(count=6, chosen=2, width=12, shared=2, gate="softmax", groups=3, kept_groups=2)
    ),
}


def small(kind, **options):
    torch.manual_seed(0)
    return spread(Decoder(KINDS[kind], **options)).double().eval()


def walk(model, ids, prompt, chunks):
    """Logits of the prompt's last position and of the last position of each chunk after it, [batch, 1 + chunks, v]."""
    logits, cache = model.prefill(ids[:, :prompt])
    out, place = [logits], prompt
    for size in chunks:
        logits, cache = model.decode(ids[:, place : place + size], cache)
        out.append(logits)
        place += size
    return torch.stack(out, dim=1), cache


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_slow_reference(kind):
    model, ids = small(kind), torch.randint(31, (2, 7))
    with torch.no_grad():
        expected = torch.stack([slow_decoder.logits(model, row) for row in ids])
        assert torch.allclose(model(ids), expected, atol=1e-9)


FORMS = [(kind, form) for kind in ("latent", "latent_query") for form in ("absorbed", "recomputed", "expanded")]


@pytest.mark.parametrize("kind, form", [*((kind, "auto") for kind in KINDS), *FORMS])
def test_a_prompt_and_steps_equal_one_parallel_forward(kind, form):
    model, ids = small(kind, latent=form), torch.randint(31, (3, 20))
    with torch.no_grad():
        full = model(ids)
        stepped, _ = walk(model, ids, 8, [1] * 12)
        chunked, _ = walk(model, ids, 5, [4, 1, 7, 3])
    assert torch.allclose(stepped, full[:, 7:], atol=1e-9)
    assert torch.allclose(chunked, full[:, [4, 8, 9, 16, 19]], atol=1e-9)


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa"])
def test_a_cache_that_grows_by_concatenation_gives_the_same_steps(kind):
    model, ids = small(kind), torch.randint(31, (2, 20))
    with torch.no_grad():
        static, _ = walk(model, ids, 6, [1, 1, 5, 1, 6])
        for block in model.blocks:
            block.attention.keeper = DynamicKeeper()
        dynamic, cache = walk(model, ids, 6, [1, 1, 5, 1, 6])
    assert torch.allclose(static, dynamic, atol=1e-12)
    assert model.cache_bytes(cache) == model.cache_allocated(cache) == 2 * 20 * cache_bytes_per_token(model.shape, 8)


@pytest.mark.parametrize("window, sinks", [(5, 0), (5, 2), (1, 3), (64, 4)])
def test_a_window_sees_its_newest_positions_and_the_sinks(window, sinks):
    model, ids = small("gqa"), torch.randint(31, (2, 24))
    for block in model.blocks:
        block.attention.keeper = WindowKeeper(window, sinks)

    def sees(i, j):
        return i - j < window or j < sinks

    with torch.no_grad():
        expected = torch.stack([slow_decoder.logits(model, row, sees) for row in ids])
        assert torch.allclose(model(ids), expected, atol=1e-9)
        for prompt, chunks in ((3, [1] * 21), (12, [1] * 12), (2, [7, 1, 1, 9, 3, 1])):
            stepped, cache = walk(model, ids, prompt, chunks)
            ends = torch.tensor([prompt, *chunks]).cumsum(0) - 1
            assert torch.allclose(stepped, expected[:, ends], atol=1e-9)
            filled = min(24, window + sinks)
            assert model.cache_bytes(cache) == 2 * filled * cache_bytes_per_token(model.shape, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_cache_reproduces_a_step_bit_for_bit(kind):
    model, ids = small(kind), torch.randint(31, (2, 12))
    with torch.no_grad():
        _, cache = model.prefill(ids[:, :10])
        saved = model.copy_cache(cache)
        first, after = model.decode(ids[:, 10:11], cache)
        model.decode(ids[:, 11:], after)
        again, _ = model.decode(ids[:, 10:11], model.copy_cache(saved))
        once_more, _ = model.decode(ids[:, 10:11], cache)
    assert torch.equal(first, again) and torch.equal(first, once_more)


@pytest.mark.parametrize("kind", KINDS)
def test_cache_bytes_are_the_closed_form_while_the_memory_grows(kind):
    model = small(kind)
    with torch.no_grad():
        _, cache = model.prefill(torch.randint(31, (2, 3)))
        _, cache = model.decode(torch.randint(31, (2, 250)), cache)
        for seen in range(254, 264):
            _, cache = model.decode(torch.randint(31, (2, 1)), cache)
            assert model.cache_bytes(cache) == 2 * seen * cache_bytes_per_token(model.shape, 8)
    assert model.cache_allocated(cache) > model.cache_bytes(cache)
    assert model.dense_cache_bytes(2, 263) == model.cache_bytes(cache)


def test_a_changed_token_never_changes_what_stands_before_it():
    model, ids = small("mha"), torch.randint(31, (1, 9))
    other = ids.clone()
    other[0, 5] = (ids[0, 5] + 1) % 31
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :5], model(other)[:, :5])
        assert not torch.allclose(model(ids)[:, 5], model(other)[:, 5])


def test_the_chunk_mask_is_aligned_to_the_newest_key():
    expected = [[True, True, True, False], [True, True, True, True]]
    assert behind(2, 4, torch.device("cpu")).tolist() == expected


def llama(shape):
    from suites.common.hf_bridge import import_transformers

    try:
        transformers = import_transformers()
    except UsageError as error:
        pytest.skip(str(error))
    layer = shape.layers[0]
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=layer.hidden,
        num_hidden_layers=len(shape.layers),
        num_attention_heads=layer.heads,
        num_key_value_heads=layer.kv_heads,
        head_dim=layer.head,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.slow
def test_logits_equal_transformers_llama_given_the_same_weights():
    ours = decoder(**{**SMALL, "kv_heads": 2, "head": 8})
    spread(ours)
    theirs = llama(ours.shape)
    whole = {"embed.": "model.embed_tokens.", "blocks.": "model.layers.", "head.": "lm_head.", "norm.": "model.norm."}
    inner = {
        "attention.q.": "self_attn.q_proj.",
        "attention.k.": "self_attn.k_proj.",
        "attention.v.": "self_attn.v_proj.",
        "attention.out.": "self_attn.o_proj.",
        "network.gate.": "mlp.gate_proj.",
        "network.up.": "mlp.up_proj.",
        "network.down.": "mlp.down_proj.",
        "norm1.": "input_layernorm.",
        "norm2.": "post_attention_layernorm.",
    }

    def theirs_of(name):
        start, _, rest = name.partition(".")
        changed = whole[f"{start}."] + rest
        for mine, their in inner.items():
            changed = changed.replace(mine, their)
        return changed

    state = {theirs_of(name): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state)
    ids = torch.randint(31, (2, 17))
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).logits, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_the_closed_form(kind):
    model = small(kind)
    assert sum(p.numel() for p in model.parameters()) == parameters(KINDS[kind])


def executed(call):
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("kind, form", [*((kind, "absorbed") for kind in ("mha", "gqa", "mqa", "experts")), *FORMS[3:]])
def test_executed_products_are_the_closed_form(kind, form):
    model, ids = small(kind, latent=form), torch.randint(31, (1, 20))
    with torch.no_grad():
        _, cache = model.prefill(ids)
    assert executed(lambda: model.prefill(ids)) == macs_prefill(model.shape, 20)
    assert executed(lambda: model(ids)) == macs_prefill(model.shape, 20, all_logits=True)
    assert executed(lambda: model.decode(ids[:, :1], cache)) == macs_decode_step(model.shape, 21, form)


def test_the_house_models_have_the_sizes_of_the_brief():
    assert sum(p.numel() for p in decoder().parameters()) == parameters(shape_of("byte_3m")) == 2_755_008
    house = shape_of("byte_3m")
    assert cache_bytes_per_token(house) == 9216
    assert cache_bytes_per_token(shape_of("byte_3m_mla")) == 1920
    assert macs_prefill(house, 512) == 1_962_983_424
    assert macs_decode_step(house, 513) == 3_885_312
    assert macs_request(house, 512, 128) == 2_474_852_352
    assert parameters(shape_of("byte_moe")) == 8_524_224 + 96


@pytest.mark.parametrize(
    "name, count, cache",
    [
        ("llama2_7b", 6_738_415_616, 524_288),
        ("llama2_13b", 13_015_864_320, 819_200),
        ("llama3_1_405b", 405_853_388_800, 516_096),
        ("qwen2_7b", 7_615_616_512, 57_344),
        ("qwen2_5_72b", 72_706_203_648, 327_680),
        ("openelm_270m", 271_527_168, 16_128),
        ("openelm_450m", 457_179_136, 23_296),
        ("openelm_1_1b", 1_079_891_456, 43_264),
        ("openelm_3b", 3_036_647_424, 83_968),
        ("qwen3_8b", 8_190_735_360, 147_456),
        ("deepseek_v2_lite", 15_706_484_224, 31_104),
        ("deepseek_v3", 671_026_419_200, 70_272),
    ],
)
def test_published_models_have_their_published_sizes(name, count, cache):
    shape = shape_of(name)
    assert parameters(shape) == count
    assert cache_bytes_per_token(shape, 2) == cache
    with torch.device("meta"):
        model = published_decoder(name=name)
    assert sum(p.numel() for p in model.parameters()) == count


def test_llama_and_qwen_requests_cost_what_the_brief_says():
    llama = shape_of("llama2_7b")
    assert macs_prefill(llama, 2048) == 14_362_501_709_824
    assert causal_unused_macs(llama, 2048) == 549_487_378_432
    assert macs_decode_step(llama, 2049) == 7_144_210_432
    assert macs_request(llama, 2048, 128) == 14_362_501_709_824 + 909_412_139_008
    qwen = shape_of("qwen2_7b")
    assert macs_prefill(qwen, 1024) == 6_892_893_765_632
    assert macs_decode_step(qwen, 1025) == 7_276_007_424


def test_deepseek_v3_costs_what_the_brief_says():
    shape = shape_of("deepseek_v3")
    assert linear_macs(shape) == 35_697_917_952
    assert head_macs(shape) == 926_679_040
    assert layer_parameters(shape.layers[-1], shape) == 11_507_286_272
    unused = position_macs(shape.layers[0], "expanded") * 61 * 4096 // 2
    training = 6 * (linear_macs(shape) + head_macs(shape)) + 6 * unused
    assert round(training / 1e9, 2) == 250.45
    assert round(distinct_experts(256, 8, 32), 3) == 163.314


@pytest.mark.parametrize("form", ["loop", "sorted", "dense"])
def test_forms_of_the_mixture_agree(form):
    model, ids = small("experts"), torch.randint(31, (3, 9))
    with torch.no_grad():
        expected = model(ids)
        model.blocks[1].network.form = form
        assert torch.allclose(model(ids), expected, atol=1e-10)


def test_the_balancing_bias_changes_choices_and_never_weights():
    network = small("experts").blocks[1].network
    x = torch.randn(50, 24, dtype=torch.double)
    with torch.no_grad():
        before, weights = network.router(x)
        network.router.bias += 0.3 * torch.randn(8, dtype=torch.double)
        after, moved = network.router(x)
        scores = torch.sigmoid(x @ network.router.weight.t()).gather(1, after)
    assert not torch.equal(before, after)
    assert torch.allclose(moved, 2.5 * scores / scores.sum(1, keepdim=True))
    assert torch.allclose(moved.sum(1), torch.full((50,), 2.5, dtype=torch.double))
    assert torch.allclose(weights.sum(1), moved.sum(1))
    load = torch.bincount(after.flatten(), minlength=8)
    old = network.router.bias.detach().clone()
    network.router.rebalance(after)
    assert torch.allclose(network.router.bias - old, 1e-3 * torch.sign(load.double().mean() - load))


def test_identical_experts_are_one_network_scaled_and_the_shared_one():
    network = small("experts").blocks[1].network
    network.gate_up.data[:] = network.gate_up.data[0].clone()
    network.down.data[:] = network.down.data[0].clone()
    x = torch.randn(1, 11, 24, dtype=torch.double)
    with torch.no_grad():
        expected = 2.5 * network.expert(0, x) + network.shared(x)
        assert torch.allclose(network(x), expected)


def test_weights_read_by_a_step_grow_with_the_experts_that_are_hit():
    shape = shape_of("byte_moe")
    dense = step_weights(shape_of("byte_3m"), 1)
    gates = 6 * 192 * 16
    assert step_weights(shape, 1) == pytest.approx(dense + gates)
    assert step_weights(shape, 10_000) == pytest.approx(parameters(shape) - 96 - 13 * 192 + (10_000 - 256) * 192)


def test_the_roofline_of_a_step_is_the_longer_of_work_and_bytes():
    common = {"batch": 2, "peak_ops": 100.0, "bandwidth": 10.0}
    assert step_seconds(500, 30, 10, **common) == 20.0
    assert step_seconds(5, 30, 10, **common) == 5.0


def test_wrong_settings_say_what_to_do():
    with pytest.raises(ValueError, match="choose heads that divide"):
        decoder(heads=7)
    with pytest.raises(ValueError, match="does not divide heads=6"):
        decoder(kv_heads=4)
    with pytest.raises(ValueError, match="set an even head"):
        decoder(head=7)
    with pytest.raises(UsageError, match='did you mean "llama2_7b"'):
        published_decoder(name="llama2_7")
    with pytest.raises(ValueError, match="not on Linear"):
        as_decoder(torch.nn.Linear(2, 2), "prefixkv")
    with pytest.raises(ValueError, match="keeps neither"):
        as_decoder(decoder(latent=True), "prefixkv")


def test_every_published_shape_builds_on_the_meta_device_and_counts():
    for name, shape in SHAPES.items():
        with torch.device("meta"):
            model = published_decoder(name=name, layers=1)
            ids = torch.zeros(1, 3, dtype=torch.long)
        first = replace(shape, layers=shape.layers[:1])
        assert executed(lambda model=model, ids=ids: model.prefill(ids)) == macs_prefill(first, 3)


def test_a_prompt_and_a_step_are_counted_by_the_instrument():
    from bench.meters import macs

    model, ids = decoder(layers=1, width=32, heads=2, hidden=24), torch.randint(256, (1, 9))
    found = macs.count(model, (ids,), {}, second_count=False, inspect_values=False)
    assert found.macs == macs_prefill(model.shape, 9, all_logits=True)
