"""The adapter of SpeedUpNet: attention to one further prompt, in the norm of the plain one (see `sun`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Branch(nn.Module):
    """Keys and values of one prompt, and the affine map of what they give."""

    def __init__(self, context: int, width: int):
        super().__init__()
        self.key, self.value = (nn.Linear(context, width, bias=False) for _ in range(2))
        self.alpha, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, q: Tensor, context: Tensor, like: Tensor) -> Tensor:
        """What attention to this prompt gives, with the norm of `like` [batch, tokens, width]."""
        heads = q.shape[1]
        k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (self.key(context), self.value(context)))
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        own, wanted = (each.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None] for each in (found, like))
        return self.alpha * found * (wanted / own) + self.beta
