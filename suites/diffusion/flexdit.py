"""FlexDiT (later SparseDiT): pooling blocks, sparse-dense modules, dense blocks; Chang et al. 2024, arXiv 2412.06028.

Bottom blocks mix tokens by a mean, the middle works on fewer tokens and comes back to all of them in
every module, and the number of sparse tokens grows along the chain. Ours: the mean is a
mean, where the release multiplies a map of ones; V and projection run on every token, as released; how the grid's
side is rounded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.dit import Attention, Block, Dit, block_macs, modulated
from suites.common.finetuning import finetuned, needs_training, teacher_for
from suites.common.rectified_flow import Course, FlowModel, flow_loss
from suites.diffusion.subjects import as_kind, is_of_diffusers
from suites.diffusion.token_grids import SparseSides, merging, regridded


def flexdit(
    model: nn.Module,
    *,
    pooling: Count = 1,
    modules: PositiveInt = 2,
    top: Count = 1,
    sparse_blocks: Count = 1,
    r_min: Rate = 0.61,
    r_max: Rate = 0.86,
    fixed: Count = 0,
    training_steps: Count = 0,
) -> nn.Module:
    """The transformer rebuilt as pooling blocks, modules of 3 + `sparse_blocks` blocks, and dense blocks at the top.

    A module is one block that makes the sparse tokens, `sparse_blocks` on them, one that recovers all tokens, and dense
    blocks until the depth of the network is used up evenly.

    Args:
        model: a diffusion transformer of pooling + modules x m + top blocks, m the same for all modules; or PixArt of
            diffusers, which is not trained.
        pooling: blocks at the bottom that mix by a mean.
        modules: sparse-dense modules.
        top: dense blocks at the end.
        sparse_blocks: blocks of a module that work on sparse tokens alone.
        r_min: share of tokens pruned at the end of the chain, where the picture is made.
        r_max: share pruned in the first quarter of the chain.
        fixed: sparse tokens, the same number in every step; 0 lets them follow the chain.
        training_steps: batches of 32 to learn from on the model's own task.

    Raises:
        ValueError: no diffusion transformer, a depth that does not come out, r_min above r_max, or a number of sparse
            tokens that is no square grid.
    """
    if r_min > r_max:
        raise ValueError(f"r_min={r_min:g} is above r_max={r_max:g}, and fewer tokens are pruned as the chain goes on")
    if is_of_diffusers(model, "flexdit"):
        sides = SparseSides(r_min, r_max, fixed)
        return _on_pixart(model, (pooling, modules, top, sparse_blocks), sides, training_steps)
    dit = as_kind(model, Dit, "flexdit", "digit_dit(depth=10)", videos=False)
    each = _of_a_module(len(dit.blocks), pooling, modules, top, sparse_blocks)
    side = dit.resolution // dit.patch
    _check_fixed(fixed, side)
    teacher = teacher_for(dit, training_steps)
    _rebuild(dit, pooling, modules, each, sparse_blocks)
    dit.course = Flex(r_min, r_max, fixed)
    dit.blocks.sparse_side = dit.course.side(side, 1.0)  # of a forward alone: the end of the chain
    settings: dict[str, Any] = {
        "pooling": pooling,
        "modules": modules,
        "top": top,
        "sparse_blocks": sparse_blocks,
        "fixed": fixed,
    }
    settings |= {"r_min": r_min, "r_max": r_max}
    loss = _loss(dit, dit.course) if teacher is not None else None
    return finetuned(dit, teacher, flexdit, settings, training_steps, loss=loss, rate=1e-3)


def _of_a_module(depth: int, pooling: int, modules: int, top: int, sparse_blocks: int) -> int:
    """Blocks of a module.

    Raises:
        ValueError: the depth does not come out.
    """
    each, rest = divmod(depth - pooling - top, modules)
    if rest or each < 2 + sparse_blocks:
        raise ValueError(
            f"{depth} blocks less pooling={pooling} and top={top} do not make modules={modules} of at least "
            f"{2 + sparse_blocks} blocks each: choose numbers that come out, such as digit_dit(depth=10)"
        )
    return each


def _check_fixed(fixed: int, side: int) -> None:
    """Raise ValueError unless so many sparse tokens are a square grid no larger than the dense one."""
    if fixed and (round(fixed**0.5) ** 2 != fixed or fixed > side**2):
        raise ValueError(f"fixed={fixed} is no square of at most {side**2} tokens")


def _on_pixart(model: Any, numbers: tuple[int, int, int, int], sides: SparseSides, training_steps: int) -> nn.Module:
    """PixArt of diffusers rebuilt with these numbers: pooling, modules, top, sparse blocks of a module."""
    from suites.diffusion.flexdit_pixart import rebuilt, square_side

    if training_steps:
        raise ValueError("flexdit trains networks of this house: set training_steps=0 for one of diffusers")
    pooling, modules, top, sparse_blocks = numbers
    _check_fixed(sides.fixed, square_side(model))
    depth = len(model.model.transformer_blocks)
    _of_a_module(depth, pooling, modules, top, sparse_blocks)
    made = rebuilt(model, kinds(depth, pooling, modules, top, sparse_blocks), sides)
    return needs_training(made, "the rebuilt network", 0)


def _loss(dit: Dit, course: Flex) -> Any:
    """Flow matching with a number of sparse tokens that is drawn for every batch from those of the chain."""
    flow, generator = flow_loss(dit, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)

    def loss(pictures: Tensor, classes: Tensor) -> Tensor:
        done = float(torch.rand(1, generator=generator))
        dit.blocks.sparse_side = course.side(dit.resolution // dit.patch, done)
        return flow(pictures, classes)

    return loss


def _rebuild(dit: Dit, pooling: int, modules: int, each: int, sparse_blocks: int) -> None:
    """Blocks of their new kinds in place of the plain ones, with the same weights."""
    blocks: list[Any] = list(dit.blocks)
    for i in range(pooling):
        blocks[i] = PoolingBlock(blocks[i])
    for m in range(modules):
        first = pooling + m * each
        recovery = first + 1 + sparse_blocks
        blocks[first] = SparseBlock(blocks[first])
        blocks[recovery] = RecoveryBlock(blocks[recovery], dit.width)
    dit.blocks = FlexBlocks(blocks, dit.resolution // dit.patch)


class FlexBlocks(nn.ModuleList):
    """The blocks in order; the first dense tokens of a module wait for its recovery.

    Attributes:
        sparse_side: of the grid of sparse tokens, set for every step.
    """

    def __init__(self, blocks: list[nn.Module], side: int):
        super().__init__(blocks)
        self.sparse_side = side

    def run(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens after all blocks, [batch, tokens, width]."""
        dense = tokens
        for block in self:
            if isinstance(block, SparseBlock):
                dense, tokens = tokens, block(tokens, condition, self.sparse_side)
            elif isinstance(block, RecoveryBlock):
                tokens = block(tokens, dense, condition)
            else:
                tokens = block(tokens, condition)
        return tokens


def _cross(attn: Attention, queries: Tensor, seen: Tensor) -> Tensor:
    """Attention of queries to other tokens with the weights of a self-attention."""
    width = queries.shape[-1]
    weight, bias = attn.qkv.weight, attn.qkv.bias
    q = F.linear(queries, weight[:width], bias[:width]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    kv = F.linear(seen, weight[width:], bias[width:]).unflatten(-1, (2, attn.heads, -1)).permute(2, 0, 3, 1, 4)
    return attn.proj(F.scaled_dot_product_attention(q, kv[0], kv[1]).transpose(1, 2).flatten(2))


class PoolingBlock(nn.Module):
    """A block whose attention is a mean of values: no queries, no keys."""

    def __init__(self, plain: Block):
        super().__init__()
        width = plain.attn.proj.in_features
        self.norm1, self.norm2, self.mlp, self.modulation = plain.norm1, plain.norm2, plain.mlp, plain.modulation
        self.value, self.proj = nn.Linear(width, width), plain.attn.proj
        self.value.weight.data = plain.attn.qkv.weight.data[2 * width :].clone()
        self.value.bias.data = plain.attn.qkv.bias.data[2 * width :].clone()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features of the same shape."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=1)
        values = self.value(modulated(self.norm1(x), shift1, scale1))
        mixed = self.proj(values.mean(dim=1, keepdim=True).expand_as(values))
        x = x + gate1[:, None] * mixed
        return x + gate2[:, None] * self.mlp(modulated(self.norm2(x), shift2, scale2))


class SparseBlock(nn.Module):
    """A block whose queries are the pooled tokens and whose keys are all of them."""

    def __init__(self, plain: Block):
        super().__init__()
        self.norm1, self.norm2, self.mlp, self.modulation = plain.norm1, plain.norm2, plain.mlp, plain.modulation
        self.attn = plain.attn

    def forward(self, dense: Tensor, condition: Tensor, side: int) -> Tensor:
        """Sparse tokens, [batch, side^2, width]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=1)
        pooled = regridded(dense, side)
        sparse, seen = (modulated(self.norm1(each), shift1, scale1) for each in (pooled, dense))
        x = pooled + gate1[:, None] * _cross(self.attn, sparse, seen)
        return x + gate2[:, None] * self.mlp(modulated(self.norm2(x), shift2, scale2))


class RecoveryBlock(nn.Module):
    """A block that merges enlarged sparse tokens into the dense ones, which then look at the sparse."""

    def __init__(self, plain: Block, width: int):
        super().__init__()
        self.norm1, self.norm2, self.mlp, self.modulation = plain.norm1, plain.norm2, plain.mlp, plain.modulation
        self.attn = plain.attn
        self.of_sparse, self.of_dense = merging(width)

    def forward(self, sparse: Tensor, dense: Tensor, condition: Tensor) -> Tensor:
        """Dense tokens, [batch, tokens, width]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=1)
        x = self.of_sparse(regridded(sparse, round(dense.shape[1] ** 0.5))) + self.of_dense(dense)
        queries, seen = (modulated(self.norm1(each), shift1, scale1) for each in (x, sparse))
        x = x + gate1[:, None] * _cross(self.attn, queries, seen)
        return x + gate2[:, None] * self.mlp(modulated(self.norm2(x), shift2, scale2))


class Flex(Course):
    """The plain grid of times; the side of the sparse grid follows it."""

    def __init__(self, r_min: float, r_max: float, fixed: int):
        self.side = SparseSides(r_min, r_max, fixed).side

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """Plain steps with the sparse tokens and MACs of each."""
        assert isinstance(model, Dit)
        dense, steps = model.resolution // model.patch, []
        for step in model.euler(count):
            side = self.side(dense, step["index"] / max(1, count - 1))
            steps.append({**step, "sparse": side**2, "macs": model.branches * step_macs(model, side**2)})
        return steps

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """A plain step with this step's sparse grid."""
        assert isinstance(model, Dit)
        model.blocks.sparse_side = round(model.steps_planned[index]["sparse"] ** 0.5)
        return super().step(model, index, state)


def step_macs(model: Dit, m: int) -> int:
    """MACs of one evaluation with m sparse tokens, block by block."""
    n = (model.resolution // model.patch) ** 2
    kinds_of = [kind_of(block) for block in model.blocks]
    return blocks_macs(kinds_of, n, m, model.width, model.ratio) + model.ends_macs(n)


def kind_of(block: nn.Module) -> str:
    """What a block is: pooling, sparse (makes sparse tokens), recovery, or plain."""
    names = {PoolingBlock: "pooling", SparseBlock: "sparse", RecoveryBlock: "recovery"}
    return names.get(type(block), "plain")


def blocks_macs(kinds: list[str], n: int, m: int, c: int, ratio: float = 4.0) -> int:
    """MACs of blocks on n dense and m sparse tokens of width c; plain blocks after a `sparse` one work on m tokens.

    With an MLP of 4 C, which is 8 C^2 a token, pooling takes 10 N C^2, making sparse tokens 10 M C^2 + 2 N C^2 + 2 M N
    C, recovery 12 N C^2 + 2 M C^2 + 2 M N C; each 6 C^2 more.
    """
    total, sparse_now = 0, False
    mlp = 2 * c * int(ratio * c)
    for kind in kinds:
        if kind == "pooling":
            total += n * (2 * c**2 + mlp) + 6 * c**2
        elif kind == "sparse":
            total += m * (2 * c**2 + mlp) + 2 * n * c**2 + 2 * m * n * c + 6 * c**2
            sparse_now = True
        elif kind == "recovery":
            total += n * (4 * c**2 + mlp) + 2 * m * c**2 + 2 * m * n * c + 6 * c**2
            sparse_now = False
        else:
            total += block_macs(m if sparse_now else n, c, ratio)
    return total


def kinds(depth: int, pooling: int, modules: int, top: int, sparse_blocks: int) -> list[str]:
    """Kinds of blocks of a network of that depth."""
    each = (depth - pooling - top) // modules
    module = ["sparse", *["plain"] * sparse_blocks, "recovery", *["plain"] * (each - 2 - sparse_blocks)]
    return ["pooling"] * pooling + module * modules + ["plain"] * top
