"""Configurations of released decoders whose blocks are not Llama's, as transformers names their fields; nothing is
downloaded.

Only what differs from the defaults of the library's configuration classes and decides sizes: tables, widths, depths,
heads, tied tables, parallel blocks. Llama-like decoders stand in decoder_shapes.py with closed forms; these are counted
by their trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]


def _gpt2(width: int, layers: int, heads: int) -> Config:
    return {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": heads}


def _gpt_neo(width: int, layers: int, heads: int) -> Config:
    kinds = [[["global", "local"], layers // 2]]
    return {
        "model_type": "gpt_neo",
        "hidden_size": width,
        "num_layers": layers,
        "num_heads": heads,
        "attention_types": kinds,
    }


def _opt(width: int, layers: int, heads: int, **more: Any) -> Config:
    return {
        "model_type": "opt", "vocab_size": 50_272, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "ffn_dim": 4 * width, "word_embed_proj_dim": width, **more,
    }  # fmt: skip


def _neox(width: int, layers: int, heads: int, vocabulary: int) -> Config:
    return {
        "model_type": "gpt_neox", "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": 4 * width, "tie_word_embeddings": False,
    }  # fmt: skip


def _bloom(width: int, layers: int, heads: int) -> Config:
    return {"model_type": "bloom", "vocab_size": 250_880, "hidden_size": width, "n_layer": layers, "n_head": heads}


def _phi(width: int, layers: int, heads: int) -> Config:
    return {
        "model_type": "phi", "vocab_size": 51_200, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": 4 * width, "partial_rotary_factor": 0.5,
        "tie_word_embeddings": False,
    }  # fmt: skip


def _gemma2(width: int, layers: int, heads: int, kv_heads: int, head: int, hidden: int) -> Config:
    return {
        "model_type": "gemma2", "vocab_size": 256_000, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head, "intermediate_size": hidden,
    }  # fmt: skip


def _gemma3(width: int, layers: int, heads: int, kv_heads: int, head: int, hidden: int) -> Config:
    return {
        "model_type": "gemma3_text", "vocab_size": 262_144, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head, "intermediate_size": hidden,
        "sliding_window": 512,
    }  # fmt: skip


CONFIGS: dict[str, Config] = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2_medium": _gpt2(1024, 24, 16),
    "gpt2_large": _gpt2(1280, 36, 20),
    "gpt2_xl": _gpt2(1600, 48, 25),
    "gpt_neo_125m": _gpt_neo(768, 12, 12),
    "gpt_neo_1_3b": _gpt_neo(2048, 24, 16),
    "gpt_neo_2_7b": _gpt_neo(2560, 32, 20),
    "gpt_j_6b": {"model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64},
    "gpt_neox_20b": _neox(6144, 44, 64, 50_432),
    "opt_125m": _opt(768, 12, 12),
    "opt_350m": _opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "opt_1_3b": _opt(2048, 24, 32),
    "opt_2_7b": _opt(2560, 32, 32),
    "opt_6_7b": _opt(4096, 32, 32),
    "opt_13b": _opt(5120, 40, 40),
    "opt_30b": _opt(7168, 48, 56),
    "opt_66b": _opt(9216, 64, 72),
    "pythia_70m": _neox(512, 6, 8, 50_304),
    "pythia_160m": _neox(768, 12, 12, 50_304),
    "pythia_410m": _neox(1024, 24, 16, 50_304),
    "pythia_1b": _neox(2048, 16, 8, 50_304),
    "pythia_1_4b": _neox(2048, 24, 16, 50_304),
    "pythia_2_8b": _neox(2560, 32, 32, 50_304),
    "pythia_6_9b": _neox(4096, 32, 32, 50_432),
    "pythia_12b": _neox(5120, 36, 40, 50_688),
    "bloom_560m": _bloom(1024, 24, 16),
    "bloom_7b1": _bloom(4096, 30, 32),
    "bloom_176b": _bloom(14_336, 70, 112),
    "phi_1_5": _phi(2048, 24, 32),
    "phi_2": _phi(2560, 32, 32),
    "gemma2_2b": _gemma2(2304, 26, 8, 4, 256, 9216),
    "gemma2_9b": _gemma2(3584, 42, 16, 8, 256, 14_336),
    "gemma2_27b": _gemma2(4608, 46, 32, 16, 128, 36_864),
    "gemma3_1b": _gemma3(1152, 26, 4, 1, 256, 6912),
    "falcon_7b": {
        "model_type": "falcon", "vocab_size": 65_024, "hidden_size": 4544, "num_hidden_layers": 32, "bias": False,
        "num_attention_heads": 71, "alibi": False, "parallel_attn": True, "multi_query": True,
        "new_decoder_architecture": False,
    },
}  # fmt: skip
