"""Attention of a network of diffusers done another way, while the network itself stays as it is.

Every layer there ends in `torch.nn.functional.scaled_dot_product_attention`. Calls of it over all tokens of the picture
or video, with the words that stand beside them, are answered by a method; others (words among themselves, pictures that
look at words) go on as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: What stands beside a picture's tokens in the attention of a class of diffusers: words first, words last, or nothing.
WORDS = {
    "FluxTransformer2DModel": "first",
    "CogVideoXTransformer3DModel": "first",
    "HunyuanVideoTransformer3DModel": "last",
    "WanTransformer3DModel": "none",
    "PixArtTransformer2DModel": "none",
    "DiTTransformer2DModel": "none",
}
#: Of queries, keys and values [batch, heads, words + tokens, size] with the words first, the number of the call within
#: a forward, and which words are some ([batch, 1, 1, words], None where all are): what is attended.
Attend = Callable[[int, Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class Tokens:
    """What a layer attends over: frames of places each, and words before or behind them."""

    frames: int
    places: int
    words: int
    words_first: bool

    @property
    def all(self) -> int:
        """Tokens of a call."""
        return self.words + self.frames * self.places


def tokens_of(model: Any, method: str) -> Tokens:
    """What the layers of a network of diffusers attend over.

    Args:
        model: a `DiffusersModel`.
        method: that asks.

    Raises:
        ValueError: it is no transformer whose layers look at all tokens.
    """
    name = type(model.model).__name__
    if name not in WORDS:
        raise ValueError(f"{method} works on transformers of diffusers ({', '.join(sorted(WORDS))}), not on {name}")
    config, size = model.model.config, model.size
    patch, along = getattr(config, "patch_size", 1), getattr(config, "patch_size_t", None) or 1
    if isinstance(patch, list | tuple):  # frames, rows, columns
        along, patch = patch[0], patch[1]
    patch = 2 if name == "FluxTransformer2DModel" else patch  # which gets patches of two by two latents
    words = 0 if WORDS[name] == "none" else size.words
    places = (size.height // patch) * (size.width // patch)
    return Tokens(size.frames // along, places, words, WORDS[name] == "first")


class Attending(TorchFunctionMode):
    """The context of one forward: calls over all tokens are numbered and answered by `attend`."""

    def __init__(self, tokens: Tokens, attend: Attend, first: int = 0):
        super().__init__()
        self.tokens, self.attend, self.calls = tokens, attend, first

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What the function gives; torch calls it with these names."""
        del types
        named = kwargs or {}
        if getattr(func, "__name__", "") != "scaled_dot_product_attention":
            return func(*args, **named)
        given = {**dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)), **named}
        q, k, v = (given[name] for name in ("query", "key", "value"))
        if q.shape[2] != self.tokens.all or k.shape[2] != self.tokens.all:
            return func(*args, **named)
        found = self._answered(q, k, v, given.get("attn_mask"))
        self.calls += 1
        return found

    def _answered(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The answer, with the words brought to the front and back again."""
        words, ahead = self.tokens.words, self.tokens.words_first
        padding = None if mask is None else _words_of(mask, words, ahead)
        if ahead or not words:
            return self.attend(self.calls, q, k, v, padding)
        q, k, v = (torch.cat([x[:, :, -words:], x[:, :, :-words]], dim=2) for x in (q, k, v))
        found = self.attend(self.calls, q, k, v, padding)
        return torch.cat([found[:, :, words:], found[:, :, :words]], dim=2)


def _words_of(mask: Tensor, words: int, ahead: bool) -> Tensor:
    """The part of a mask of keys that is about words, [batch, 1, 1, words].

    Raises:
        ValueError: it masks pairs and not keys, or adds to scores.
    """
    if mask.dtype is not torch.bool or mask.shape[-2] != 1:
        raise ValueError("attention is masked pair by pair here, which the methods of this suite do not do another way")
    return mask[..., :words] if ahead else mask[..., mask.shape[-1] - words :]
