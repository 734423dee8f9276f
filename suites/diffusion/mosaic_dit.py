"""A diffusion transformer that is asked for pictures of twice the side that it learned at; for Scale-DiT.

It learns at 16 px alone: half of its batches are crops of a mosaic of 32 px, with the places that their tokens have in
the whole, the others are whole mosaics made small. So it knows every place of the large picture and the look of the
small one, and no more tokens together than a quarter of the large picture has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.dit import Dit, positions
from suites.common.rectified_flow import flow_loss
from suites.common.training import Loss
from suites.diffusion.stages import resized

__all__ = ["MosaicDit", "load_checkpoint", "mosaic_dit"]


class MosaicDit(Dit):
    """The transformer, which may be given a crop of its picture.

    Attributes:
        crop: row and column, in tokens of the whole picture, of what it is given; None where that is a whole picture.
    """

    crop: tuple[int, int] | None = None

    def embedded(self, x: Tensor) -> Tensor:
        """Tokens that know their places in the whole picture, [batch, tokens, width]."""
        if self.crop is None:
            return super().embedded(x)
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        side, whole = x.shape[-1] // self.patch, self.resolution // self.patch
        row, column = self.crop
        grid = positions(whole, self.width, tokens).unflatten(1, (whole, whole))
        return tokens + grid[:, row : row + side, column : column + side].flatten(1, 2)

    def learning_loss(self, pictures: Tensor, generator: torch.Generator) -> Loss:
        """The loss of whole pictures and classes: of crops of half the side, or of all of it at half the side."""
        del pictures
        flow = flow_loss(self, generator)
        half = self.resolution // 2

        def loss(whole: Tensor, classes: Tensor) -> Tensor:
            places = half // self.patch + 1
            small, row, column = (int(torch.randint(n, (1,), generator=generator)) for n in (2, places, places))
            if small:
                return flow(resized(whole, half), classes)
            top, left = row * self.patch, column * self.patch
            self.crop = (row, column)
            try:
                return flow(whole[:, :, top : top + half, left : left + half], classes)
            finally:
                self.crop = None

        return loss


def mosaic_dit(
    *,
    width: PositiveInt = 64,
    heads: PositiveInt = 4,
    depth: PositiveInt = 6,
    patch: PositiveInt = 2,
    resolution: PositiveInt = 32,
    classes: PositiveInt = 10,
) -> MosaicDit:
    """The transformer in evaluation mode with random weights.

    Args:
        width: features per token; a multiple of 4 and of `heads`.
        heads: of attention.
        depth: blocks.
        patch: side of a patch in pixels; divides half of `resolution`.
        resolution: side of the picture that it is asked for, twice the side that it learns at.
        classes: that pictures may be asked for, beside the empty one.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads or width % 4:
        raise ValueError(f"width={width} must be a multiple of 4 and of heads={heads}")
    if resolution % (2 * patch):
        raise ValueError(f"half of resolution={resolution} is not a multiple of patch={patch}")
    return MosaicDit(
        width=width, heads=heads, depth=depth, patch=patch, resolution=resolution, channels=1, classes=classes,
        ratio=4.0,
    ).eval()  # fmt: skip
