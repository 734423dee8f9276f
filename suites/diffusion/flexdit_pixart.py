"""FlexDiT on PixArt of diffusers: pooling blocks, modules of sparse and dense tokens, dense blocks (see `flexdit`).

The paper prints a share for PixArt-alpha and not its blocks; here they are those of DiT-XL/2 unless settings say so.
Cross-attention to the words stays in every block, on as many tokens as the block leaves. New weights start as for DiT
and are not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from suites.common.diffusers_bridge import DiffusersCourse, DiffusersModel
from suites.diffusion.token_grids import SparseSides, merging, regridded


@dataclass
class Shared:
    """What the blocks of all modules share.

    Attributes:
        side: of the sparse grid.
        dense: tokens that wait for a recovery.
    """

    side: int
    dense: Tensor | None = None


class Pooling(nn.Module):
    """Self-attention whose weights are all equal: the mean of the values."""

    def __init__(self, plain: Any):
        super().__init__()
        self.value, self.out = plain.to_v, plain.to_out[0]

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """Mixed features of the same shape; diffusers calls it with this name."""
        values = self.value(hidden_states)
        return self.out(values.mean(dim=1, keepdim=True).expand_as(values))


class Looking(nn.Module):
    """Self-attention that looks at other tokens where it was told some."""

    def __init__(self, plain: Any):
        super().__init__()
        self.plain: Any = plain
        self.seen: Tensor | None = None

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """Attended features of the queries."""
        return self.plain(hidden_states, encoder_hidden_states=self.seen)


class Across(nn.Module):
    """A block of PixArt whose queries and keys are different tokens."""

    def __init__(self, block: Any, shared: Shared):
        super().__init__()
        self.block: Any = block
        self.shared = shared
        block.attn1 = Looking(block.attn1)

    def _run(self, queries: Tensor, seen: Tensor, timestep: Tensor, told: dict[str, Any]) -> Tensor:
        block = self.block
        shift, scale = (block.scale_shift_table[None] + timestep.reshape(len(seen), 6, -1)).chunk(6, dim=1)[:2]
        block.attn1.seen = block.norm1(seen) * (1 + scale) + shift
        try:
            return block(queries, timestep=timestep, **told)
        finally:
            block.attn1.seen = None


class Sparse(Across):
    """The block that makes the sparse tokens: pooled ones look at all of them."""

    def forward(self, hidden_states: Tensor, *, timestep: Tensor, **told: Any) -> Tensor:
        """Sparse tokens; the dense ones wait."""
        self.shared.dense = hidden_states
        return self._run(regridded(hidden_states, self.shared.side), hidden_states, timestep, told)


class Recovery(Across):
    """The block that merges enlarged sparse tokens into the dense ones, which then look at the sparse."""

    def __init__(self, block: Any, shared: Shared, width: int):
        super().__init__(block, shared)
        self.of_sparse, self.of_dense = merging(width)

    def forward(self, hidden_states: Tensor, *, timestep: Tensor, **told: Any) -> Tensor:
        """Dense tokens."""
        dense, self.shared.dense = self.shared.dense, None
        assert dense is not None
        x = self.of_sparse(regridded(hidden_states, round(dense.shape[1] ** 0.5))) + self.of_dense(dense)
        return self._run(x, hidden_states, timestep, told)


class FlexPixart(DiffusersCourse):
    """The scheduler's steps; the side of the sparse grid follows them."""

    def __init__(self, sides: SparseSides, shared: Shared, dense_side: int):
        self.sides, self.shared, self.dense_side = sides, shared, dense_side

    def plan(self, model: DiffusersModel, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Steps with the sparse tokens of each."""
        last = max(1, len(steps) - 1)
        return [{**step, "sparse": self.sides.side(self.dense_side, step["index"] / last) ** 2} for step in steps]

    def step(self, model: DiffusersModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """A plain step with this step's sparse grid."""
        self.shared.side = round(model.steps_planned[index]["sparse"] ** 0.5)
        return model.plain_step(index, state)


def square_side(model: DiffusersModel) -> int:
    """Tokens along a side of PixArt's pictures.

    Raises:
        ValueError: it is another network, or its pictures are not square.
    """
    name, size = type(model.model).__name__, model.size
    if name != "PixArtTransformer2DModel" or size.height != size.width:
        raise ValueError(f"flexdit works on square pictures by diffusers' PixArt, not on {name}: take pixart_alpha_256")
    return int(size.height // model.model.config.patch_size)


def rebuilt(model: DiffusersModel, kinds: list[str], sides: SparseSides) -> DiffusersModel:
    """The network with blocks of these kinds in place of the plain ones.

    Args:
        model: PixArt.
        kinds: of every block: pooling, sparse, recovery or plain.
        sides: of the sparse grid along the chain.
    """
    blocks, side = model.model.transformer_blocks, square_side(model)
    shared = Shared(sides.side(side, 1.0))  # of a forward alone: the end of the chain
    for place, kind in enumerate(kinds):
        if kind == "pooling":
            blocks[place].attn1 = Pooling(blocks[place].attn1)
        elif kind == "sparse":
            blocks[place] = Sparse(blocks[place], shared)
        elif kind == "recovery":
            blocks[place] = Recovery(blocks[place], shared, model.model.inner_dim)
    model.course = FlexPixart(sides, shared, side)
    return model
