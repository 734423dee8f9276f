"""A small convolutional classifier with one attention layer on its deepest map, as a hybrid encoder has it.

It is the student of RT-DETRv4 at the scale of digits: the layer is where a teacher can be aligned, and what follows it
stands for the pyramid and the decoder.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import PooledHead, conv_norm
from suites.common.digits_data import CLASSES
from suites.common.digits_vit import grid_positions
from suites.common.vit import Block, Tokens

__all__ = ["DigitsHybrid", "digits_hybrid", "load_checkpoint"]


class DigitsHybrid(nn.Module):
    """Two strided convolutions, one transformer layer, a strided convolution, the mean over places, a linear layer.

    Attributes:
        deepest: the transformer layer, on the map of stride 4.
        stride: of that map.
        width: of its tokens.
    """

    stride = 4
    positions: Tensor

    def __init__(self, width: int, heads: int, resolution: int):
        super().__init__()
        self.width, self.resolution, self.channels, self.classes = width, resolution, 3, CLASSES
        self.body = nn.Sequential(
            conv_norm(3, width // 2, 3, 2, act=nn.ReLU), conv_norm(width // 2, width, 3, 2, act=nn.ReLU)
        )
        self.deepest = Block(width, heads, 2 * width, True)
        side = -(-resolution // self.stride)
        self.register_buffer("positions", grid_positions(side, width), persistent=False)
        self.neck = conv_norm(width, 2 * width, 3, 2, act=nn.ReLU)
        self.head = PooledHead(2 * width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        x = self.body(images)
        tokens = cast("Tokens", self.deepest(Tokens(x.flatten(2).mT + self.positions, 0)))
        return self.head(self.neck(tokens.x.mT.unflatten(2, x.shape[-2:])))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the model's resolution."""
        like = self.head.linear.weight
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(like),)


def digits_hybrid(*, width: PositiveInt = 32, heads: PositiveInt = 2, resolution: PositiveInt = 32) -> DigitsHybrid:
    """The classifier in evaluation mode with random weights.

    Args:
        width: of the tokens, a multiple of 4 and of `heads`; convolutions have half, all and twice of it.
        heads: of attention.
        resolution: side of the picture, a multiple of 4.

    Raises:
        UsageError: numbers that do not fit together.
    """
    if width % 4 or width % heads:
        raise UsageError(f"digits_hybrid: width={width} is no multiple of 4 and of heads={heads}")
    if resolution % DigitsHybrid.stride:
        raise UsageError(f"digits_hybrid: resolution={resolution} is no multiple of {DigitsHybrid.stride}")
    return DigitsHybrid(width, heads, resolution).eval()
