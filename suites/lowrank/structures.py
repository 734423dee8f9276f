"""Structured matrices: y = W x + c with W [out, in] a product of two factors and no non-linearity between them.

- `LowRank(r)`: U [out, r] V [r, in]; r (in + out) values.
- `BlockDense(r, b)`: V of b diagonal blocks [r/b, in/b], then a dense U [out, r]; r in/b + out r values.
- `BlockShuffle(b)`: b diagonal blocks, a shuffle, b diagonal blocks, the shuffle back (a Monarch matrix). Where
  in < out the blocks are [in/b, in/b] and [out/b, in/b], else [out/b, in/b] and [out/b, out/b]: with q = min(in, out)
  in^2/b + in out/b or in out/b + out^2/b values. The shuffle reads the b x q/b outputs in order as rows of b and
  transposes them, so that a second block sees every first one.

A token costs as many products as there are values. `merged()` gives W itself.

Source: Wei et al. 2024, Building on Efficient Foundations (arXiv 2406.16450), section 2; its self-guided training,
section 3, is `Guided`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Structure = Literal["LowRank", "BlockDense", "BlockShuffle"]


class Structured(nn.Module):
    """A structured map with a bias; a subclass gives `product` and its factors.

    Attributes:
        pre_merge: most tokens of a call that the merged matrix is used for; 0 where there is none.
        whole: that matrix, a weight that does not train; None where it is not stored.
    """

    factors: tuple[str, ...]
    whole: nn.Parameter | None

    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.inner, self.outer, self.pre_merge = inner, outer, 0
        self.bias = nn.Parameter(torch.zeros(outer))
        self.register_parameter("whole", None)

    def product(self, x: Tensor) -> Tensor:
        """W x without the bias, [..., out], through the factors."""
        raise NotImplementedError(f"{type(self).__name__} does not define product")

    def start_from(self, weight: Tensor) -> None:
        """Begin close to a dense W [out, in], or with factors of its size."""
        raise NotImplementedError(f"{type(self).__name__} does not define start_from")

    def forward(self, x: Tensor) -> Tensor:
        """W x + bias; in evaluation the merged matrix where it is stored and the call has few tokens."""
        whole = self.whole
        if whole is not None and not self.training and x.shape[:-1].numel() <= self.pre_merge:
            return F.linear(x, whole, self.bias)
        return self.product(x) + self.bias

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W, [out, in]."""
        first = next(self.parameters())
        return self.product(torch.eye(self.inner, device=first.device, dtype=first.dtype)).t().contiguous()

    def keep_merged(self, tokens: int) -> None:
        """Store W beside the factors and use it in calls of at most so many tokens; both copies are weights then."""
        self.pre_merge = tokens
        self.whole = nn.Parameter(self.merged(), requires_grad=False) if tokens else None

    def values(self) -> int:
        """Numbers of the factors, as many as products of one token."""
        return sum(getattr(self, name).numel() for name in self.factors)

    def extra_repr(self) -> str:
        """The sizes, and whether W is stored as well."""
        return f"{self.inner}, {self.outer}, pre_merge={self.pre_merge}"


class LowRank(Structured):
    """U V of rank r."""

    factors = ("u", "v")

    def __init__(self, inner: int, outer: int, rank: int):
        super().__init__(inner, outer)
        _fitting("LowRank", rank, inner, outer)
        self.u = nn.Parameter(torch.empty(outer, rank))
        self.v = nn.Parameter(torch.empty(rank, inner))

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """The closest product to a dense W [out, in], square roots of the singular values on both sides."""
        if weight.is_meta:
            return
        left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
        rank = len(self.v)
        root = values[:rank].sqrt()
        self.u.copy_(left[:, :rank] * root)
        self.v.copy_(root[:, None] * right[:rank])

    def product(self, x: Tensor) -> Tensor:
        """U (V x)."""
        return F.linear(F.linear(x, self.v), self.u)


class BlockDense(Structured):
    """A dense U after a block-diagonal V."""

    factors = ("u", "v")

    def __init__(self, inner: int, outer: int, rank: int, blocks: int):
        super().__init__(inner, outer)
        _divides(blocks, rank=rank, inner=inner)
        _fitting("BlockDense", rank, inner, outer)
        self.u = nn.Parameter(torch.empty(outer, rank))
        self.v = nn.Parameter(torch.empty(blocks, rank // blocks, inner // blocks))

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Orthonormal blocks; U is what the map then needs to be closest to W (all of it where rank = in)."""
        if weight.is_meta:
            return
        _orthonormal(self.v)
        blocks = self.v.shape[0]
        parts = weight.unflatten(1, (blocks, -1))  # [out, blocks, in/b]
        self.u.copy_(torch.einsum("obi,bri->obr", parts, self.v).flatten(1))

    def product(self, x: Tensor) -> Tensor:
        """U (V x)."""
        return F.linear(block_product(x, self.v), self.u)


class BlockShuffle(Structured):
    """Two block-diagonal maps with a shuffle between them and back after them."""

    factors = ("first", "second")

    def __init__(self, inner: int, outer: int, blocks: int):
        super().__init__(inner, outer)
        _divides(blocks, inner=inner, outer=outer)
        middle = min(inner, outer)
        self.first = nn.Parameter(torch.empty(blocks, middle // blocks, inner // blocks))
        self.second = nn.Parameter(torch.empty(blocks, outer // blocks, middle // blocks))

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Orthonormal blocks, scaled so that W has the size of the dense one; there is no closest product here."""
        if weight.is_meta:
            return
        _orthonormal(self.first)
        _orthonormal(self.second)
        size = math.sqrt(self.inner * self.outer) * float(weight.std())
        self.second.mul_(size / float(self.merged().norm()))

    def product(self, x: Tensor) -> Tensor:
        """Unshuffle(second(shuffle(first x)))."""
        blocks = self.first.shape[0]
        z = block_product(x, self.first)
        z = z.unflatten(-1, (-1, blocks)).transpose(-1, -2).flatten(-2)
        y = block_product(z, self.second)
        return y.unflatten(-1, (blocks, -1)).transpose(-1, -2).flatten(-2)


class Guided(nn.Module):
    """While it learns a W x + (1 - a) S x + c with a dense W of its own; afterwards the structured S alone.

    The share a falls from 1 to 0 as a cosine over `steps` training forwards. With `reduce_flop` W is multiplied with
    probability a only, so that over a run of 2 x `steps` its products are a quarter of the dense map's.
    """

    a_step: Tensor

    def __init__(self, inner: Structured, steps: int, reduce_flop: bool = False):
        super().__init__()
        self.inner, self.steps, self.reduce_flop = inner, steps, reduce_flop
        self.weight = nn.Parameter(inner.merged())
        self.register_buffer("a_step", torch.zeros((), dtype=torch.long))

    def share(self) -> float:
        """The share a of the dense matrix at the present step."""
        return guide_share(int(self.a_step), self.steps)

    def forward(self, x: Tensor) -> Tensor:
        """What the structured map gives; in training mode mixed with the guide's."""
        if not self.training:
            return self.inner(x)
        share = 1.0 if self.a_step.is_meta else self.share()
        self.a_step += 1
        if share == 0 or (self.reduce_flop and torch.rand(()).item() >= share):
            return self.inner(x)
        return share * F.linear(x, self.weight) + (1 - share) * self.inner.product(x) + self.inner.bias


def guide_share(step: int, steps: int) -> float:
    """The share a = (1 + cos(pi step / steps)) / 2 until `steps`, then 0."""
    return 0.0 if step >= steps else 0.5 * (1 + math.cos(math.pi * step / steps))


def block_product(x: Tensor, blocks: Tensor) -> Tensor:
    """Features [..., b x in] through b diagonal blocks [b, out, in], [..., b x out]: one batched product."""
    rows = x.reshape(-1, blocks.shape[0], blocks.shape[2]).transpose(0, 1)
    return torch.bmm(rows, blocks.transpose(1, 2)).transpose(0, 1).reshape(*x.shape[:-1], -1)


def structured(structure: Structure, inner: int, outer: int, rank: int | None, blocks: int) -> Structured:
    """A structured map by name with empty factors.

    Raises:
        ValueError: sizes that do not divide, a rank that is missing or too large, or a name that is none.
    """
    if structure == "BlockShuffle":
        return BlockShuffle(inner, outer, blocks)
    if rank is None:
        raise ValueError(f'structure="{structure}" needs a rank')
    if structure == "LowRank":
        return LowRank(inner, outer, rank)
    if structure == "BlockDense":
        return BlockDense(inner, outer, rank, blocks)
    raise ValueError(f'structure="{structure}" is none: choose LowRank, BlockDense or BlockShuffle')


def values(structure: Structure, inner: int, outer: int, rank: int | None = None, blocks: int = 1) -> int:
    """Numbers of the factors of one map, and its products of one token, in closed form.

    Raises:
        ValueError: what the map itself refuses: sizes that do not divide, a rank that is missing or too large.
    """
    if structure == "BlockShuffle":
        _divides(blocks, inner=inner, outer=outer)
        return inner * outer // blocks + min(inner, outer) ** 2 // blocks
    size = _fitting(structure, rank, inner, outer)
    if structure == "BlockDense":
        _divides(blocks, rank=size, inner=inner)
    return size * inner // (blocks if structure == "BlockDense" else 1) + outer * size


def ffn_values(structure: Structure, width: int, hidden: int, rank: int | None = None, blocks: int = 1) -> int:
    """Numbers of the factors of both maps of a network width -> hidden -> width."""
    return values(structure, width, hidden, rank, blocks) + values(structure, hidden, width, rank, blocks)


def _orthonormal(blocks: Tensor) -> None:
    for block in blocks:
        nn.init.orthogonal_(block)


def _fitting(structure: Structure, rank: int | None, inner: int, outer: int) -> int:
    if rank is None:
        raise ValueError(f'structure="{structure}" needs a rank')
    if rank > min(inner, outer):
        raise ValueError(f"rank={rank} is above min({inner}, {outer}): a product of that rank stores more than W")
    return rank


def _divides(blocks: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if size % blocks:
            raise ValueError(f"blocks={blocks} does not divide {name}={size}: choose a divisor")
