"""Prior-data fitted networks (Mueller et al. 2022, arXiv 2112.10510): a posterior in one forward.

Tokens: n training points embed(x) + embed(y), q queries embed(x). Post-norm layers of width 512, 4 heads, 1024 in the
feed-forward part, no positions. Training points see each other, a query sees them and itself. A head 512 -> 1024 ->
bins says how much of the density lies in each bin; bins have equal mass under the prior, and beyond the outer borders
the density falls like half a normal. The last projection of each part of a block starts at zero.

Forms, whose answers are the same: `cross` runs queries as cross-attention, n n + q (n + 1) pairs; `masked` scores all
(n + q)^2 pairs and masks; `released` is masked, embeds a y of zero for queries as well and runs the head on all tokens,
as the released code does.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.training import Pace, fit

Form = Literal["cross", "masked", "released"]


class Layer(nn.Module):
    """One post-norm layer."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        for last in (self.out, self.down):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, known: int, mask: Tensor | None) -> Tensor:
        """Tokens [batch, tokens, width], of which the first `known` are training points; a mask, or cross-attention."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        seen = _cross(q, k, v, known) if mask is None else F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm1(x + self.out(seen.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


def _cross(q: Tensor, k: Tensor, v: Tensor, known: int) -> Tensor:
    """Training points over each other, each query over them and itself: [batch, heads, tokens, size]."""
    parts = list[Tensor]()
    keys, values = k[:, :, :known], v[:, :, :known]
    if known:
        parts.append(F.scaled_dot_product_attention(q[:, :, :known], keys, values))
    if q.shape[2] > known:
        asked, own_k, own_v = q[:, :, known:], k[:, :, known:], v[:, :, known:]
        scores = torch.cat(
            [asked @ keys.transpose(-1, -2), (asked.unsqueeze(-2) @ own_k.unsqueeze(-1)).squeeze(-1)], -1
        )
        shares = (scores / math.sqrt(q.shape[-1])).softmax(-1)
        own = (shares[..., known:].unsqueeze(-2) @ own_v.unsqueeze(-2)).squeeze(-2)
        parts.append(shares[..., :known] @ values + own)
    return torch.cat(parts, 2)


class Bars(nn.Module):
    """A density over bins of equal prior mass, with half-normal tails outside (Mueller et al. 2022, section 4)."""

    borders: Tensor

    def __init__(self, bins: int):
        super().__init__()
        inner = math.sqrt(2) * torch.erfinv(2 * torch.arange(1, bins) / bins - 1)  # of a normal, until `fit_to`
        self.register_buffer("borders", torch.cat([inner[:1] - 1, inner, inner[-1:] + 1]))

    def fit_to(self, draws: Tensor) -> None:
        """Put borders at the quantiles of prior draws, [any]."""
        places = torch.linspace(0, 1, len(self.borders), dtype=draws.dtype)
        self.borders.copy_(draws.flatten().quantile(places))

    def log_density(self, logits: Tensor, y: Tensor) -> Tensor:
        """Log density at y [...] of bins whose log shares are logits [..., bins]."""
        borders, bins = self.borders, len(self.borders) - 1
        place = (torch.searchsorted(borders, y.contiguous()) - 1).clamp(0, bins - 1)
        share = logits.log_softmax(-1).gather(-1, place[..., None])[..., 0]
        width = (borders[1:] - borders[:-1]).clamp_min(1e-6)[place]
        found = share - width.log()
        for outer, sign in ((0, -1.0), (bins - 1, 1.0)):
            inner = borders[1] if outer == 0 else borders[-2]
            reach = (borders[1] - borders[0] if outer == 0 else borders[-1] - borders[-2]).clamp_min(1e-6) / 0.6745
            away = sign * (y - inner) / reach
            tail = share + math.log(2) - 0.5 * away.square() - reach.log() - 0.5 * math.log(2 * math.pi)
            found = torch.where(place == outer, tail, found)
        return found


class Pfn(nn.Module):
    """Training points and queries in, log shares of bins [batch, queries, bins] out."""

    def __init__(self, features: int, width: int, heads: int, depth: int, hidden: int, bins: int, form: Form,
                 points: int, queries: int, training_steps: int):  # fmt: skip
        super().__init__()
        self.form, self.shape_of, self.features, self.training_steps = form, [points, queries], features, training_steps
        self.of_x, self.of_y = nn.Linear(features, width), nn.Linear(1, width)
        self.layers = nn.ModuleList(Layer(width, heads, hidden) for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, bins))
        self.bars = Bars(bins)

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random training points, what they give, and queries."""
        like, (known, asked) = next(self.parameters()), self.shape_of
        x = torch.rand(batch, known + asked, self.features).to(like)
        return x[:, :known], torch.randn(batch, known).to(like), x[:, known:]

    def forward(self, x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        """Log shares of bins, [batch, queries, bins].

        Args:
            x: training points, [batch, n, features].
            y: what they give, [batch, n].
            asked: queries, [batch, q, features].
        """
        known = x.shape[1]
        tokens, mask = self.of_x(torch.cat([x, asked], 1)), None
        given = y[..., None]
        if self.form == "released":  # the released code embeds queries' values too and drops them
            given = torch.cat([given, given.new_zeros(*asked.shape[:2], 1)], 1)
        of_y = self.of_y(given)
        if self.form == "released":
            of_y = of_y * (torch.arange(of_y.shape[1], device=x.device) < known)[:, None]
        else:
            of_y = F.pad(of_y, (0, 0, 0, asked.shape[1]))
        tokens = tokens + of_y
        if self.form != "cross":
            place = torch.arange(tokens.shape[1], device=x.device)
            mask = (place[None] < known) | (place[None] == place[:, None])
        for layer in self.layers:
            tokens = layer(tokens, known, mask)
        if self.form == "released":
            return self.head(tokens)[:, known:]
        return self.head(tokens[:, known:])

    def log_density(self, answer: Tensor, y: Tensor) -> Tensor:
        """Log density of y [batch, queries] under an answer of this network."""
        return self.bars.log_density(answer, y)

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random values of queries for a step, [batch, queries]."""
        return torch.randn(batch, self.shape_of[1], generator=torch.Generator().manual_seed(seed))

    def loss(self, answer: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log density of the queries' values."""
        return -self.log_density(answer, targets).mean()

    def learn_prior(self, task: Any, seed: int) -> dict[str, Any]:
        """Learn from data sets drawn from the prior, each step with another number of training points.

        Args:
            task: a `suites.common.tasks.prior_tasks.PriorTasks`.
            seed: of the draws.
        """
        self.bars.fit_to(task.prior_values(seed))

        def loss(x: Tensor, y: Tensor) -> Tensor:
            known = int(torch.randint(0, task.most + 1, (1,), generator=numbers))
            return self.loss(self(x[:, :known], y[:, :known], x[:, known:]), y[:, known:])

        numbers, steps = torch.Generator().manual_seed(seed + 1), self.training_steps
        losses = fit(self, task.drawn(steps, 16, seed), loss, Pace(steps, 1e-3, weight_decay=0.0))
        return {"steps": steps, "data_sets": 16 * steps, "last_loss": sum(losses[-20:]) / len(losses[-20:])}


def pfn(
    *,
    features: PositiveInt = 5,
    width: PositiveInt = 512,
    heads: PositiveInt = 4,
    depth: PositiveInt = 6,
    hidden: PositiveInt = 1024,
    bins: Annotated[int, Field(ge=2)] = 1000,
    form: Literal["cross", "masked", "released"] = "cross",
    points: Count = 100,
    queries: PositiveInt = 100,
    training_steps: PositiveInt = 800,
) -> Pfn:
    """A prior-data fitted network, in evaluation mode with random weights.

    Args:
        features: of a point.
        width: of a token.
        heads: of attention.
        depth: layers.
        hidden: width of the feed-forward part.
        bins: of the density.
        form: cross, masked, or released.
        points: n of the example inputs.
        queries: q of the example inputs.
        training_steps: batches of 16 data sets that it learns from with a task.

    Raises:
        ValueError: heads that do not divide the width.
    """
    if width % heads:
        raise ValueError(f"heads={heads} do not divide a width of {width}")
    return Pfn(features, width, heads, depth, hidden, bins, form, points, queries, training_steps).eval()


def macs(features: int, width: int, depth: int, hidden: int, bins: int, n: int, q: int, form: Form = "cross") -> int:
    """Products of one posterior: embeddings, layers, head.

    With T = n + q: T d f + n d; a layer T (4 d^2 + 2 d h) + 2 P d, P = n n + q (n + 1) pairs or T^2 where masked; the
    head d h + h bins on q tokens. The released form embeds T values and runs the head on T tokens.
    """
    tokens = n + q
    pairs = n * n + q * (n + 1) if form == "cross" else tokens**2
    told, headed = (tokens, tokens) if form == "released" else (n, q)
    layer = tokens * (4 * width**2 + 2 * width * hidden) + 2 * pairs * width
    return tokens * features * width + told * width + depth * layer + headed * hidden * (width + bins)
