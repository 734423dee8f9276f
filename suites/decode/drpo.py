"""DRPO: what shorter answers cost (arXiv 2510.04474); arithmetic alone, the reinforcement learning is out of scope.

The paper's 1.5 B model answers GSM8K 77 % shorter at -1.1 points (abstract; recalled). A request of P prompt tokens and
n new ones is priced by the closed forms of suites/common/decoder_shape.py, before and after the reduction.
"""

from __future__ import annotations

from dataclasses import dataclass

from suites.common.decoder_shape import (
    DecoderShape,
    cache_bytes_per_token,
    macs_decode_step,
    macs_prefill,
    macs_request,
    parameters,
    step_seconds,
)


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
