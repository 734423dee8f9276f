"""DRPO: what shorter answers cost (Li et al. 2025, arXiv 2510.04474); the reinforcement learning is out of scope.

The paper's 1.5 B model answers GSM8K 77 % shorter at -1.1 points (abstract). The row writes that much less of every
answer: its request is a shorter one of the same decoder, its text is not what the trained model would say, so it is
labelled simulated. Beside it a request of P prompt tokens and n new ones is priced by the closed forms of
suites/common/decoder_shape.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import Rate
from suites.common.decoder import Generator
from suites.common.decoder_shape import (
    DecoderShape,
    cache_bytes_per_token,
    macs_decode_step,
    macs_prefill,
    macs_request,
    parameters,
    step_seconds,
)


def drpo(model: nn.Module, *, reduction: Rate = 0.77) -> Generator:
    """The decoder whose answers are shorter by `reduction`; what it does not write is filled up with zeros.

    Args:
        model: a decoder.
        reduction: share of the tokens that are not written; at least one always is.

    Raises:
        ValueError: the model does not generate.
    """
    if not isinstance(model, Generator):
        raise ValueError(f"drpo shortens the answers of a decoder, and {type(model).__name__} writes none")
    return Shorter(model, reduction)


def left_of(new: int, reduction: float) -> int:
    """Tokens that are left of so many, at least one."""
    return max(1, round((1 - reduction) * new))


class Shorter(Generator):
    """A decoder that stops early; one prompt and one step are the decoder's own."""

    execution = "simulated"

    def __init__(self, decoder: Generator, reduction: float):
        super().__init__()
        self.decoder, self.reduction, self.vocabulary = decoder, reduction, decoder.vocabulary
        self._written = 0

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position: the decoder's."""
        return self.decoder(ids)

    def prefill(self, ids: Tensor) -> tuple[Tensor, Any]:
        """Logits of the last position and the cache."""
        return self.decoder.prefill(ids)

    def decode(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the next position and the cache."""
        return self.decoder.decode(ids, cache)

    def answer_tokens(self, new: int) -> int:
        """How many of `new` tokens are written."""
        return left_of(new, self.reduction)

    def write(self, ids: Tensor, new: int) -> Tensor:
        """The first tokens of the plain greedy answer, then zeros, [batch, new]."""
        count = left_of(new, self.reduction)
        logits, cache = self.decoder.prefill(ids)
        out = [logits.argmax(dim=-1, keepdim=True)]
        for _ in range(count - 1):
            logits, cache = self.decoder.decode(out[-1], cache)
            out.append(logits.argmax(dim=-1, keepdim=True))
        self._written = len(ids) * count
        return torch.cat([*out, ids.new_zeros(len(ids), new - count)], dim=1)

    def written(self) -> dict[str, float]:
        """Tokens of the last answers."""
        return {"tokens_written": float(self._written)}

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: the decoder's."""
        return self.decoder.cache_bits()  # type: ignore[operator]


@dataclass(frozen=True)
class Shortened:
    """Products and modelled seconds of a request before and after; `share` is what is left."""

    macs_before: int
    macs_after: int
    tokens_after: int
    seconds_before: float
    seconds_after: float

    @property
    def share(self) -> float:
        """Products after over products before."""
        return self.macs_after / self.macs_before


def request_seconds(
    shape: DecoderShape, prompt: int, new: int, *, peak_ops: float, bandwidth: float, number: int = 2
) -> float:
    """The roofline of one request at batch 1: the prompt's operations or weights, then step by step."""
    weights = parameters(shape) * number
    first = max(2 * macs_prefill(shape, prompt) / peak_ops, weights / bandwidth)
    per_token = cache_bytes_per_token(shape, number)
    return first + sum(
        step_seconds(
            macs_decode_step(shape, prompt + i),
            weights,
            (prompt + i) * per_token,
            batch=1,
            peak_ops=peak_ops,
            bandwidth=bandwidth,
        )
        for i in range(1, new)
    )


def shortened(
    shape: DecoderShape, *, prompt: int, new: int, reduction: float = 0.77, peak_ops: float, bandwidth: float
) -> Shortened:
    """The cost of n new tokens against (1 - reduction) n.

    Raises:
        ValueError: a reduction that leaves no token.
    """
    left = round((1 - reduction) * new)
    if left < 1:
        raise ValueError(f"a reduction of {reduction:g} leaves nothing of {new} tokens")
    return Shortened(
        macs_request(shape, prompt, new),
        macs_request(shape, prompt, left),
        left,
        request_seconds(shape, prompt, new, peak_ops=peak_ops, bandwidth=bandwidth),
        request_seconds(shape, prompt, left, peak_ops=peak_ops, bandwidth=bandwidth),
    )
