"""Position biases of windowed attention: Swin V2's network over log-spaced offsets, a linear one, Swin's table.

Source: Liu et al. 2022, Swin Transformer V2, arXiv:2111.09883, section 3.3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.initial import draw
from suites.common.operators import Operator

HIDDEN = 512


class PositionBias(nn.Module):
    """The bias [heads, w^2, w^2] of a window."""

    def __init__(self, heads: int, window: int, kind: str, *, cached: bool = False):
        super().__init__()
        self.heads, self.kind, self.window, self.trained_window, self.cached = heads, kind, window, window, cached
        if kind == "table":
            self.table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
            draw(self.table)
        else:
            self.net = nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, heads, bias=False))
        self._kept: tuple[int, Tensor] | None = None

    def offsets(self) -> Tensor:
        """What the network is given, [(2 w - 1)^2, 2]: offsets over the window that the weights were trained with."""
        device, exact = self._like.device, torch.promote_types(self._like.dtype, torch.float32)
        steps = torch.arange(1 - self.window, self.window, device=device, dtype=exact) / max(1, self.trained_window - 1)
        both = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1) * 8
        if self.kind == "linear":
            return both / 8
        return both.sign() * torch.log2(both.abs() + 1) / math.log2(8)

    @property
    def _like(self) -> Tensor:
        weight = self.table if self.kind == "table" else self.net[0].weight
        assert isinstance(weight, Tensor)
        return weight

    def values(self) -> Tensor:
        """Biases of all offsets, [(2 w - 1)^2, heads]."""
        if self.kind != "table":
            return 16 * self.net(self.offsets().to(self._like.dtype)).sigmoid()
        if self.window == self.trained_window:
            return self.table
        old, new = 2 * self.trained_window - 1, 2 * self.window - 1
        grid = self.table.T.reshape(1, self.heads, old, old)
        wide = F.interpolate(grid.float(), size=(new, new), mode="bicubic", align_corners=False)
        return wide.flatten(2)[0].T.to(self.table.dtype)

    def forward(self) -> Tensor:
        """The bias; where it is cached, in evaluation once for each state of the weights."""
        if not self.cached or self.training or torch.is_grad_enabled():
            return self._gathered()
        state = hash((tuple(p._version for p in self.parameters()), self._like.dtype, self._like.device, self.window))
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._gathered())
        return self._kept[1]

    def _gathered(self) -> Tensor:
        places = torch.arange(self.window, device=self._like.device)
        away = places[:, None] - places + self.window - 1
        index = away[:, None, :, None] * (2 * self.window - 1) + away[None, :, None, :]
        return self.values()[index.reshape(self.window**2, self.window**2)].permute(2, 0, 1)


def position_bias(
    *,
    window: PositiveInt = 8,
    heads: PositiveInt = 3,
    bias: Literal["log", "linear", "table"] = "log",
    cached: bool = False,
) -> BiasOperator:
    """The bias of one window alone, as an operator.

    Args:
        window: side in tokens.
        heads: of the attention.
        bias: log and linear are networks over offsets, table is a look-up.
        cached: kept from call to call, as in evaluation.
    """
    return BiasOperator(window, heads, bias, cached).eval()


class BiasOperator(Operator):
    """The bias times a number, so that a run has something to read."""

    def __init__(self, window: int, heads: int, kind: str, cached: bool):
        super().__init__(form="cached" if cached else "recomputed")
        self.bias = PositionBias(heads, window, kind, cached=cached)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """One number a sample."""
        return (torch.randn(batch).to(self.like),)

    def function(self, scale: Tensor) -> Tensor:
        """[heads, w^2, w^2]."""
        with torch.no_grad():
            return self.bias() * scale[0]

    def definition(self, scale: Tensor) -> Tensor:
        """Pair of tokens by pair of tokens, each looked up by its offset."""
        values, w = self.bias.values(), self.bias.window
        made = scale.new_zeros(self.bias.heads, w * w, w * w)
        for i in range(w * w):
            for j in range(w * w):
                down, right = i // w - j // w + w - 1, i % w - j % w + w - 1
                made[:, i, j] = values[down * (2 * w - 1) + right]
        return made * scale[0]


def bias_macs(window: int, heads: int) -> int:
    """Products of the network over all offsets of a window."""
    return (2 * window - 1) ** 2 * (2 * HIDDEN + HIDDEN * heads)
