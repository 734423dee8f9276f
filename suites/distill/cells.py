"""Many tiny linear layers at once: points go to the network of the cell that they lie in, in four forms that agree.

`loop` multiplies cell by cell; `padded` puts the sorted points of every cell that was hit into rows of one batched
product, as many as the fullest has; `grouped` gives the sorted points to torch's grouped product; `gathered` fetches a
matrix for every point. All but the last sort points by cell first and put the answers back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Forms = Literal["loop", "padded", "grouped", "gathered"]
#: A linear layer of the cells: features [..., inner] of the points at hand to [..., outer].
Layer = Callable[[Tensor, str], Tensor]
#: The layers of every cell's network, by name.
Layers = Mapping[str, "CellLinear"]
#: What a tiny network computes: features of points by name, and its layers.
Network = Callable[[dict[str, Tensor], Layer], dict[str, Tensor]]


class CellLinear(nn.Module):
    """Weights [cells, inner, outer] and biases [cells, outer] of one layer of every cell's network."""

    def __init__(self, cells: int, inner: int, outer: int):
        super().__init__()
        reach = 1 / math.sqrt(inner)
        self.weight = nn.Parameter(torch.empty(cells, inner, outer).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(cells, outer).uniform_(-reach, reach))


def cell_of(points: Tensor, grid: Sequence[int]) -> Tensor:
    """Number of the cell of each point, [n], of points [n, 3] in the cube from -1 to 1."""
    sides = torch.tensor(list(grid), device=points.device)
    place = ((points + 1) / 2 * sides).floor().long()
    place = torch.minimum(place.clamp_min(0), sides - 1)
    return (place[:, 0] * grid[1] + place[:, 1]) * grid[2] + place[:, 2]


def local(points: Tensor, cell: Tensor, grid: Sequence[int]) -> Tensor:
    """Points in the coordinates of their cell, -1 to 1 along its sides, [n, 3]."""
    sides = torch.tensor(list(grid), device=points.device)
    rest = torch.stack([cell // (grid[1] * grid[2]), cell // grid[2] % grid[1], cell % grid[2]], 1)
    return ((points + 1) / 2 * sides - rest) * 2 - 1


@dataclass(frozen=True)
class Sorted:
    """Points by cell: `order` sorts them, `back` undoes it, `counts` [cells] says how many lie in each."""

    order: Tensor
    back: Tensor
    counts: Tensor

    @property
    def ends(self) -> Tensor:
        """How many points lie in this and the cells before, [cells]."""
        return self.counts.cumsum(0)


def by_cell(cell: Tensor, cells: int) -> Sorted:
    """The order of points by cell."""
    order = cell.argsort(stable=True)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    counts = torch.zeros(cells, dtype=torch.long, device=cell.device).scatter_add_(0, cell, torch.ones_like(cell))
    return Sorted(order, back, counts)


def run(form: Forms, network: Network, layers: Layers, given: dict[str, Tensor], cell: Tensor) -> dict[str, Tensor]:
    """The answers of every point's own network.

    Args:
        form: how the products are made.
        network: what a tiny network computes of `given`.
        layers: `CellLinear` by name.
        given: features of points by name, [n, width] each.
        cell: of each point, [n].

    Raises:
        NotImplementedError: loop and padded without values, for it is not known how full a cell is.
    """
    if form == "gathered":
        return network(given, lambda x, name: _gathered(layers[name], x, cell))
    cells = len(next(iter(layers.values())).bias)
    by = by_cell(cell, cells)
    found = {name: x[by.order] for name, x in given.items()}
    if form == "grouped":
        ends = by.ends.int()
        told = network(found, lambda x, name: _grouped(layers[name], x, ends, cell[by.order]))
    elif cell.is_meta:
        raise NotImplementedError(f"form={form}: without values it is not known how many points lie in a cell")
    else:
        told = (_looped if form == "loop" else _padded)(network, layers, found, by.counts)
    return {name: x[by.back] for name, x in told.items()}


def _gathered(layer: CellLinear, x: Tensor, cell: Tensor) -> Tensor:
    return torch.baddbmm(layer.bias[cell][:, None], x[:, None], layer.weight[cell])[:, 0]


def _grouped(layer: CellLinear, x: Tensor, ends: Tensor, cell: Tensor) -> Tensor:
    inner, outer = layer.weight.shape[1:]
    by = 16 // x.element_size()  # rows of a grouped product have to be whole pieces of sixteen bytes
    wide, broad = -inner % by, -outer % by
    product = torch._grouped_mm(F.pad(x, (0, wide)), F.pad(layer.weight, (0, broad, 0, wide)), offs=ends)
    return product[:, :outer] + layer.bias[cell]


def _one(layers: Layers, number: int, x: Tensor, name: str) -> Tensor:
    return torch.addmm(layers[name].bias[number], x, layers[name].weight[number])


def _looped(network: Network, layers: Layers, given: dict[str, Tensor], counts: Tensor) -> dict[str, Tensor]:
    sizes = counts.tolist()
    pieces = {name: x.split(sizes) for name, x in given.items()}
    found = list[dict[str, Tensor]]()
    for number, size in enumerate(sizes):
        if size:
            own = {name: parts[number] for name, parts in pieces.items()}
            found.append(network(own, partial(_one, layers, number)))
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


def _padded(network: Network, layers: Layers, given: dict[str, Tensor], counts: Tensor) -> dict[str, Tensor]:
    hit = counts.nonzero().flatten()
    sizes = counts[hit]
    fullest = int(sizes.max())
    row = torch.arange(len(hit), device=hit.device).repeat_interleave(sizes)
    place = torch.arange(len(row), device=hit.device) - (sizes.cumsum(0) - sizes)[row]
    slot = row * fullest + place

    def spread(x: Tensor) -> Tensor:
        return x.new_zeros(len(hit) * fullest, x.shape[1]).index_copy(0, slot, x).unflatten(0, (len(hit), fullest))

    picked = {name: (layer.weight[hit], layer.bias[hit][:, None]) for name, layer in layers.items()}
    told = network({name: spread(x) for name, x in given.items()},
                   lambda x, name: torch.baddbmm(picked[name][1], x, picked[name][0]))  # fmt: skip
    return {name: x.flatten(0, 1)[slot] for name, x in told.items()}


def useful_share(cell: Tensor, cells: int) -> float:
    """Percent of the rows of a padded product that are points: points over cells that were hit x the fullest."""
    counts = torch.bincount(cell, minlength=cells)
    return 100 * len(cell) / float((counts > 0).sum() * counts.max())
