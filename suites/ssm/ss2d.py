"""The two-dimensional selective scan: a gated depthwise layer whose maps are read along several paths.

Source: VMamba's SS2D as EfficientVMamba (arXiv:2403.09977, section 3.1) and MobileMamba (arXiv:2411.15941, section 3.2)
use it: one depthwise 3x3 layer, one normalisation and one gate for all paths; a set of selection parameters per path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.conv_blocks import depthwise
from suites.common.scan_forms import Selective
from suites.ssm.orders import Orders


def rank_of(channels: int) -> int:
    """R = ceil(C / 16)."""
    return math.ceil(channels / 16)


class PathScan(nn.Module):
    """Scans of a map [batch, height, width, D] along the paths of `orders`, brought back and summed."""

    def __init__(self, inner: int, state: int, rank: int, orders: Orders, form: str):
        super().__init__()
        self.orders = orders
        self.selective = Selective(inner, state, rank, len(orders.names), form)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        height, width = x.shape[1:3]
        return self.orders.together(self.selective(self.orders.apart(x)), height, width)

    def moves(self, shape: Sequence[int]) -> int:
        """Bytes that the orders of one call on a map of a shape read and write, per sample."""
        return self.orders.moved_bytes(*shape[1:])


class GatedScan(nn.Module):
    """[batch, height, width, 2 D], halves (x, z): SiLU(depthwise x), scans, LayerNorm, times SiLU(z).

    `along` stands in the scans' place where it is given: another module from such maps to such maps.
    """

    def __init__(
        self, channels: int, state: int, orders: Orders, form: str, expand: int = 2, along: nn.Module | None = None
    ):
        super().__init__()
        inner = expand * channels
        self.inner, self.state = inner, state
        self.local = depthwise(inner, 3)
        self.scans = PathScan(inner, state, rank_of(channels), orders, form) if along is None else along
        self.norm = nn.LayerNorm(inner)

    def forward(self, both: Tensor) -> Tensor:
        """[batch, height, width, D]."""
        x, z = both.chunk(2, dim=-1)
        x = F.silu(self.local(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return self.norm(self.scans(x)) * F.silu(z)


class Ss2d(nn.Module):
    """C -> 2 D without bias, the gated scans, D -> C without bias, on maps [batch, height, width, C]."""

    def __init__(self, channels: int, state: int, orders: Orders, form: str, along: nn.Module | None = None):
        super().__init__()
        self.enter = nn.Linear(channels, 4 * channels, bias=False)
        self.gated = GatedScan(channels, state, orders, form, along=along)
        self.leave = nn.Linear(2 * channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.leave(self.gated(self.enter(x)))


class PatchMerging(nn.Module):
    """2 x 2 neighbours side by side, LayerNorm, 4 C -> 2 C without bias; odd maps are padded right and below."""

    def __init__(self, channels: int, outputs: int | None = None):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, outputs or 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ceil(height / 2), ceil(width / 2), 2 C]."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduce(self.norm(torch.cat(parts, dim=-1)))
