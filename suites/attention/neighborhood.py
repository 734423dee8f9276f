"""Neighborhood attention: every token sees exactly its k nearest on each axis (Hassani et al. 2024, arXiv 2403.04690).

On an axis of n tokens the window of query i starts at clamp(i - k // 2, 0, n - k): windows at a border move inwards,
they are not padded. Dilation D parts the axis into D interleaved groups and applies the rule inside each; k D must not
exceed n. On a causal axis query i sees max(0, i - k + 1) .. i of its group. With a stride s (newer versions of the
package) s queries in a row share the window of the middle one, on a causal axis that of the last one up to themselves;
s = k is blocked attention. Axes are independent. Products: 2 x query-key pairs x d x H.
"""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from bench.config.settings import Counts, PositiveInt
from suites.attention.operator import AttentionOperator, masked_attention
from suites.common.torchvision_remedy import import_beside_torchvision


def neighborhood_attention(
    *,
    sizes: Counts,
    kernel: Counts,
    dilation: Counts | None = None,
    stride: Counts | None = None,
    causal: list[bool] | None = None,
    heads: PositiveInt = 8,
    size: PositiveInt = 64,
    form: Literal["gather", "masked", "flex", "natten"] = "gather",
) -> NeighborhoodAttention:
    """Neighborhood attention over one, two or three axes.

    Args:
        sizes: tokens per axis.
        kernel: window per axis, odd unless the axis is causal.
        dilation: per axis; None for 1.
        stride: queries in a row that share a window, per axis, at most the window; None for 1.
        causal: per axis; None for none.
        heads: attention heads.
        size: numbers per head.
        form: gather unfolds keys and values; masked writes all scores and masks them (executes the dense square); flex
            gives torch's flex_attention a block mask (executes whole tiles where it is compiled, the square where not);
            natten is the authors' package (its kernels on a GPU, its flex backend on a CPU).

    Raises:
        ValueError: a window that does not fit its axis.
        NotInstalled: form natten without the package.
    """
    if form == "natten":
        _natten()
    rank = len(sizes)
    steps = [1] * rank if dilation is None else list(dilation)
    shared = [1] * rank if stride is None else list(stride)
    causals = [False] * rank if causal is None else list(causal)
    if not 1 <= rank <= 3 or not rank == len(kernel) == len(steps) == len(shared) == len(causals):
        raise ValueError("sizes, kernel, dilation, stride and causal need one entry per axis, for one to three axes")
    for n, k, d, s, one_way in zip(sizes, kernel, steps, shared, causals, strict=True):
        if k < 1 or d < 1 or k * d > n or (k % 2 == 0 and not one_way):
            raise ValueError(f"a window of {k} with dilation {d} does not fit an axis of {n}: odd, and k D at most n")
        if not 1 <= s <= k:
            raise ValueError(
                f"stride={s} with a window of {k}: from 1 to the window, else some see nothing of themselves"
            )
    return NeighborhoodAttention(list(sizes), list(kernel), steps, shared, causals, heads, size, form).eval()


def neighbors(n: int, kernel: int, dilation: int = 1, causal: bool = False, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Positions that each of n tokens sees on an axis, and which of them are there, both [n, kernel]."""
    place = torch.arange(n)
    group, inside = place % dilation, place // dilation
    length = (n - group + dilation - 1) // dilation  # tokens of the group
    offsets = torch.arange(kernel)
    leader = torch.minimum(inside // stride * stride + (stride - 1 if causal else stride // 2), length - 1)
    if causal:
        seen = leader[:, None] - kernel + 1 + offsets
        return (seen.clamp(min=0) * dilation + group[:, None]), (seen >= 0) & (seen <= inside[:, None])
    start = torch.minimum((leader - kernel // 2).clamp(min=0), length - kernel)
    return (start[:, None] + offsets) * dilation + group[:, None], torch.ones(n, kernel, dtype=torch.bool)


def grid_neighbors(
    sizes: list[int], kernel: list[int], dilation: list[int], causal: list[bool], stride: list[int] | None = None
) -> tuple[Tensor, Tensor]:
    """The same over all axes, flattened in raster order: [tokens, keys], [tokens, keys]."""
    index, there = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    shared = [1] * len(sizes) if stride is None else stride
    for n, k, d, one_way, s in zip(sizes, kernel, dilation, causal, shared, strict=True):
        places, valid = neighbors(n, k, d, one_way, s)
        index = (index[:, None, :, None] * n + places[None, :, None, :]).flatten(0, 1).flatten(1)
        there = (there[:, None, :, None] & valid[None, :, None, :]).flatten(0, 1).flatten(1)
    return index, there


def _natten() -> Any:
    """The authors' package.

    Raises:
        NotInstalled: it is not there, or was built for another torch.
    """
    return import_beside_torchvision("natten")


class NeighborhoodAttention(AttentionOperator):
    """The operator in one of its forms."""

    index: Tensor
    there: Tensor

    def __init__(
        self,
        sizes: list[int],
        kernel: list[int],
        dilation: list[int],
        stride: list[int],
        causal: list[bool],
        heads: int,
        size: int,
        form: str,
    ):
        super().__init__(heads, prod(sizes), size)
        self.form, self.whole = form, not any(causal)
        self.axes, self.window, self.dilation, self.stride, self.causal = sizes, kernel, dilation, stride, causal
        with torch.device("cpu"):
            index, there = grid_neighbors(sizes, kernel, dilation, causal, stride)
        self.pairs = int(there.sum())
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("there", there, persistent=False)

    def seen(self) -> Tensor:
        """Which keys each query sees, [tokens, tokens]."""
        mask = torch.zeros(self.tokens, self.tokens, dtype=torch.int32, device=self.index.device)
        return mask.scatter_add(1, self.index, self.there.to(torch.int32)) > 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is attended."""
        if self.form == "gather":
            return self._gather(q, k, v)
        if self.form == "masked":
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.seen())
        return self._flex(q, k, v) if self.form == "flex" else self._by_natten(q, k, v)

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All scores written out and masked."""
        return masked_attention(q, k, v, self.seen())

    def _gather(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = k[:, :, self.index], v[:, :, self.index]  # [batch, heads, tokens, keys, size]
        scores = (keys @ q[..., None])[..., 0] * q.shape[-1] ** -0.5
        if not self.whole:
            scores = scores.masked_fill(~self.there, -torch.inf)
        return (scores.softmax(dim=-1)[..., None, :] @ values)[..., 0, :]

    def _flex(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        seen = self.seen()
        mask: Any = create_block_mask(
            lambda b, h, i, j: seen[i, j], None, None, self.tokens, self.tokens, device=q.device.type
        )
        return flex_attention(q, k, v, block_mask=mask)

    def _by_natten(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The package wants [batch, axes..., heads, size]."""
        call = getattr(_natten(), f"na{len(self.axes)}d")
        laid = [x.transpose(1, 2).unflatten(1, self.axes).contiguous() for x in (q, k, v)]
        axes = {"dilation": tuple(self.dilation), "is_causal": tuple(self.causal)}
        if any(step > 1 for step in self.stride):  # versions before 0.20 have none
            axes["stride"] = tuple(self.stride)
        out = call(*laid, kernel_size=tuple(self.window), **axes)
        return out.flatten(1, len(self.axes)).transpose(1, 2)

    def required_bytes(self, q: Tensor, k: Tensor, v: Tensor) -> int:
        """Bytes of the unfolded keys and values and their weights, or of scores and weights of the square."""
        per_query = self.index.shape[1] * (2 * self.size + 2) if self.form == "gather" else 2 * self.tokens
        return q.shape[:3].numel() * per_query * q.element_size()

    @property
    def required_macs(self) -> int:
        """Products of the pairs that are allowed."""
        return 2 * self.pairs * self.size * self.heads

    @property
    def dense_macs(self) -> int:
        """Products of the whole square."""
        return 2 * self.tokens**2 * self.size * self.heads

    @property
    def macs_nonzero(self) -> int:
        """What is allowed, by the name that a record has."""
        return self.required_macs

    @property
    def macs_dense(self) -> int:
        """The whole square, likewise."""
        return self.dense_macs
