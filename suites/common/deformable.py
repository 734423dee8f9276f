"""Deformable convolution: each tap of a kernel reads where an offset sends it, between pixels by bilinear weights.

Sources: Dai et al. 2017, arXiv:1703.06211, equations 1 to 3; with a mask, Zhu et al. 2019 (v2), arXiv:1811.11168.
torchvision's kernel is used where its compiled operators load and numbers are there; else the same sum as gathers and
a matrix product, which runs on any device and which counters can see into.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import Tensor
from torch.nn import functional as F

from suites.common.torchvision_remedy import mend_torchvision


def has_kernel() -> bool:
    """Whether torchvision's compiled kernel is there."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    mend_torchvision()
    importlib.import_module("torchvision")
    return hasattr(torch.ops.torchvision, "deform_conv2d")


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int = 1,
    mask: Tensor | None = None,
    groups: int = 1,
    kernel: bool | None = None,
) -> Tensor:
    """A deformable convolution of stride 1: [batch, out, h, w].

    Args:
        x: [batch, channels, h, w].
        offset: [batch, 2 g k k, h, w], rows and columns by turns; channels are cut into g runs with offsets of their
            own.
        weight: [out, channels / groups, k, k].
        bias: [out].
        padding: on every side; 'same' for an odd kernel is (k - 1) / 2.
        mask: [batch, g k k, h, w], a factor of each sample.
        groups: of channels, as in a plain convolution.
        kernel: torchvision's kernel or not; None takes it where it is.
    """
    if kernel is None:
        kernel = has_kernel() and not x.is_meta
    if kernel:
        operators = importlib.import_module("torchvision.ops")
        return operators.deform_conv2d(x, offset, weight, bias, padding=padding, mask=mask)
    sampled = samples(x, offset, weight.shape[-1], padding)
    if mask is not None:
        runs = mask.shape[1] // weight.shape[-1] ** 2
        factors = mask.unflatten(1, (runs, -1)).flatten(3).repeat_interleave(x.shape[1] // runs, 1)
        sampled = sampled * factors
    batch, places = sampled.shape[0], sampled.shape[-1]
    columns = sampled.reshape(batch, groups, -1, places)
    filters = weight.reshape(groups, weight.shape[0] // groups, -1)
    made = (filters @ columns).reshape(batch, weight.shape[0], *offset.shape[-2:])
    return made if bias is None else made + bias.view(1, -1, 1, 1)


def samples(x: Tensor, offset: Tensor, size: int, padding: int) -> Tensor:
    """What every tap reads, [batch, channels, k k, h w]: four pixels each, weighed; zeros outside the map."""
    batch, channels, height, width = x.shape
    taps = size * size
    high, wide = offset.shape[-2:]
    runs = offset.shape[1] // (2 * taps)
    steps = torch.arange(size, device=x.device, dtype=x.dtype) - padding
    rows = torch.arange(high, device=x.device, dtype=x.dtype)
    columns = torch.arange(wide, device=x.device, dtype=x.dtype)
    moved = offset.view(batch, runs, taps, 2, high, wide)
    y = moved[:, :, :, 0] + steps.repeat_interleave(size).view(-1, 1, 1) + rows.view(-1, 1)
    z = moved[:, :, :, 1] + steps.repeat(size).view(-1, 1, 1) + columns
    top, left = y.floor(), z.floor()
    flat = x.reshape(batch, runs, channels // runs, height * width)
    total = x.new_zeros(batch, runs, channels // runs, taps * high * wide)
    for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, share_z in ((left, left + 1 - z), (left + 1, z - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            share = (share_y * share_z * inside).reshape(batch, runs, 1, -1)
            index = place.reshape(batch, runs, 1, -1).expand(-1, -1, flat.shape[2], -1)
            total = total + flat.gather(3, index) * share
    return total.reshape(batch, channels, taps, high * wide)


def by_grid_sample(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """The same, one tap after the other by grid_sample: slow and obvious; one run of offsets, depthwise or dense."""
    size = weight.shape[-1]
    height, width = x.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    groups = x.shape[1] // weight.shape[1]
    total = x.new_zeros(len(x), weight.shape[0], height, width)
    for tap in range(size * size):
        row, column = divmod(tap, size)
        y = rows + row - padding + offset[:, 2 * tap]
        z = columns + column - padding + offset[:, 2 * tap + 1]
        grid = torch.stack((2 * z / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), -1)
        seen = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        total = total + F.conv2d(seen, weight[:, :, row : row + 1, column : column + 1], groups=groups)
    return total if bias is None else total + bias.view(1, -1, 1, 1)
