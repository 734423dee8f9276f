"""Speculative greedy decoding: drafts are verified by the main model, and the text is that of plain greedy decoding.

Drafts come from a smaller model, from an n-gram look-up in what was written so far (no parameters), from the first
layers of the main model (self-speculation), or from a head of its own (mtp.py). One sequence at a time: sequences of a
batch accept different numbers of tokens, so those of a batch are written one after the other.

Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding" (arXiv 2211.17192), greedy case.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Decoder, DecoderCache, Generator, as_decoder
from suites.common.speculation import Draft, Speculated, account, model_draft, speculative_greedy


def speculative(
    model: nn.Module, *, draft: Literal["lookup", "exit"] = "lookup", ahead: PositiveInt = 4, tail: PositiveInt = 3,
    exit: PositiveInt = 2,
) -> Generator:  # fmt: skip
    """The decoder whose answers are drafted and verified; its text is that of plain greedy decoding.

    Args:
        model: a decoder with a plain cache.
        draft: lookup takes what followed the last tokens where they stood before, exit asks the first layers.
        ahead: tokens of a draft.
        tail: tokens that a look-up compares.
        exit: layers that draft; they keep a cache of their own while they do.

    Raises:
        ValueError: not such a model, or more drafting layers than it has.
    """
    decoder = as_decoder(model, "speculative")
    if draft == "exit" and exit >= len(decoder.blocks):
        raise ValueError(f"exit={exit}: fewer than the decoder's {len(decoder.blocks)} layers are wanted")
    return Speculative(decoder, draft, ahead, tail, exit)


class Speculative(Generator):
    """A decoder that writes by drafts; one prompt and one step are the decoder's own."""

    def __init__(self, decoder: Decoder, draft: str, ahead: int, tail: int, exit: int):
        super().__init__()
        self.decoder, self.draft, self.ahead, self.tail, self.exit = decoder, draft, ahead, tail, exit
        self.vocabulary, self.shape = decoder.vocabulary, decoder.shape
        self._last: list[Speculated] = []

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position: the decoder's."""
        return self.decoder(ids)

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position and the cache."""
        return self.decoder.prefill(ids)

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position and the cache."""
        return self.decoder.decode(ids, cache)

    def write(self, ids: Tensor, new: int) -> Tensor:
        """`new` greedy tokens after ids [batch, tokens], [batch, new]."""
        self._last = [speculative_greedy(self.decoder, self._draft(), row[None], new, self.ahead) for row in ids]
        return torch.cat([found.ids for found in self._last])

    def _draft(self) -> Draft:
        """A draft that remembers nothing of other sequences."""
        return lookup_draft(self.tail) if self.draft == "lookup" else model_draft(first_layers(self.decoder, self.exit))

    def written(self) -> dict[str, float | None]:
        """Tokens per step and acceptance over the sequences of the last answer."""
        return account(self._last)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        return self.decoder.cache_bits()


def first_layers(decoder: Decoder, count: int) -> Decoder:
    """A decoder of the first `count` layers that shares the weights of the whole."""
    shallow = copy.copy(decoder)
    shallow._modules = {**decoder._modules, "blocks": decoder.blocks[:count]}
    shallow.shape = replace(decoder.shape, layers=decoder.shape.layers[:count])
    return shallow


def lookup_draft(length: int = 3) -> Draft:
    """Drafts by look-up: what followed the last `length` tokens where they stood before, the newest place first."""

    def draft(text: Tensor, count: int) -> list[int]:
        written = text[0].tolist()
        tail = written[-length:]
        for start in range(len(written) - length - 1, -1, -1):
            if written[start : start + length] == tail:
                return written[start + length : start + length + max(0, count)]
        return []

    return draft
