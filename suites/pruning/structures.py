"""Which weights stay, for each structure: masks from scores, with counts in closed form.

A mask is boolean, of the weight's shape; True stays. A weight of a convolution [O, I, kh, kw] is a matrix [O, I kh kw]
for blocks, and N:M groups run along its input channels. On the meta device masks have no values: their counts are then
those of the closed forms here, which the tests hold against real masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suites.pruning.rounding import check_sparsity, kept


@dataclass(frozen=True)
class Pattern:
    """A mask, how many of its weights stay, and what a kernel may rely on.

    Attributes:
        mask: boolean, of the weight's shape.
        count: weights that stay.
        group: consecutive output rows that share their columns; 1 for none.
        block: rows and columns of the blocks that stay or go as a whole.
        balanced: every group keeps equally many columns.
        nm: (N, M) where N of every M consecutive inputs stay.
    """

    mask: Tensor
    count: int
    group: int = 1
    block: tuple[int, int] = (1, 1)
    balanced: bool = False
    nm: tuple[int, int] | None = None


def smallest(scores: Tensor, count: int) -> Tensor:
    """A mask that drops exactly `count` of the smallest scores, chosen as torch.nn.utils.prune chooses them."""
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    if count and not scores.is_meta:
        mask[torch.topk(scores.flatten(), count, largest=False).indices] = False
    return mask.view(scores.shape)


def unstructured(scores: Tensor, sparsity: float) -> Pattern:
    """int(s n) single weights of one matrix go."""
    check_sparsity(sparsity)
    count = kept(scores.numel(), sparsity)
    return Pattern(smallest(scores, scores.numel() - count), count)


def per_row(scores: Tensor, sparsity: float) -> Pattern:
    """int(s K) weights of every output row go: all rows keep equally many."""
    check_sparsity(sparsity)
    flat = scores.flatten(1)
    each = kept(flat.shape[1], sparsity)
    mask = torch.zeros_like(flat, dtype=torch.bool)
    if not scores.is_meta:
        mask.scatter_(1, flat.topk(each, dim=1).indices, True)
    return Pattern(mask.view(scores.shape), each * len(flat), balanced=True)


def n_of_m(scores: Tensor, n: int, m: int) -> Pattern:
    """The n largest of every m consecutive inputs of an output (and of a place of the kernel) stay.

    Raises:
        ValueError: n above m, or inputs that m does not divide.
    """
    if not 1 <= n <= m:
        raise ValueError(f"n={n} of m={m}: 1 <= n <= m is wanted")
    if scores.shape[1] % m:
        raise ValueError(f"groups of m={m} do not divide {scores.shape[1]} inputs of a layer {tuple(scores.shape)}")
    grouped = scores.movedim(1, -1).unflatten(-1, (-1, m))
    mask = torch.zeros_like(grouped, dtype=torch.bool)
    if not scores.is_meta:
        mask.scatter_(-1, grouped.topk(n, dim=-1).indices, True)
    return Pattern(mask.flatten(-2).movedim(-1, 1), scores.numel() // m * n, balanced=True, nm=(n, m))


def block_scores(scores: Tensor, block: tuple[int, int]) -> Tensor:
    """Mean score of each b x b' block, [O / b, K / b'].

    Raises:
        ValueError: the blocks do not divide the matrix.
    """
    flat = scores.flatten(1)
    for size, side, name in zip(flat.shape, block, ("outputs", "inputs"), strict=True):
        if side < 1 or size % side:
            raise ValueError(f"block={list(block)} does not divide a layer of {size} {name}")
    return flat.unflatten(0, (-1, block[0])).unflatten(2, (-1, block[1])).mean(dim=(1, 3))


def blocks(
    scores: Tensor, block: tuple[int, int], sparsity: float, balanced: bool = False, gone: int | None = None
) -> Pattern:
    """int(s B) of the B blocks with the smallest mean score go: of the matrix, or of every row of blocks.

    Args:
        scores: of single weights.
        block: rows and columns; (N, 1) is 1xN of the literature, N outputs that share their inputs.
        sparsity: share of blocks that go.
        balanced: every row of blocks keeps equally many.
        gone: how many blocks of the matrix go, in place of int(s B); not for balanced ones.
    """
    check_sparsity(sparsity)
    means = block_scores(scores, block)
    if balanced:
        each = kept(means.shape[1], sparsity)
        number = each * means.shape[0]
        chosen = torch.zeros_like(means, dtype=torch.bool)
        if not scores.is_meta:
            chosen.scatter_(1, means.topk(each, dim=1).indices, True)
    else:
        number = kept(means.numel(), sparsity) if gone is None else means.numel() - gone
        chosen = smallest(means, means.numel() - number)
    mask = chosen.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1).view(scores.shape)
    return Pattern(mask, number * block[0] * block[1], group=block[0], block=block, balanced=balanced)
