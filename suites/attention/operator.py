"""What every bare attention of this suite is: a module on queries, keys and values, with a slow reference beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionOperator(nn.Module):
    """A function of q, k, v [batch, heads, tokens, size]. A subclass defines `forward` and `reference`.

    Attributes:
        tolerance: largest difference between the two, relative to the reference's largest number, in fp32.
    """

    tolerance = 1e-4
    like: Tensor

    def __init__(self, heads: int, tokens: int, size: int, kv_heads: int | None = None):
        super().__init__()
        self.heads, self.tokens, self.size = heads, tokens, size
        self.kv_heads = heads if kv_heads is None else kv_heads
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random q, k, v."""
        shapes = [(batch, heads, self.tokens, self.size) for heads in (self.heads, self.kv_heads, self.kv_heads)]
        q, k, v = (torch.randn(shape).to(self.like) for shape in shapes)
        return q, k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is attended, [batch, heads, tokens, size]."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same by the definition, slow and obvious."""
        raise NotImplementedError(f"{type(self).__name__} does not define reference")


def masked_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Softmax attention with the scores written out in fp32 or better; `seen` is true where a query looks.

    A query that looks nowhere gets zeros.
    """
    exact = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(exact) @ k.to(exact).transpose(-2, -1) * q.shape[-1] ** -0.5
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    weights = scores.softmax(dim=-1)
    if seen is not None:
        weights = weights.masked_fill(~seen.any(dim=-1, keepdim=True), 0.0)
    return (weights @ v.to(exact)).to(q.dtype)
