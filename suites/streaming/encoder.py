"""A transformer encoder over the last n tokens of a stream, run as a whole: the plain network of co_transformer.

A token is an embedded frame with the learned position of its place in a ring of positions: token t has position
t mod m and keeps it as long as it lives (Hedegaard et al. 2022, arXiv 2201.06268), so that nothing is encoded again
when the window moves.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.initial import draw
from suites.streaming.frames import Recomputed

__all__ = ["Encoder", "EncoderLayer", "encoder", "load_checkpoint"]


class EncoderLayer(nn.Module):
    """Attention without biases, feed-forward with GELU; each followed by a residual and LayerNorm."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def split(self, x: Tensor) -> Tensor:
        """Heads apart, [batch, heads, tokens, size]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What queries see, [batch, queries, width]; all arguments with heads apart."""
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def finish(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Tokens after both residuals, from what they saw."""
        x = self.norm1(tokens + self.out(seen))
        return self.norm2(x + self.fc2(F.gelu(self.fc1(x))))

    def forward(self, tokens: Tensor, last: bool = False) -> Tensor:
        """All tokens [batch, tokens, width], or the newest alone; keys and values are always of all."""
        asking = tokens[:, -1:] if last else tokens
        seen = self.attend(self.split(self.q(asking)), self.split(self.k(tokens)), self.split(self.v(tokens)))
        return self.finish(asking, seen)


class Encoder(Recomputed):
    """Embedding, layers, and a head on the newest token.

    Attributes:
        offline_last: whether the last layer makes the newest token alone, which is all that is asked for.
    """

    def __init__(
        self, n: int, d: int, h: int, f: int, layers: int, d_in: int, classes: int, positions: int, offline_last: bool
    ):
        super().__init__()
        self.n = self.frames = n
        self.d, self.h, self.f, self.d_in, self.classes, self.offline_last = d, h, f, d_in, classes, offline_last
        self.pictures = False
        self._begun = 0
        self.embed = nn.Linear(d_in, d)
        self.layers = nn.ModuleList(EncoderLayer(d, h, f) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, classes)
        self.positions = nn.Parameter(torch.zeros(positions, d)) if positions else None
        if self.positions is not None:
            draw(self.positions)

    def tokens(self, x: Tensor, first: int) -> Tensor:
        """Embedded inputs [batch, tokens, ...], the first of which came at time `first`."""
        if self.pictures:
            side = round(self.d_in**0.5)
            x = F.adaptive_avg_pool2d(x.flatten(0, 1), side).unflatten(0, x.shape[:2])
        x = self.embed(x.flatten(2))
        if self.positions is None:
            return x
        places = torch.arange(first, first + x.shape[1], device=x.device) % len(self.positions)
        return x + self.positions[places]

    def answers(self, clip: Tensor, first: int, *, last: bool) -> Tensor:
        """Tokens of a window after all layers."""
        x = self.tokens(clip, first)
        for place, layer in enumerate(self.layers):
            x = layer(x, last and place == len(self.layers) - 1)
        return x

    def offline(self, clip: Tensor, first: int | None = None) -> Tensor:
        """Logits [batch, classes] of the newest token of the last window of a clip that begins at time 0.

        Args:
            clip: [batch, tokens, ...], at least n of them.
            first: the time of the window's first token, where the clip begins elsewhere.
        """
        first = clip.shape[1] - self.n if first is None else first
        return self.classify(self.answers(clip[:, -self.n :], first, last=self.offline_last)[:, -1])

    def classify(self, token: Tensor) -> Tensor:
        """Logits of the newest token."""
        return self.head(self.norm(token))

    def reference(self, clip: Tensor) -> Tensor:
        """Logits [batch, windows, classes], each window by itself, every token with the position of its time."""
        return self._windows(clip, 0)

    def forward(self, clip: Tensor) -> Tensor:
        """As `reference`; in training every batch begins one place further, so that all of the ring is learned."""
        if not self.training or self.positions is None:
            return self.reference(clip)
        self._begun = (self._begun + 1) % len(self.positions)
        return self._windows(clip, self._begun)

    def _windows(self, clip: Tensor, first: int) -> Tensor:
        """Logits of all windows of a clip whose first token came at time `first`."""
        starts = range(0, clip.shape[1] - self.n + 1, self.every)
        return torch.stack([self.offline(clip[:, at : at + self.n], first + at) for at in starts], dim=1)

    def step(self, x: Tensor, state: list[object]) -> tuple[Tensor | None, list[object]]:
        """One more token; the window that ends with it from its inputs on."""
        new = x[:, None]
        seen = new if len(state) == 1 else torch.cat([state[1], new], dim=1)  # type: ignore[list-item]
        time = int(state[0])  # type: ignore[call-overload]
        state = [time + 1, seen[:, -(self.n - 1) :].clone() if self.n > 1 else seen[:, :0].clone()]
        if time + 1 < self.n or (time + 1 - self.n) % self.every:
            return None, state
        return self.offline(seen, time + 1 - self.n), state

    def as_frame(self) -> Encoder:
        """With a window of one token."""
        many = 0 if self.positions is None else 1
        net = Encoder(1, self.d, self.h, self.f, len(self.layers), self.d_in, self.classes, many, self.offline_last)
        net.pictures = self.pictures
        return net

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Features that drift, [batch, length, d_in], the same every time."""
        generator = torch.Generator().manual_seed(0)
        numbers = (1, 32, 32) if self.pictures else (self.d_in,)
        noise = torch.randn(batch, length, math.prod(numbers), generator=generator)
        drift = 0.3 * noise.cumsum(1) / (1 + torch.arange(length)).sqrt()[:, None] + noise
        return drift.unflatten(2, numbers).to(self.embed.weight)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A window."""
        return (self.example_clip(batch, self.n),)


def encoder(
    *,
    n: PositiveInt = 64,
    d: PositiveInt = 1024,
    h: PositiveInt = 8,
    f: PositiveInt = 1024,
    layers: PositiveInt = 1,
    d_in: PositiveInt = 3072,
    classes: PositiveInt = 22,
    positions: Count = 0,
    offline: Literal["all", "last"] = "all",
    pictures: bool = False,
) -> Encoder:
    """The encoder in evaluation mode with random weights.

    Args:
        n: tokens of the window.
        d: width of a token, a multiple of h.
        h: heads.
        f: width of the feed-forward.
        layers: depth.
        d_in: numbers of an input.
        classes: logits.
        positions: m of the ring of positions, n to 2 n - 1; 0 for none.
        offline: whether the last layer of the window makes all tokens, as in the paper's comparison, or the newest.
        pictures: inputs are frames [1, 32, 32], whose means over squares are the d_in numbers.

    Raises:
        ValueError: heads that do not divide; a ring in which two living tokens would share a position; pictures whose
            means are no square.
    """
    if d % h:
        raise ValueError(f"d={d} must be a multiple of h={h}")
    if pictures and math.isqrt(d_in) ** 2 != d_in:
        raise ValueError(f"d_in={d_in}: the means of a picture are a square, as 64 are 8 x 8")
    if positions and positions < n:
        raise ValueError(f"positions={positions}: a ring of n={n} or more keeps living tokens apart")
    net = Encoder(n, d, h, f, layers, d_in, classes, positions, offline == "last")
    net.pictures = pictures
    return net.eval()
