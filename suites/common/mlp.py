"""Perceptrons over pixels: LeNet-300-100 of the lottery ticket (arXiv:1803.03635, table 2), and the same for digits."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES

__all__ = ["Mlp", "digits_mlp", "lenet_300_100", "load_checkpoint"]


class Mlp(nn.Module):
    """Linear layers with ReLU over flattened pixels.

    Attributes:
        layers: linear maps, the last one to the classes.
        acts: what follows each but the last.
    """

    def __init__(self, sizes: list[int], resolution: int, channels: int):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, channels, sizes[-1]
        self.layers = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(sizes))
        self.acts = nn.ModuleList(nn.ReLU() for _ in self.layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = images.flatten(1)
        for layer, act in zip(self.layers[:-1], self.acts, strict=True):
            x = act(layer(x))
        return self.layers[-1](x)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        like = next(self.parameters())
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(like),)


def lenet_300_100(*, widths: Blocks | None = None, classes: PositiveInt = 10) -> Mlp:
    """784, 300, 100, classes: LeNet-300-100 for 28 px of one channel.

    Args:
        widths: of the two hidden layers; None for 300 and 100.
        classes: logits.
    """
    hidden = [300, 100] if widths is None else list(widths)
    return Mlp([784, *hidden, classes], 28, 1).eval()


def digits_mlp(*, widths: Blocks | None = None, resolution: PositiveInt = 16) -> Mlp:
    """The same network for the digits of scikit-learn at 16 px.

    Args:
        widths: of the hidden layers; None for 300 and 100.
        resolution: side of the input.
    """
    hidden = [300, 100] if widths is None else list(widths)
    return Mlp([resolution**2, *hidden, CLASSES], resolution, 1).eval()
