"""The plain rows: a cache by concatenation, a sliding window with sinks, and uniform quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.decoder import Decoder, as_decoder
from suites.common.decoder_cache import DynamicKeeper, Kept, WindowKeeper
from suites.decode.bits import packed, quantised, restored, unpacked
from suites.decode.compressed import CompressingKeeper, concatenated


def dynamic_cache(model: nn.Module) -> Decoder:
    """The decoder whose cache grows by concatenation: each step copies all of it.

    Raises:
        ValueError: the model is no decoder with a plain cache of keys and values.
    """
    decoder = as_decoder(model, "dynamic_cache")
    for block in decoder.blocks:
        block.attention.keeper = DynamicKeeper()
    return decoder


def sliding_window(model: nn.Module, *, window: PositiveInt = 256, sinks: Count = 4) -> Decoder:
    """The decoder in which a token sees the newest `window` tokens, itself included, and the first `sinks` ones.

    Raises:
        ValueError: the model is no decoder with a plain cache of keys and values.
    """
    decoder = as_decoder(model, "sliding_window")
    for block in decoder.blocks:
        block.attention.keeper = WindowKeeper(window, sinks)
    return decoder


def uniform_cache(model: nn.Module, *, bits: Literal[2, 4, 8] = 8, group: PositiveInt = 32) -> Decoder:
    """The decoder with a cache of whole numbers: keys per channel in groups of tokens, values per token.

    Values are in groups of channels. Scales and minima take two bytes each. Tokens stay plain until a group of them is
    full (KIVI's layout, Liu et al. 2024, arXiv 2402.02750).

    Args:
        model: a decoder with a plain cache.
        bits: of one number.
        group: tokens that share a scale of a key channel, and channels that share a scale of a value.

    Raises:
        ValueError: not such a model, or `group` does not divide the head.
    """
    decoder = as_decoder(model, "uniform_cache")
    head = decoder.shape.layers[0].head
    share = min(group, head)
    if head % share or head * bits % 8:
        raise ValueError(f"group={group} does not divide a head of {head} numbers: choose a divisor of {head}")
    for block in decoder.blocks:
        block.attention.keeper = UniformKeeper(bits, group, share)
    return decoder


@dataclass(frozen=True)
class Uniform(Kept):
    """Packed codes with scales and minima; token groups on axis 2."""

    k: Tensor
    k_scale: Tensor
    k_low: Tensor
    v: Tensor
    v_scale: Tensor
    v_low: Tensor


class UniformKeeper(CompressingKeeper):
    """Packs whole groups of tokens."""

    def __init__(self, bits: int, group: int, channels: int):
        super().__init__(residual=0, chunk=group)
        self.bits, self.group, self.channels = bits, group, channels
        self.nominal_bits = float(bits)
        self.stored_bits = bits + (32 / group + 32 / channels) / 2

    def pack(self, k: Tensor, v: Tensor, old: Uniform | None = None) -> Uniform:
        """Codes of keys [batch, heads, groups, group, size] and of values [batch, heads, tokens, parts, channels]."""
        k_codes, k_scale, k_low = quantised(k.unflatten(2, (-1, self.group)), self.bits, dim=3)
        v_codes, v_scale, v_low = quantised(v.unflatten(3, (-1, self.channels)), self.bits, dim=4)
        values = packed(v_codes.flatten(3), self.bits)
        return Uniform(packed(k_codes, self.bits), k_scale, k_low, values, v_scale, v_low)

    def unpack(self, old: Uniform, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values, dense."""
        k = restored(unpacked(old.k, self.bits), old.k_scale, old.k_low, dtype).flatten(2, 3)
        v_codes = unpacked(old.v, self.bits).unflatten(3, (-1, self.channels))
        return k, restored(v_codes, old.v_scale, old.v_low, dtype).flatten(3)

    def join(self, first: Uniform, second: Uniform) -> Uniform:
        """All fields along axis 2."""
        return concatenated(first, second, dict.fromkeys(("k", "k_scale", "k_low", "v", "v_scale", "v_low"), 2))
