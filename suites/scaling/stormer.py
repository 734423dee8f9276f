"""Stormer: a plain transformer over weather variables (Nguyen et al. 2023, arXiv 2312.03876).

Every variable has a patch embedding of its own; variable embedding and position are added; at every place a learned
query attends over the variables' tokens, which leaves one token a place. Norm, blocks with adaptive norms from the lead
time, a linear head to the patch of all variables. The network predicts the difference over 6, 12 or 24 hours.
`embedding='plain'` takes one convolution of all variables instead. The query is the same at every place: projected
everywhere as released, or once (`query='once'`).

Paper: 69 variables on 128 x 256, patch 2, width 1024, depth 24, 16 heads.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.initial import draw

__all__ = ["Stormer", "load_checkpoint", "stormer"]


class VariableEmbedding(nn.Module):
    """One token a place out of one a variable."""

    def __init__(self, variables: int, width: int, heads: int, patch: int, high: int, wide: int, query: str):
        super().__init__()
        self.variables, self.heads, self.patch, self.once = variables, heads, patch, query == "once"
        places = (high // patch) * (wide // patch)
        self.patches = nn.Conv2d(variables, variables * width, patch, patch, groups=variables)
        self.variable = nn.Parameter(torch.empty(1, variables, 1, width))
        self.position = nn.Parameter(torch.empty(1, 1, places, width))
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        draw(self.variable)
        draw(self.query)
        start_as_waves(self.position, high // patch, wide // patch)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [batch, places, width] of fields [batch, variables, high, wide]."""
        batch = x.shape[0]
        tokens = self.patches(x).flatten(2).unflatten(1, (self.variables, -1)).transpose(2, 3)
        tokens = (
            (tokens + self.variable + self.position).transpose(1, 2).flatten(0, 1)
        )  # [batch places, variables, width]
        k, v = (_heads(layer(tokens), self.heads) for layer in (self.k, self.v))
        asked = self.q(self.query) if self.once else self.q(self.query.expand(len(tokens), -1, -1))
        q = _heads(asked.expand(len(tokens), -1, -1), self.heads)
        made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(made).squeeze(1).unflatten(0, (batch, -1))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


@torch.no_grad()
def start_as_waves(position: Tensor, rows: int, columns: int) -> None:
    """Start a learned position [..., places, width] as waves of its row and column; nothing on the meta device."""
    if position.is_meta:
        return
    quarter = max(1, position.shape[-1] // 4)
    speed = 10000.0 ** (-torch.arange(quarter) / quarter)
    angles = [torch.arange(count)[:, None] * speed for count in (rows, columns)]
    down, right = angles[0][:, None].expand(-1, columns, -1), angles[1][None].expand(rows, -1, -1)
    waves = torch.cat([down.sin(), down.cos(), right.sin(), right.cos()], -1).flatten(0, 1)
    position.zero_()
    position[..., : waves.shape[-1]] = waves[..., : position.shape[-1]]


class PlainEmbedding(nn.Module):
    """One convolution of all variables, and a position."""

    def __init__(self, variables: int, width: int, patch: int, high: int, wide: int):
        super().__init__()
        self.patches = nn.Conv2d(variables, width, patch, patch)
        self.position = nn.Parameter(torch.empty(1, (high // patch) * (wide // patch), width))
        start_as_waves(self.position, high // patch, wide // patch)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [batch, places, width]."""
        return self.patches(x).flatten(2).transpose(1, 2) + self.position


class AdaptiveBlock(nn.Module):
    """Attention and MLP whose norms are moved, scaled and gated by the lead time."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, lead: Tensor) -> Tensor:
        """Tokens of the same shape; `lead` is [batch, width]."""
        move1, scale1, gate1, move2, scale2, gate2 = self.modulation(lead)[:, None].chunk(6, -1)
        q, k, v = (
            self.qkv(self.norm1(x) * (1 + scale1) + move1)
            .unflatten(-1, (3, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        x = x + gate1 * self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate2 * self.fc2(F.gelu(self.fc1(self.norm2(x) * (1 + scale2) + move2), approximate="tanh"))


class Stormer(nn.Module):
    """Differences of fields [batch, variables, high, wide] after a lead time."""

    def __init__(
        self, variables: int, high: int, wide: int, patch: int, width: int, depth: int, heads: int, embedding: str,
        query: str,
    ):  # fmt: skip
        super().__init__()
        self.variables, self.high, self.wide, self.patch = variables, high, wide, patch
        self.embed: nn.Module = (
            VariableEmbedding(variables, width, heads, patch, high, wide, query) if embedding == "variable"
            else PlainEmbedding(variables, width, patch, high, wide)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.lead = nn.Linear(1, width)
        self.blocks = nn.ModuleList(AdaptiveBlock(width, heads) for _ in range(depth))
        self.last = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, variables * patch**2)

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """Random fields, and lead times of 6, 12 and 24 hours in turn, in tens of hours as the network takes them."""
        like = self.head.weight
        times = torch.tensor([6.0, 12.0, 24.0])[torch.arange(batch) % 3] / 10
        return torch.randn(batch, self.variables, self.high, self.wide).to(like), times.to(like)

    def forward(self, fields: Tensor, lead: Tensor | None = None) -> Tensor:
        """Differences of the shape of the fields; without a lead time those of 6 hours."""
        time = fields.new_full((len(fields),), 0.6) if lead is None else lead
        about = self.lead(time[:, None])
        x = self.norm(self.embed(fields))
        for block in self.blocks:
            x = block(x, about)
        move, scale = self.modulation(about)[:, None].chunk(2, -1)
        y = self.head(self.last(x) * (1 + scale) + move)
        rows, columns, p = self.high // self.patch, self.wide // self.patch, self.patch
        y = y.unflatten(1, (rows, columns)).unflatten(3, (p, p, self.variables))
        return y.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of the differences."""
        return F.mse_loss(outputs, targets)

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random differences."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.variables, self.high, self.wide, generator=generator)


def stormer(
    *,
    variables: PositiveInt = 8,
    high: PositiveInt = 16,
    wide: PositiveInt = 32,
    patch: PositiveInt = 2,
    width: PositiveInt = 128,
    depth: PositiveInt = 4,
    heads: PositiveInt = 4,
    embedding: Literal["variable", "plain"] = "variable",
    query: Literal["everywhere", "once"] = "everywhere",
) -> Stormer:
    """Stormer in evaluation mode with random weights.

    Args:
        variables: fields of the atmosphere.
        high: rows of the grid.
        wide: columns of the grid.
        patch: side of a patch.
        width: of a token.
        depth: blocks.
        heads: of attention, among variables and among places.
        embedding: a token a variable, joined by attention, or one convolution.
        query: whether the learned query is projected at every place, as released, or once, which gives the same.

    Raises:
        ValueError: sides that patches do not fill, or heads that do not divide the width.
    """
    if high % patch or wide % patch or width % heads:
        raise ValueError(
            f"high={high} and wide={wide} must be multiples of patch={patch}, width={width} of heads={heads}"
        )
    return Stormer(variables, high, wide, patch, width, depth, heads, embedding, query).eval()


def rollouts(model: nn.Module, fields: Tensor, hours: int = 24) -> dict[int, Tensor]:
    """Forecasts by steps of 6, 12 and 24 hours, by the length of a step; the mean of all three costs 7 forwards.

    Args:
        model: takes fields and a lead time in tens of hours and gives differences.
        fields: [batch, variables, high, wide].
        hours: a multiple of 24.
    """
    found = {}
    for step in (6, 12, 24):
        now = fields
        for _ in range(hours // step):
            now = now + model(now, now.new_full((len(now),), step / 10))
        found[step] = now
    return found


def training_macs(forward: float, samples: int, epochs: float) -> float:
    """Modelled products of a training: samples x epochs x three forwards."""
    return samples * epochs * 3 * forward
