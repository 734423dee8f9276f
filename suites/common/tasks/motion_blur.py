"""Photographs blurred along random lines, to be made sharp again; the photographs and tiles are those of `photos`."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.common.tasks.photos import Photos

#: Pixels of the line that a picture is smeared along.
LENGTH = 9


class MotionBlur(Photos):
    """PSNR over held-out tiles of what a module makes of them after they were blurred along a line of nine pixels."""

    name = "motion_blur"

    def recipe(self) -> dict[str, Any]:
        """The training, tiles and the line."""
        return {**super().recipe(), "line": LENGTH}

    def _flags(self, values: list[float], plain: list[float]) -> tuple[dict[str, str], ...]:
        """As of grain, in words of blur."""
        found = super()._flags(values, plain)
        return tuple({name: text.replace("grain", "blur") for name, text in each.items()} for each in found)

    def _spoiled(self, whole: Tensor, generator: torch.Generator) -> Tensor:
        """Each picture smeared along a line of its own direction; borders are mirrored."""
        angles = math.pi * torch.rand(len(whole), generator=generator)
        kernels = torch.stack([line_kernel(float(angle)) for angle in angles])
        pad = LENGTH // 2
        padded = F.pad(whole, (pad, pad, pad, pad), mode="reflect")
        together = padded.transpose(0, 1)  # colours as the batch, pictures as groups
        made = F.conv2d(together, kernels[:, None].to(whole), groups=len(whole))
        return made.transpose(0, 1).contiguous()


def line_kernel(angle: float, length: int = LENGTH) -> Tensor:
    """A line through the middle of a square of `length` pixels, [length, length], which sums to 1.

    Args:
        angle: from the rows, in radians.
        length: of the line and the square, odd.
    """
    middle = length // 2
    along = torch.linspace(-middle, middle, 8 * length)
    rows, columns = middle + along * math.sin(angle), middle + along * math.cos(angle)
    kernel = torch.zeros(length, length)
    for row, column in ((rows.floor(), columns.floor()), (rows.floor(), columns.floor() + 1),
                        (rows.floor() + 1, columns.floor()), (rows.floor() + 1, columns.floor() + 1)):  # fmt: skip
        weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
        kernel.index_put_(
            (row.clamp(0, length - 1).long(), column.clamp(0, length - 1).long()), weight, accumulate=True
        )
    return kernel / kernel.sum()
