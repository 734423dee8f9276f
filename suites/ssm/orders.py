"""Orders in which scans read a map, as index permutations, and the way back to the map.

A map of H x W positions is numbered in raster order. `step` 1 reads all of it four times; `step` 2 reads four sub-grids
by the parity of row and column, each once, on a map that is padded to even sides (EfficientVMamba, arXiv:2403.09977).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache as remember

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: raster, column by column, and the reverse of each.
CROSS = ("raster", "columns", "raster_back", "columns_back")
#: both ways of the raster.
BOTH_WAYS = ("raster", "raster_back")


@remember
def paths(height: int, width: int, names: tuple[str, ...]) -> Tensor:
    """Positions in the order of each path, [paths, height x width]."""
    with torch.inference_mode(False), torch.device("cpu"):
        grid = torch.arange(height * width).view(height, width)
        known = {"raster": grid.flatten(), "columns": grid.t().flatten()}
        return torch.stack([known[n.removesuffix("_back")].flip(0) if n.endswith("_back") else known[n] for n in names])


@remember
def subgrids(height: int, width: int, straight: bool) -> Tensor:
    """Positions of the four sub-grids of a map with even sides, [4, height x width / 4].

    (even, even) and (even, odd) rows and columns in raster order, (odd, even) and (odd, odd) column by column; all four
    in raster order where `straight`. Together they hold every position once.
    """
    with torch.inference_mode(False), torch.device("cpu"):
        grid = torch.arange(height * width).view(height, width)
        found = []
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
            part = grid[row::2, column::2]
            found.append((part if straight or row == 0 else part.t()).flatten())
        return torch.stack(found)


@remember
def _placed(kind: str, height: int, width: int, detail: tuple[str, ...] | bool, device: str) -> tuple[Tensor, Tensor]:
    """An order and its inverse on a device; the inverse of sub-grids is one of all four in a row."""
    with torch.inference_mode(False):
        if kind == "paths":
            order = paths(height, width, detail)
            back = order.argsort(dim=1)
        else:
            order = subgrids(height, width, bool(detail))
            back = order.flatten().argsort()
        return order.to(device), back.to(device)


class Orders(nn.Module):
    """Takes a map apart into K sequences and puts the K results of scans back; holds no parameters.

    `raster4` reads every path in raster order: no method, but what transposes and flips cost.
    """

    def __init__(self, names: Sequence[str], step: int, raster4: bool):
        super().__init__()
        self.names, self.step, self.raster4 = tuple(names), step, raster4

    def length(self, height: int, width: int) -> int:
        """Tokens of each scan."""
        return height * width if self.step == 1 else -(-height // 2) * (-(-width // 2))

    def apart(self, x: Tensor) -> Tensor:
        """[K, batch, tokens, D] of a map [batch, height, width, D]."""
        height, width = x.shape[1:3]
        if self.step == 1 and self.raster4:
            return x.flatten(1, 2).expand(len(self.names), *x.flatten(1, 2).shape)
        if self.step == 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        order, _ = self._orders(x.shape[1], x.shape[2], x.device)
        return x.flatten(1, 2).index_select(1, order.flatten()).unflatten(1, order.shape).transpose(0, 1)

    def together(self, y: Tensor, height: int, width: int) -> Tensor:
        """The map [batch, height, width, D] of results [K, batch, tokens, D]: summed, or each back in its place."""
        if self.step == 1 and self.raster4:
            return y.sum(0).unflatten(1, (height, width))
        high, wide = (height, width) if self.step == 1 else (height + height % 2, width + width % 2)
        _, back = self._orders(high, wide, y.device)
        if self.step == 2:
            whole = y.transpose(0, 1).flatten(1, 2).index_select(1, back).unflatten(1, (high, wide))
            return whole[:, :height, :width]
        total = y[0].index_select(1, back[0])
        for result, place in zip(y[1:], back[1:], strict=True):
            total = total + result.index_select(1, place)
        return total.unflatten(1, (height, width))

    def moved_bytes(self, height: int, width: int, inner: int) -> int:
        """Bytes that one map's gather reads and writes in float32, and as many for the way back: 16 K D L."""
        if self.step == 1 and self.raster4:
            return 0
        return 16 * len(self.names) * inner * self.length(height, width)

    def _orders(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.step == 1:
            return _placed("paths", height, width, self.names, str(device))
        return _placed("subgrids", height, width, self.raster4, str(device))
