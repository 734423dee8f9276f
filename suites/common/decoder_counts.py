"""Closed forms of the house's decoders for cards: from a builder's settings to products of one sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suites.common.decoder_shape import DecoderShape, macs_request, uniform
from suites.common.decoder_shapes import HOUSE_LATENT

DEFAULTS = {"width": 192, "layers": 6, "heads": 6, "hidden": 512, "vocabulary": 256}


def shape(settings: Mapping[str, Any]) -> DecoderShape:
    """The shape that `suites.common.decoder:decoder` builds from these settings."""
    names = ("width", "layers", "heads", "kv_heads", "head", "hidden", "vocabulary", "qkv_bias", "qk_norm", "tied")
    chosen = {name: value for name, value in {**DEFAULTS, **settings}.items() if name in names}
    return uniform(**chosen, latent=HOUSE_LATENT if settings.get("latent") else None)


def request(model: Mapping[str, Any], method: Mapping[str, Any]) -> int:
    """Products of one request of 20 + 4 tokens, the shape that the cards are tested at."""
    return macs_request(shape(model), 20, 4)
