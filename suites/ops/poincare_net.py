"""A small hyperbolic classifier of digits: three blocks whose points live in a Poincare ball (reconstruction).

A block maps points to the tangent space at the origin, convolves there (3 x 3, stride 1 or 2), maps back, and
normalises in the ball; a ReLU acts in the tangent space. Poincare ResNet has convolutions of its own; here only its
batch norm is the paper's.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES
from suites.ops import poincare
from suites.ops.poincare_norm import BallNorm

__all__ = ["PoincareNet", "load_checkpoint", "poincare_net"]


class BallBlock(nn.Module):
    """Convolution in the tangent space at the origin, the norm in the ball, ReLU in the tangent space."""

    def __init__(self, inner: int, outer: int, stride: int, norm: nn.Module, curvature: float):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride, 1)
        self.norm, self.c = norm, curvature

    def forward(self, tangent: Tensor) -> Tensor:
        """Tangent vectors at the origin, [batch, outer, high, wide]."""
        x = self.conv(tangent)
        if isinstance(self.norm, nn.BatchNorm2d):
            return F.relu(self.norm(x))
        points = poincare.clamped(poincare.exp_zero(x.permute(0, 2, 3, 1).flatten(0, 2), self.c), self.c)
        back = poincare.log_zero(self.norm(points), self.c)
        return F.relu(back.unflatten(0, (x.shape[0], *x.shape[2:])).permute(0, 3, 1, 2))


class PoincareNet(nn.Module):
    """Three blocks, the mean over places, a linear layer; channels first."""

    def __init__(self, width: int, resolution: int, norm: str, gradients: str, curvature: float):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, 1, CLASSES
        sides = [(1, width, 1), (width, width, 2), (width, 2 * width, 2)]
        self.blocks = nn.Sequential(
            *(BallBlock(i, o, s, _norm(o, norm, gradients, curvature), curvature) for i, o, s in sides)
        )
        self.head = nn.Linear(2 * width, CLASSES)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures."""
        return (torch.randn(batch, 1, self.resolution, self.resolution).to(self.head.weight),)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        return self.head(self.blocks(images).mean(dim=(2, 3)))


def _norm(width: int, norm: str, gradients: str, curvature: float) -> nn.Module:
    return nn.BatchNorm2d(width) if norm == "euclidean" else BallNorm(width, curvature, norm, gradients)


def poincare_net(
    *,
    norm: Literal["midpoint", "frechet", "euclidean"] = "midpoint",
    gradients: Literal["autograd", "manual"] = "autograd",
    width: PositiveInt = 8,
    resolution: PositiveInt = 8,
    curvature: Positive = 1.0,
) -> PoincareNet:
    """A classifier of ten digits, in evaluation mode.

    Args:
        norm: midpoint and frechet are batch norms in the ball; euclidean is torch's, in a network without a ball.
        gradients: of distance and exponential map, by autograd or written out.
        width: channels of the first two blocks; the third has twice as many.
        resolution: side of the picture.
        curvature: c.

    Raises:
        ValueError: written-out gradients without a ball.
    """
    if norm == "euclidean" and gradients == "manual":
        raise ValueError("gradients='manual' are those of the ball: norm='euclidean' has none")
    return PoincareNet(width, resolution, norm, gradients, curvature).eval()
