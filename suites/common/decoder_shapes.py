"""Shapes of decoders by name: the house's two, and published ones that are counted, never downloaded.

Sizes are those of the configurations that were released with the models. Windows are no part of a shape: the first
Mistral 7B sees 4096 tokens, which is the method sliding_window(window=4096, sinks=0) on `mistral_7b`; its later
versions of the same sizes see all.
"""

from __future__ import annotations

from bench.errors import UsageError, did_you_mean
from suites.common.decoder_shape import DecoderShape, Experts, Latent, LayerShape, uniform

HOUSE_LATENT = Latent(rank=64, rope=16, nope=32, value=32)
_V3_LATENT = Latent(rank=512, rope=64, nope=128, value=128, query_rank=1536)
_LITE_LATENT = Latent(rank=512, rope=64, nope=128, value=128)


def _llama(
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    vocabulary: int,
    kv_heads: int,
    head: int | None = None,
    tied: bool = False,
) -> DecoderShape:
    return uniform(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        hidden=hidden,
        vocabulary=vocabulary,
        tied=tied,
    )


def _mixtral(width: int, layers: int, heads: int, hidden: int, vocabulary: int) -> DecoderShape:
    experts = Experts(count=8, chosen=2, width=hidden, shared=0, gate="softmax", normalised=True)
    return uniform(
        width=width, layers=layers, heads=heads, kv_heads=8, hidden=hidden, vocabulary=vocabulary, experts=experts
    )


def _qwen3_moe(width: int, layers: int, heads: int, kv_heads: int, expert: int) -> DecoderShape:
    experts = Experts(count=128, chosen=8, width=expert, shared=0, gate="softmax", normalised=True)
    return uniform(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head=128,
        hidden=3 * width,
        vocabulary=151_936,
        qk_norm=True,
        experts=experts,
    )


def _qwen2(
    width: int, layers: int, heads: int, kv_heads: int, hidden: int, vocabulary: int, tied: bool = False
) -> DecoderShape:
    return uniform(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        hidden=hidden,
        vocabulary=vocabulary,
        qkv_bias=True,
        tied=tied,
    )


def _qwen3(width: int, layers: int, heads: int, hidden: int, tied: bool = False) -> DecoderShape:
    return uniform(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head=128,
        hidden=hidden,
        vocabulary=151_936,
        qk_norm=True,
        tied=tied,
    )


def _divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to the value, never more than a tenth below it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def openelm(width: int, layers: int, head: int) -> DecoderShape:
    """OpenELM: heads and network widths grow with depth (Mehta et al. 2024, arXiv 2404.14619, section 2.1).

    Queries take 0.5 to 1.0 of the width in four heads per key head, the gated network 0.5 to 4.0 of it, both by layer
    in steps rounded to two decimals; queries and keys are normalised, embedding and head are one table.
    """
    parts = []
    for index in range(layers):
        along = index / (layers - 1)
        heads = _divisible(width * round(0.5 + 0.5 * along, 2), 4 * head) // head
        hidden = _divisible(width * round(0.5 + 3.5 * along, 2), 256)
        parts.append(LayerShape(heads, heads // 4, head, hidden))
    return DecoderShape(width, 32_000, tuple(parts), qk_norm=True, tied=True)


SHAPES: dict[str, DecoderShape] = {
    "byte_1m": uniform(width=128, layers=4, heads=4, hidden=344, vocabulary=256),
    "byte_3m": uniform(width=192, layers=6, heads=6, hidden=512, vocabulary=256),
    "byte_3m_gqa2": uniform(width=192, layers=6, heads=6, kv_heads=2, hidden=512, vocabulary=256),
    "byte_3m_mqa": uniform(width=192, layers=6, heads=6, kv_heads=1, hidden=512, vocabulary=256),
    "byte_3m_mla": uniform(width=192, layers=6, heads=6, hidden=512, vocabulary=256, latent=HOUSE_LATENT),
    "byte_26m": uniform(width=512, layers=8, heads=8, hidden=1408, vocabulary=256),
    "byte_26m_gqa2": uniform(width=512, layers=8, heads=8, kv_heads=2, hidden=1408, vocabulary=256),
    "byte_moe": uniform(
        width=192, layers=6, heads=6, hidden=512, vocabulary=256, experts=Experts(count=16, chosen=3, width=128)
    ),
    "byte_wide": uniform(width=192, layers=6, heads=6, hidden=2176, vocabulary=256),
    "llama_7b": _llama(4096, 32, 32, 11_008, 32_000, 32),
    "llama_13b": _llama(5120, 40, 40, 13_824, 32_000, 40),
    "llama_30b": _llama(6656, 60, 52, 17_920, 32_000, 52),
    "llama_65b": _llama(8192, 80, 64, 22_016, 32_000, 64),
    "llama2_7b": _llama(4096, 32, 32, 11_008, 32_000, 32),
    "llama2_13b": _llama(5120, 40, 40, 13_824, 32_000, 40),
    "llama2_70b": _llama(8192, 80, 64, 28_672, 32_000, 8),
    "llama3_8b": _llama(4096, 32, 32, 14_336, 128_256, 8),
    "llama3_70b": _llama(8192, 80, 64, 28_672, 128_256, 8),
    "llama3_2_1b": _llama(2048, 16, 32, 8192, 128_256, 8, tied=True),
    "llama3_2_3b": _llama(3072, 28, 24, 8192, 128_256, 8, tied=True),
    "llama3_1_405b": _llama(16_384, 126, 128, 53_248, 128_256, 8),
    "codellama_34b": _llama(8192, 48, 64, 22_016, 32_000, 8),
    "tinyllama_1_1b": _llama(2048, 22, 32, 5632, 32_000, 4),
    "smollm2_135m": _llama(576, 30, 9, 1536, 49_152, 3, tied=True),
    "smollm2_360m": _llama(960, 32, 15, 2560, 49_152, 5, tied=True),
    "smollm2_1_7b": _llama(2048, 24, 32, 8192, 49_152, 32, tied=True),
    "yi_6b": _llama(4096, 32, 32, 11_008, 64_000, 4),
    "yi_34b": _llama(7168, 60, 56, 20_480, 64_000, 8),
    "mistral_7b": _llama(4096, 32, 32, 14_336, 32_000, 8),
    "mistral_7b_v0_3": _llama(4096, 32, 32, 14_336, 32_768, 8),
    "mistral_nemo_12b": _llama(5120, 40, 32, 14_336, 131_072, 8, head=128),
    "mistral_large_2": _llama(12_288, 88, 96, 28_672, 32_768, 8),
    "mixtral_8x7b": _mixtral(4096, 32, 32, 14_336, 32_000),
    "mixtral_8x22b": _mixtral(6144, 56, 48, 16_384, 32_000),
    "gemma_2b": _llama(2048, 18, 8, 16_384, 256_000, 1, head=256, tied=True),
    "gemma_7b": _llama(3072, 28, 16, 24_576, 256_000, 16, head=256, tied=True),
    "phi3_mini": _llama(3072, 32, 32, 8192, 32_064, 32),
    "phi3_medium": _llama(5120, 40, 40, 17_920, 32_064, 10),
    "phi4": _llama(5120, 40, 40, 17_920, 100_352, 10),
    "qwen2_0_5b": _qwen2(896, 24, 14, 2, 4864, 151_936, tied=True),
    "qwen2_1_5b": _qwen2(1536, 28, 12, 2, 8960, 151_936, tied=True),
    "qwen2_7b": _qwen2(3584, 28, 28, 4, 18_944, 152_064),
    "qwen2_72b": _qwen2(8192, 80, 64, 8, 29_568, 152_064),
    "qwen2_5_0_5b": _qwen2(896, 24, 14, 2, 4864, 151_936, tied=True),
    "qwen2_5_1_5b": _qwen2(1536, 28, 12, 2, 8960, 151_936, tied=True),
    "qwen2_5_3b": _qwen2(2048, 36, 16, 2, 11_008, 151_936, tied=True),
    "qwen2_5_7b": _qwen2(3584, 28, 28, 4, 18_944, 152_064),
    "qwen2_5_14b": _qwen2(5120, 48, 40, 8, 13_824, 152_064),
    "qwen2_5_32b": _qwen2(5120, 64, 40, 8, 27_648, 152_064),
    "qwen2_5_72b": _qwen2(8192, 80, 64, 8, 29_568, 152_064),
    "qwen3_0_6b": _qwen3(1024, 28, 16, 3072, tied=True),
    "qwen3_1_7b": _qwen3(2048, 28, 16, 6144, tied=True),
    "qwen3_4b": _qwen3(2560, 36, 32, 9728, tied=True),
    "qwen3_8b": _qwen3(4096, 36, 32, 12_288),
    "qwen3_14b": _qwen3(5120, 40, 40, 17_408),
    "qwen3_32b": _qwen3(5120, 64, 64, 25_600),
    "qwen3_30b_a3b": _qwen3_moe(2048, 48, 32, 4, 768),
    "qwen3_235b_a22b": _qwen3_moe(4096, 94, 64, 4, 1536),
    "openelm_270m": openelm(1280, 16, 64),
    "openelm_450m": openelm(1536, 20, 64),
    "openelm_1_1b": openelm(2048, 28, 64),
    "openelm_3b": openelm(3072, 36, 128),
    "deepseek_v2_lite": uniform(
        width=2048,
        layers=27,
        heads=16,
        hidden=10_944,
        vocabulary=102_400,
        latent=_LITE_LATENT,
        dense_layers=1,
        experts=Experts(count=64, chosen=6, width=1408, shared=2, gate="softmax"),
    ),
    "deepseek_v2": uniform(
        width=5120,
        layers=60,
        heads=128,
        hidden=12_288,
        vocabulary=102_400,
        latent=_V3_LATENT,
        dense_layers=1,
        experts=Experts(count=160, chosen=6, width=1536, shared=2, gate="softmax", groups=8, kept_groups=3, scale=16.0),
    ),
    "deepseek_v3": uniform(
        width=7168,
        layers=61,
        heads=128,
        hidden=18_432,
        vocabulary=129_280,
        latent=_V3_LATENT,
        dense_layers=3,
        experts=Experts(count=256, chosen=8, width=2048, groups=8, kept_groups=4, scale=2.5),
    ),
}


def shape_of(name: str) -> DecoderShape:
    """The shape of this name.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    if name not in SHAPES:
        raise UsageError(f'no decoder is called "{name}"; {did_you_mean(name, SHAPES)}')
    return SHAPES[name]
