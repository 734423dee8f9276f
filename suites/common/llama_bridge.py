"""The house's decoders as transformers' Llama, weight by weight: one artefact under two implementations."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from suites.common.decoder import EPS, Decoder
from suites.common.experts import Gated
from suites.common.hf_bridge import import_transformers


def llama_of(decoder: Decoder, **more: Any) -> Any:
    """A LlamaForCausalLM in evaluation mode whose tensors are the decoder's own, not copies.

    Args:
        decoder: with equal layers, key heads and gated networks.
        more: further fields of the configuration.

    Raises:
        ValueError: the decoder has latent attention, experts, or layers of different sizes, which Llama has not.
        NotInstalled: transformers is missing.
    """
    transformers = import_transformers()
    shape, first = decoder.shape, decoder.shape.layers[0]
    if first.latent is not None or first.experts is not None or any(layer != first for layer in shape.layers):
        raise ValueError(
            "transformers' Llama has equal layers of key heads and gated networks; take byte_3m or its kin"
        )
    if shape.qkv_bias or shape.qk_norm:
        raise ValueError(
            "transformers' Llama has neither biases nor norms of queries and keys; take byte_3m or its kin"
        )
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=first.hidden,
        num_hidden_layers=len(shape.layers), num_attention_heads=first.heads, num_key_value_heads=first.kv_heads,
        head_dim=first.head, rms_norm_eps=EPS, tie_word_embeddings=shape.tied, bos_token_id=None, eos_token_id=None,
        pad_token_id=None, **more,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(decoder.embed.weight)
    for name, weight in weights_of(decoder).items():
        _put(model, name, weight)
    return model.eval()


def weights_of(decoder: Decoder) -> dict[str, Tensor]:
    """The decoder's weights under the names of transformers' Llama."""
    named: dict[str, Tensor] = {
        "model.embed_tokens": decoder.embed.weight, "model.norm": decoder.norm.weight, "lm_head": decoder.head.weight,
    }  # fmt: skip
    for index, block in enumerate(decoder.blocks):
        assert isinstance(block.network, Gated)
        place, attention, network = f"model.layers.{index}", block.attention, block.network
        named |= {
            f"{place}.input_layernorm": block.norm1.weight, f"{place}.post_attention_layernorm": block.norm2.weight,
            f"{place}.self_attn.q_proj": attention.q.weight, f"{place}.self_attn.k_proj": attention.k.weight,
            f"{place}.self_attn.v_proj": attention.v.weight, f"{place}.self_attn.o_proj": attention.out.weight,
            f"{place}.mlp.gate_proj": network.gate.weight, f"{place}.mlp.up_proj": network.up.weight,
            f"{place}.mlp.down_proj": network.down.weight,
        }  # fmt: skip
    return named


def _put(model: nn.Module, name: str, weight: Tensor) -> None:
    """Let the module of this name use the tensor itself."""
    model.get_submodule(name).weight = weight
