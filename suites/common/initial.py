"""How weights start."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def draw(weight: Tensor, std: float = 0.02) -> None:
    """Fill a weight with normal numbers in place; on the meta device there is nothing to fill."""
    if not weight.is_meta:
        nn.init.normal_(weight, std=std)
