"""The patterns of Sparse-vDiT as bare functions of queries, keys and values; Chen et al. 2025, arXiv 2506.03065.

Tokens are T words, then F frames of P places. Words see everything and everything sees them, whatever the pattern.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor

from bench.config.settings import Count, PositiveInt
from suites.common.operators import Operator
from suites.diffusion.patterns import PATTERNS, Layout, attend_beside_words, columns_of

Name = Literal["full", "diagonal", "multi_diagonal", "stripe", "skip"]

#: Queries of the definition that are looked at together: their scores over all keys are written out.
ROWS = 256


class PatternOperator(Operator):
    """Attention [batch, heads, T + F P, size] in one pattern.

    Attributes:
        macs_dense: of all pairs.
        macs_nonzero: of the pairs that the pattern keeps.
    """

    def __init__(self, pattern: Name, layout: Layout, words: int, heads: int, size: int):
        super().__init__(form=pattern)
        self.pattern, self.layout, self.words, self.heads, self.size = pattern, layout, words, heads, size
        self.macs_dense = 2 * heads * size * (words + layout.tokens) ** 2
        self.macs_nonzero = 2 * heads * size * pairs(pattern, layout, words)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random queries, keys and values."""
        shape = (batch, self.heads, self.words + self.layout.tokens, self.size)
        return tuple(torch.randn(shape).to(self.like) for _ in range(3))

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """Those of a single head: what the definition writes out would not fit for many."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, 1, self.words + self.layout.tokens, self.size)
        return tuple(torch.randn(shape, generator=generator).to(self.like) for _ in range(3))

    def function(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is attended, of the same shape."""
        return attend_beside_words(self.pattern, q, k, v, self.layout, self.words)

    def definition(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scores written out and masked, some queries at a time."""
        if self.pattern == "skip":
            return torch.zeros_like(v)
        found = []
        for begin in range(0, q.shape[2], ROWS):
            some = q[:, :, begin : begin + ROWS]
            seen = self._seen(torch.arange(begin, begin + some.shape[2], device=q.device), q.shape[2])
            scores = some @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            found.append(scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v)
        return torch.cat(found, dim=2)

    def _seen(self, queries: Tensor, tokens: int) -> Tensor:
        """Which tokens the queries of these numbers see, [queries, tokens]."""
        layout, keys = self.layout, torch.arange(tokens, device=queries.device)
        i, j = queries[:, None] - self.words, keys[None] - self.words
        words = (i < 0) | (j < 0)
        if self.pattern == "full":
            return torch.ones_like(words)
        if self.pattern == "diagonal":
            return words | ((i - j).abs() <= layout.band)
        if self.pattern == "multi_diagonal":
            apart = (i - j) % layout.places
            return words | (torch.minimum(apart, layout.places - apart) <= layout.near)
        every = layout.columns >= layout.tokens
        columns = torch.arange(layout.tokens, device=j.device) if every else columns_of(layout, j.device)
        return words | torch.isin(j, columns)


def pairs(pattern: str, layout: Layout, words: int = 0, *, executed: bool = False) -> int:
    """Pairs of a head: T (T + N) of the words, N T of the video with them, and those of the pattern; none if left out.

    Args:
        pattern: its name.
        layout: of the N tokens of the video.
        words: T.
        executed: whether those that run, which are whole blocks, or those that the pattern keeps.
    """
    if pattern == "skip":
        return 0
    own, n = PATTERNS[pattern], layout.tokens
    return words * (words + n) + n * words + (own.executed(layout) if executed else own.pairs(layout))


def macs(model: dict[str, Any], method: dict[str, Any]) -> int:
    """Closed form of the card: 2 executed pairs x size of every head."""
    size = {**_DEFAULTS, **model}
    layout = Layout(*(size[name] for name in ("frames", "places", "band", "near", "columns")))
    return 2 * size["heads"] * size["width"] * pairs(size["pattern"], layout, size["words"], executed=True)


def pattern_attention(
    *,
    pattern: Literal["full", "diagonal", "multi_diagonal", "stripe", "skip"] = "full",
    frames: PositiveInt = 16,
    places: PositiveInt = 64,
    words: Count = 0,
    band: Count = 64,
    near: Count = 2,
    columns: PositiveInt = 64,
    heads: PositiveInt = 8,
    width: PositiveInt = 64,
) -> PatternOperator:
    """One pattern of attention over a video as an operator, in evaluation mode.

    Args:
        pattern: which.
        frames: F.
        places: P, tokens of a frame.
        words: T, tokens of text, which are dense whatever the pattern.
        band: half width of the diagonal, in tokens.
        near: half width of the multi-diagonal, in places of a frame.
        columns: global tokens of the stripe.
        heads: of attention.
        width: of a head.
    """
    return PatternOperator(pattern, Layout(frames, places, band, near, columns), words, heads, width).eval()


#: What the builder takes where a setting is not given.
_DEFAULTS: dict[str, Any] = {name: one.default for name, one in inspect.signature(pattern_attention).parameters.items()}
