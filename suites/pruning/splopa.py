"""SPLoPA: blocks of frozen linear weights go or stay, and those that stay learn by prototypes that all layers share.

Source: Hedegaard et al. 2022, arXiv:2211.10155, and the authors' library (Apache-2.0), where it is called experimental:
W' = W + sum over p of kron(S_p, a_p b_p'), S_p a number for each block of 32 x 32, a_p and b_p vectors of 32, 64 pairs
for the whole network. Pruning takes a block of W and its numbers in every S_p together.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, PositiveInt
from suites.common.training import Pace, classification, fit
from suites.pruning.layers import install, prunable, swap, weights_of
from suites.pruning.learning import BATCH, once, task_of
from suites.pruning.rounding import exact
from suites.pruning.scores import magnitude
from suites.pruning.spa import learned_bytes
from suites.pruning.structures import Pattern, blocks

RANGE = 1e-4


class Prototypes(nn.Module):
    """Rank-1 blocks [count, rows, columns]; columns start Kaiming-uniform, rows uniform in +-1e-4."""

    def __init__(self, count: int, block: tuple[int, int]):
        super().__init__()
        self.rows = nn.Parameter(torch.empty(count, block[0], 1).uniform_(-RANGE, RANGE))
        self.columns = nn.Parameter(torch.empty(count, 1, block[1]))
        nn.init.kaiming_uniform_(self.columns, a=math.sqrt(5))

    def forward(self) -> Tensor:
        """The blocks."""
        return self.rows @ self.columns


class BlockAdapted(nn.Module):
    """A frozen linear layer whose kept blocks are moved by the prototypes; `places` is S of the kept blocks alone.

    `where` are the kept blocks' numbers, counted along rows of blocks.
    """

    where: Tensor

    def __init__(self, layer: nn.Linear, where: Tensor, grid: tuple[int, int], prototypes: Prototypes):
        super().__init__()
        self.layer, self.grid, self.prototypes = layer, grid, prototypes
        layer.weight.requires_grad_(False)
        self.register_buffer("where", where, persistent=False)
        full = torch.empty(prototypes.rows.shape[0], *grid, device="cpu")
        nn.init.kaiming_uniform_(full, a=math.sqrt(5))
        self.places = nn.Parameter(full.flatten(1)[:, where].clone())

    def added(self) -> Tensor:
        """What is added to W, [outputs, inputs]; zero in blocks that went."""
        block = self.prototypes()
        moved = self.places.t() @ block.flatten(1)
        tiles = moved.new_zeros(self.grid[0] * self.grid[1], moved.shape[1]).index_copy(0, self.where, moved)
        return tiles.view(*self.grid, *block.shape[1:]).transpose(1, 2).flatten(2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs with W'."""
        return F.linear(x, self.layer.weight + self.added(), self.layer.bias)

    @torch.no_grad()
    def fused(self) -> nn.Module:
        """The plain layer with the adapter added in."""
        self.layer.weight.add_(self.added())
        self.layer.weight.requires_grad_(True)
        return self.layer


def learned_numbers(kept_blocks: int, prototypes: int, block: tuple[int, int]) -> int:
    """Of all layers together: a number a kept block and prototype, and the prototypes once."""
    return prototypes * (kept_blocks + sum(block))


def splopa(
    model: nn.Module,
    *,
    keep: KeepRate = 0.5,
    prototypes: PositiveInt = 64,
    block: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None,
    steps: Count = 0,
    merged: bool = True,
    kernel: Literal["mask", "bsr", "gather"] = "gather",
) -> nn.Module:
    """A network whose linear layers keep a share of their blocks, adapted by shared prototypes, and plain again.

    The reading `kept_bytes` is what one more task takes: a bit for each block, and all that it learns.

    Args:
        model: any network with linear layers that the blocks divide; the others stay as they are.
        keep: share of the blocks of every row of blocks, by mean |w| of the source.
        prototypes: blocks of rank 1 that all layers share.
        block: output rows and input columns; None for 32 and 32.
        steps: batches on the model's task; biases and norms learn as well, weights never.
        merged: adapters are added in; False leaves them, for a training step.
        kernel: how the merged layers run.

    Raises:
        ValueError: no such layers, or steps without a task.
    """
    size = (32, 32) if block is None else (block[0], block[1])

    def divided(_: str, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear) and not (layer.out_features % size[0] or layer.in_features % size[1])

    kind = f"linear layers whose outputs and inputs blocks of {size[0]} x {size[1]} divide"
    layers = prunable(model, f"splopa(block={list(size)})", divided, kind)
    sparsity = float(1 - exact(keep))
    patterns = {
        name: blocks(magnitude(weight), size, sparsity, balanced=True) for name, weight in weights_of(layers).items()
    }
    install(model, patterns, "mask")
    if keep == 1 and not steps and merged:
        return model
    adapted = _attached(model, layers, patterns, size, prototypes)
    grid = sum(layer.grid[0] * layer.grid[1] for layer in adapted.values())
    model.kept_bytes = learned_bytes(model, grid)  # type: ignore[assignment]
    if steps:
        key: dict[str, Any] = {"keep": keep, "prototypes": prototypes, "block": list(size), "steps": steps}
        model.load_state_dict(once(model, splopa, key, lambda cost: _learn(model, steps, cost)))
    if not merged:
        return model
    for name, layer in adapted.items():
        swap(model, name, layer.fused())
    return install(model, patterns, kernel)


def _attached(
    model: nn.Module, layers: dict[str, nn.Module], patterns: dict[str, Pattern], size: tuple[int, int], count: int
) -> dict[str, BlockAdapted]:
    like = next(model.parameters())
    shared, found = Prototypes(count, size).to(like), {}
    for name, layer in layers.items():
        mask = patterns[name].mask[:: size[0], :: size[1]]
        number = patterns[name].count // (size[0] * size[1])
        # without values it is known how many stay, not which
        where = torch.arange(number, device="cpu") if mask.is_meta else mask.flatten().nonzero()[:, 0].cpu()
        found[name] = BlockAdapted(layer, where, (mask.shape[0], mask.shape[1]), shared).to(like.device)  # type: ignore[arg-type]
        swap(model, name, found[name])
    return found


def _learn(model: nn.Module, steps: int, cost: costs.Cost) -> dict[str, Tensor]:
    task = task_of(model, "splopa(steps)")
    cost.samples += steps * BATCH
    fit(model, task.training_batches(BATCH, steps, 5), classification(model), Pace(steps, 1e-3))
    return model.state_dict()
