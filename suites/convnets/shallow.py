"""Parallel shallow networks: x plus a sum of residual layers in place of a stack of them.

Source: Bermeitinger et al. 2023, Make Deep Networks Shallow Again, arXiv:2309.08414. The idea is the paper's; stem,
head and sizes are rebuilt. The parallel form is the first order of the stack's expansion, so it is another function:
both are trained.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Count, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at


class Shallow(nn.Module):
    """A stem, h layers F(x) = ReLU(convolution), a mean over space and a linear layer.

    `sequential` is x <- x + F_i(x), a chain of h; `loop` x + sum F_i(x) by h convolutions; `wide` the same by one of
    h times the filters, which holds h times the activation. MACs and parameters are equal: k^2 C (channels + h C) H W
    + K C.
    """

    def __init__(self, depth: int, width: int, kernel: int, channels: int, classes: int, form: str):
        super().__init__()
        self.depth, self.form, self.channels = depth, form, channels
        pad = kernel // 2
        self.stem = nn.Conv2d(channels, width, kernel, padding=pad)
        # one tensor of all layers' filters, so that the three forms hold the same state
        self.layers = nn.Conv2d(width, depth * width, kernel, padding=pad) if depth else None
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images [batch, channels, h, w]."""
        x = self.stem(images)
        if self.layers is not None:
            x = self._wide(x) if self.form == "wide" else self._by_layers(x)
        return self.head(x.mean((2, 3)))

    def extra_repr(self) -> str:
        """Which of the two functions it is: trained weights of one are none of the other's, though shapes agree."""
        return "sequential" if self.form == "sequential" else "parallel"

    def _wide(self, x: Tensor) -> Tensor:
        assert self.layers is not None
        return x + self.layers(x).relu().unflatten(1, (self.depth, -1)).sum(1)

    def _by_layers(self, x: Tensor) -> Tensor:
        assert self.layers is not None and self.layers.bias is not None
        pad, total = self.layers.padding, x
        for weight, bias in zip(self.layers.weight.chunk(self.depth), self.layers.bias.chunk(self.depth), strict=True):
            into = total if self.form == "sequential" else x
            total = total + F.conv2d(into, weight, bias, padding=pad).relu()
        return total

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random images."""
        side = int(self.resolution)  # type: ignore[arg-type]
        return (torch.randn(batch, self.channels, side, side, device=self.stem.weight.device),)


def shallow(
    *,
    form: Literal["sequential", "loop", "wide"] = "wide",
    depth: Count = 16,
    width: PositiveInt = 16,
    kernel: PositiveInt = 3,
    channels: PositiveInt = 1,
    classes: PositiveInt = 10,
    resolution: PositiveInt = 8,
) -> Shallow:
    """A network of residual layers, one after the other or side by side.

    Args:
        form: see `Shallow`.
        depth: residual layers.
        width: channels.
        kernel: side of all layers, odd.
        channels: of images.
        classes: logits.
        resolution: side of images.

    Raises:
        UsageError: an even kernel.
    """
    if kernel % 2 == 0:
        raise UsageError(f"shallow: kernel={kernel} must be odd")
    return at(Shallow(depth, width, kernel, channels, classes, form), resolution)
