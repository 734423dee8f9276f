"""How weights start: narrow normal numbers, or those that keep the scale of activations behind a ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def draw(weight: Tensor, std: float = 0.02) -> None:
    """Fill a weight with normal numbers in place; on the meta device there is nothing to fill."""
    if not weight.is_meta:
        nn.init.normal_(weight, std=std)


@torch.no_grad()
def keep_scale(module: nn.Module) -> None:
    """Start the convolutions inside so that a ReLU behind each keeps the scale of what it is given, without biases.

    Normal numbers of variance 2 / inputs of an output (He et al. 2015, arXiv 1502.01852, equation 10). torch's own
    start has a sixth of that variance: three layers and a mean over mostly empty pictures then leave differences
    between classes of a hundredth, which a short training spends its steps on.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and not part.weight.is_meta:
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
