"""Rows of a sequence joined with those before them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def with_predecessors(x: Tensor, count: int) -> Tensor:
    """Each of x [batch, words, width] plus the `count` before it."""
    total = x
    for step in range(1, min(count, x.shape[1] - 1) + 1):
        total = total + F.pad(x[:, :-step], (0, 0, step, 0))
    return total
