"""Convolutions by slow and obvious means, for references that fast forms are held to."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What a layer of stride one gives of [batch, channels, h, w]: for every tap a product of matrices, added up."""
    (down, across), (high, wide) = cast("tuple[int, int]", layer.padding), layer.dilation
    outputs, each, rows, columns = layer.weight.shape
    padded = F.pad(x, (across, across, down, down)).unflatten(1, (layer.groups, each))
    height, width = padded.shape[-2] - high * (rows - 1), padded.shape[-1] - wide * (columns - 1)
    total = x.new_zeros(len(x), layer.groups, outputs // layer.groups, height, width)
    for row in range(rows):
        for column in range(columns):
            top, left = row * high, column * wide
            seen = padded[..., top : top + height, left : left + width]
            weight = layer.weight[:, :, row, column].unflatten(0, (layer.groups, -1))
            total = total + torch.einsum("bgihw,goi->bgohw", seen, weight)
    y = total.flatten(1, 2)
    return y if layer.bias is None else y + layer.bias.view(1, -1, 1, 1)


def convolved_densely(layer: nn.Conv2d, x: Tensor, apart: int) -> Tensor:
    """What a depthwise layer gives whose taps stand so many pixels apart: one dense kernel, zeros between its taps.

    How far taps are apart is the caller's to say, not the layer's, and so is held to what a paper says of it.
    """
    channels, _, rows, columns = layer.weight.shape
    dense = layer.weight.new_zeros(channels, 1, apart * (rows - 1) + 1, apart * (columns - 1) + 1)
    dense[:, :, ::apart, ::apart] = layer.weight.detach()
    padding = (dense.shape[-2] // 2, dense.shape[-1] // 2)
    return F.conv2d(x, dense, layer.bias, padding=padding, groups=channels)
