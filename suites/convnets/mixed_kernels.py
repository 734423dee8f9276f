"""CondConv and DY-Conv: a few kernels mixed anew for every image, the baselines of FDConv.

Sources: Yang et al. 2019, CondConv, arXiv:1904.04971, section 3 (sigmoid shares, 8 kernels); Chen et al. 2020, Dynamic
Convolution, arXiv:1912.03458, section 3 (softmax shares of temperature 30 out of a hidden layer, 4 kernels).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.feature_operator import FeatureOperator

#: Kernels of a layer in the paper.
KERNELS = {"condconv": 8, "dyconv": 4}
#: Channels over width of DY-Conv's hidden layer, and the temperature of its softmax.
SQUEEZE, TEMPERATURE = 4, 30.0


class MixedConv(nn.Module):
    """A 'same' convolution by a sum of kernels with shares of every image; a batch runs as so many groups."""

    def __init__(self, kind: str, width: int, size: int, kernels: int):
        super().__init__()
        self.kind, self.size = kind, size
        self.kernels = nn.Parameter(torch.randn(kernels, width * width * size * size) * (width * size * size) ** -0.5)
        hidden = width // SQUEEZE
        self.gate: nn.Module = nn.Linear(width, kernels)
        if kind == "dyconv":
            self.gate = nn.Sequential(nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, kernels))

    def shares(self, x: Tensor) -> Tensor:
        """[batch, kernels] of [batch, width, h, w]."""
        scores = self.gate(x.mean((2, 3)))
        return scores.sigmoid() if self.kind == "condconv" else (scores / TEMPERATURE).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        batch, width, height, side = x.shape
        kernel = (self.shares(x) @ self.kernels).view(batch * width, width, self.size, self.size)
        y = F.conv2d(x.reshape(1, batch * width, height, side), kernel, padding=self.size // 2, groups=batch)
        return y.view(batch, width, height, side)


def mixed_layer(
    *, kind: Literal["condconv", "dyconv"] = "dyconv", width: PositiveInt = 64, size: PositiveInt = 3,
    kernels: PositiveInt | None = None, resolution: PositiveInt = 14,
) -> FeatureOperator:  # fmt: skip
    """One layer as an operator on [batch, width, resolution, resolution], beside a sum of outputs, kernel by kernel.

    Args:
        kind: `condconv` (sigmoid shares) or `dyconv` (a hidden layer, softmax shares of temperature 30).
        width: channels.
        size: side of the kernels, odd.
        kernels: that are mixed; None is the paper's, 8 and 4.
        resolution: side of the map.

    Raises:
        UsageError: the kernel is even, or there are fewer channels than the hidden layer needs.
    """
    if size % 2 == 0 or width < SQUEEZE:
        raise UsageError(f"mixed_layer: size={size} must be odd, and width={width} at least {SQUEEZE}")
    layer = MixedConv(kind, width, size, kernels or KERNELS[kind])
    return FeatureOperator(layer, (width, resolution, resolution), reference=_kernel_by_kernel, form=kind)


def _kernel_by_kernel(layer: nn.Module, x: Tensor) -> Tensor:
    """The shares times what each kernel gives by itself, summed."""
    assert isinstance(layer, MixedConv)
    width, total = x.shape[1], torch.zeros_like(x)
    for kernel, share in zip(layer.kernels, layer.shares(x).unbind(1), strict=True):
        weight = kernel.view(width, width, layer.size, layer.size)
        total = total + F.conv2d(x, weight, padding=layer.size // 2) * share[:, None, None, None]
    return total
