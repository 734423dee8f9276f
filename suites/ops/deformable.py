"""A deformable convolution: every tap of every output reads where an offset points, between four pixels.

y[o, p] = sum over taps t and channels c of w[o, c, t] m[t, p] x[c, p + t + d[t, p]], x read bilinearly and zero
outside.

Source: Dai et al. 2017 (arXiv 1703.06211); with modulation m, Zhu et al. 2019 (arXiv 1811.11168).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.deformable import deform_conv2d, has_kernel
from suites.common.operators import Operator


def deformable_convolution(
    *,
    form: Literal["sampled", "plain", "torchvision"] = "sampled",
    channels: PositiveInt = 64,
    size: PositiveInt = 28,
    filters: PositiveInt = 64,
    kernel: PositiveInt = 3,
    modulated: bool = True,
    backward: bool = False,
) -> Deformable:
    """A deformable convolution at stride 1 that keeps the size, as an operator on images, offsets and weights of taps.

    Args:
        form: sampled gathers what all taps read and multiplies once; torchvision is its fused operator; plain
            is the convolution without offsets, of the same products, to be compared with.
        channels: of the input.
        size: side of the image.
        filters: channels of the output.
        kernel: side of a filter, odd.
        modulated: every tap has a weight of its own at every place.
        backward: a run also takes the gradients.

    Raises:
        ValueError: an even kernel.
        NotImplementedError: torchvision has no such operator here.
    """
    if kernel % 2 == 0:
        raise ValueError(f"kernel={kernel}: taps lie around their output, which takes an odd number")
    if form == "torchvision" and not has_kernel():
        raise NotImplementedError(
            "torchvision.ops.deform_conv2d is not in this installation (torchvision is missing or was built for "
            "another torch): take form='sampled'"
        )
    return Deformable(form, channels, size, filters, kernel, modulated, backward).eval()


class Deformable(Operator):
    """The convolution; its filters are a parameter [filters, channels, k, k]."""

    def __init__(
        self, form: str, channels: int, size: int, filters: int, kernel: int, modulated: bool, backward: bool
    ):  # fmt: skip
        super().__init__(form=form, backward=backward)
        self.channels, self.size, self.side, self.modulated = channels, size, kernel, modulated
        self.weight = nn.Parameter(torch.randn(filters, channels, kernel, kernel) / math.sqrt(channels * kernel**2))

    def _inputs(self, batch: int, size: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        taps = self.side**2
        found = [draw(batch, self.channels, size, size), draw(batch, 2 * taps, size, size)]
        found += [draw(batch, taps, size, size).sigmoid()] if self.modulated else []
        return tuple(value.to(self.like) for value in found)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random images, offsets of about a pixel and, where it is modulated, weights of taps."""
        return self._inputs(batch, self.size)

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """Two images of at most 7 pixels a side."""
        return self._inputs(2, min(self.size, 7), torch.Generator().manual_seed(seed))

    def function(self, x: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """[batch, filters, size, size]."""
        half = self.side // 2
        if self.form == "plain":
            return F.conv2d(x, self.weight, padding=half)
        kernel = self.form == "torchvision"
        return deform_conv2d(x, offsets, self.weight, padding=half, mask=weights, kernel=kernel)

    def _places(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns that the taps read, [batch, taps, size, size] each."""
        half, (high, wide) = self.side // 2, x.shape[-2:]
        moved = offsets.unflatten(1, (self.side**2, 2))
        taps = torch.arange(self.side**2, device=x.device)[:, None, None]
        down = torch.arange(high, device=x.device)[:, None] + torch.div(taps, self.side, rounding_mode="floor") - half
        right = torch.arange(wide, device=x.device) + taps % self.side - half
        return down + moved[:, :, 0], right + moved[:, :, 1]

    def definition(self, x: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Tap by tap: the four pixels around a place by what they are near, zero outside."""
        if self.form == "plain":
            return F.conv2d(x, self.weight, padding=self.side // 2)
        rows, columns = self._places(x, offsets)
        total = torch.zeros_like(x[:, :1])
        for t in range(self.side**2):
            seen = _bilinear(x, rows[:, t], columns[:, t])
            seen = seen if weights is None else seen * weights[:, t, None]
            part = torch.einsum("oc,nchw->nohw", self.weight.flatten(2)[..., t], seen)
            total = total + part
        return total


def _bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Values [batch, channels, places] at fractional places [batch, high, wide]."""
    _, channels, high, wide = x.shape
    top, left = rows.floor(), columns.floor()
    total = torch.zeros_like(x)
    for i in (0, 1):
        for j in (0, 1):
            row, column = top + i, left + j
            near = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
            inside = (row >= 0) & (row < high) & (column >= 0) & (column < wide)
            place = (row.clamp(0, high - 1) * wide + column.clamp(0, wide - 1)).long()
            value = (
                x.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, channels, -1)).unflatten(2, rows.shape[1:])
            )
            total = total + value * (near * inside)[:, None]
    return total
