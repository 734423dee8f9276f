"""A small network of long convolutions over the pixels of a picture, for training steps and for the digits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES
from suites.ops.kernels import kernel_of
from suites.ops.long_layer import KernelLayer, LongLayer
from suites.ops.sgconv import SGLayer

__all__ = ["SequenceNet", "load_checkpoint", "sequence_net"]


class Residual(nn.Module):
    """x + layer(norm(x)) on [batch, width, positions]."""

    def __init__(self, layer: KernelLayer):
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(layer.width), layer

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return x + self.layer(self.norm(x.transpose(1, 2)).transpose(1, 2))


class SequenceNet(nn.Module):
    """Pixels as a sequence of resolution^2 steps, blocks, the mean over positions, a linear layer."""

    def __init__(self, width: int, resolution: int, layers: list[KernelLayer]):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, 1, CLASSES
        self.embed = nn.Linear(1, width)
        self.blocks = nn.Sequential(*(Residual(layer) for layer in layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures of one channel."""
        return (torch.randn(batch, 1, self.resolution, self.resolution).to(self.head.weight),)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        x = self.embed(images.flatten(1).unsqueeze(-1)).transpose(1, 2)
        return self.head(self.norm(self.blocks(x).mean(dim=2)))


def sequence_net(
    *,
    kernel: Literal["long", "full", "multiscale", "s4d"] = "long",
    width: PositiveInt = 64,
    layers: PositiveInt = 2,
    resolution: PositiveInt = 8,
    size: PositiveInt = 16,
    threshold: Rate = 0.001,
    two_sided: bool = False,
    transform: Literal["fft", "monarch", "learned"] = "fft",
) -> SequenceNet:
    """A classifier of ten digits read as a sequence of resolution^2 pixels, in evaluation mode.

    Args:
        kernel: long has a soft threshold and GLU (long convolutions); multiscale is SGConv; full and s4d are SGConv's
            layer with free taps and with the kernel of a diagonal state space.
        width: features of a position.
        layers: blocks.
        resolution: side of the picture; a sequence has its square.
        size: taps of a piece of the multiscale kernel.
        threshold: lambda of the long kernel.
        two_sided: kernels that look both ways.
        transform: how the long layer convolves.

    Raises:
        ValueError: a transform for a layer that has none, or a two-sided state space.
    """
    if transform != "fft" and kernel != "long":
        raise ValueError(f"transform={transform} is a setting of kernel='long', not of kernel={kernel!r}")
    length, options = resolution**2, {"two_sided": two_sided, "size": size, "threshold": threshold}
    made: list[KernelLayer] = []
    for _ in range(layers):
        taps = kernel_of(kernel, width, length, **options)  # type: ignore[arg-type]
        made.append(LongLayer(width, length, 1, taps, transform) if kernel == "long" else SGLayer(width, length, taps))
    return SequenceNet(width, resolution, made).eval()
