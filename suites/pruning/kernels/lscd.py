"""Load as sparse, compute as dense: tiles of (value, place) words are unpacked into a dense buffer and multiplied.

Source: Xia et al. 2023, Flash-LLM, arXiv:2309.10285, section 4: non-zeros of a tile as words of a 16-bit value and a
16-bit place, counts padded to a multiple of 4, one offset per tile. Here values keep the network's own dtype, so that
the product is exact: in half precision a word has the paper's 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from suites.pruning.formats import PADDING, TILE
from suites.pruning.kernels.product import Product
from suites.pruning.structures import Pattern


def tile_of(shape: Sequence[int], tile: tuple[int, int] = TILE) -> tuple[int, int]:
    """Rows and columns of a tile of a matrix [outputs, inputs]: a small matrix is one tile."""
    return min(tile[0], shape[0]), min(tile[1], shape[1])


def tiles_divide(shape: Sequence[int], tile: tuple[int, int] = TILE) -> bool:
    """Whether tiles cover a matrix [outputs, inputs] without a rest."""
    return not any(size % side for size, side in zip(shape, tile_of(shape, tile), strict=True))


class LscdProduct(Product):
    """W X: a row of tiles is unpacked, multiplied and left again, so that W is never dense as a whole."""

    place: Tensor
    ends: Tensor

    def __init__(self, weight: Tensor, pattern: Pattern, tile: tuple[int, int] = TILE):
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self.tile = tile_of(weight.shape, tile)
        if not tiles_divide(weight.shape, tile):
            raise ValueError(
                f"kernel='lscd': tiles of {self.tile} do not divide a layer of {tuple(weight.shape)}: take multiples "
                "of them, or kernel='csr'"
            )
        self.executed_weights = self.outputs * self.inputs
        if weight.is_meta:  # how full each tile is depends on values, and so does its padding: the products do not
            self._stored(weight.new_empty(pattern.count), weight.new_empty(pattern.count), weight.new_empty(self.tiles))
            return
        high, wide = self.tile
        mask = pattern.mask.reshape(weight.shape)
        tiled = [
            t.unflatten(0, (-1, high)).unflatten(2, (-1, wide)).transpose(1, 2).flatten(0, 1) for t in (weight, mask)
        ]
        values, kept = tiled[0].detach().flatten(1), tiled[1].flatten(1)
        self.counts = kept.sum(1).tolist()
        padded = [-(-count // PADDING) * PADDING for count in self.counts]
        self.offsets_list = [0, *torch.tensor(padded).cumsum(0).tolist()]
        packed, places = values.new_zeros(self.offsets_list[-1]), torch.zeros(self.offsets_list[-1], dtype=torch.int64)
        for i, start in enumerate(self.offsets_list[:-1]):
            own = kept[i].nonzero()[:, 0]
            packed[start : start + len(own)] = values[i][own]
            if len(own):  # padding repeats the last place with a zero that is added
                places[start : start + padded[i]] = torch.cat([own, own[-1:].expand(padded[i] - len(own))])
        self._stored(packed, places, torch.tensor(self.offsets_list[1:]))

    def _stored(self, values: Tensor, places: Tensor, ends: Tensor) -> None:
        """Hold what the format stores: a value and a 16-bit place a word, and where each tile's words end."""
        self.values = nn.Parameter(values)
        self.register_buffer("place", places.to(torch.int16))
        self.register_buffer("ends", ends.to(torch.int32))

    @property
    def tiles(self) -> int:
        """How many there are."""
        return (self.outputs // self.tile[0]) * (self.inputs // self.tile[1])

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N]."""
        if x.is_meta:
            return x.new_empty(self.outputs, self.inputs) @ x
        high, _ = self.tile
        across = self.inputs // self.tile[1]
        rows = [self._row(i, across) @ x for i in range(self.outputs // high)]
        return torch.cat(rows)

    def _row(self, row: int, across: int) -> Tensor:
        """A row of tiles as a dense [tile rows, inputs]."""
        high, wide = self.tile
        first, last = self.offsets_list[row * across], self.offsets_list[(row + 1) * across]
        ends = self.ends[row * across : (row + 1) * across].long()
        counts = ends.diff(prepend=ends.new_full((1,), first))
        tile_of = torch.repeat_interleave(torch.arange(across, device=self.values.device), counts)
        place = self.place[first:last].long() + tile_of * (high * wide)
        buffer = self.values.new_zeros(across * high * wide).index_add(0, place, self.values[first:last])
        return buffer.view(across, high, wide).transpose(0, 1).reshape(high, self.inputs)
