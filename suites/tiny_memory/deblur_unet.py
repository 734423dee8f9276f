"""A plain U-Net that takes blur from pictures: what DeepRFTv2's columns are beside, at about equal parameters."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = ["DeblurUnet", "deblur_unet", "load_checkpoint"]

LEVELS = 3


class Double(nn.Module):
    """Two 3x3 convolutions with a GELU between them, added to their input: the plain form of a column's network."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return x + self.conv2(F.gelu(self.conv1(x)))


class Deblurring(nn.Module):
    """What networks that take blur from pictures [batch, 3, side, side] have in common.

    Attributes:
        head: to three colours, zeros at first, so that the answer starts as the picture.
    """

    def __init__(self, width: int, resolution: int):
        super().__init__()
        if resolution % 2 ** (LEVELS - 1):
            raise ValueError(f"resolution={resolution}: three levels halve it twice, so a multiple of 4")
        self.channels, self.scale, self.resolution = 3, 1, resolution
        self.head = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def loss(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Mean over pictures of the log of their squared error."""
        return ((made - wanted).square().flatten(1).mean(dim=1) + 1e-6).log().mean()

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random pictures in 0..1."""
        return (torch.rand(batch, 3, self.resolution, self.resolution).to(self.head.weight),)

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random pictures in 0..1."""
        side = self.resolution
        return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


class DeblurUnet(Deblurring):
    """The network on pictures [batch, 3, side, side]; the picture is added to the answer."""

    def __init__(self, width: int, blocks: int, resolution: int):
        super().__init__(width, resolution)
        widths = [width * 2**level for level in range(LEVELS)]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        pairs = list(pairwise(widths))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, 2) for fine, coarse in reversed(pairs))
        self.encoder = nn.ModuleList(_doubles(w, blocks) for w in widths)
        self.decoder = nn.ModuleList(_doubles(w, blocks) for w in reversed(widths[:-1]))

    def forward(self, pictures: Tensor) -> Tensor:
        """The pictures without their blur; sides are multiples of 4."""
        x, skips = self.stem(pictures), []
        for level, down in zip(self.encoder, self.downs, strict=False):
            x = level(x)
            skips.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        for up, level in zip(self.ups, self.decoder, strict=True):
            x = level(up(x) + skips.pop())
        return pictures + self.head(x)


def _doubles(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Double(width) for _ in range(blocks)))


def deblur_unet(*, width: PositiveInt = 16, blocks: PositiveInt = 2, resolution: PositiveInt = 64) -> DeblurUnet:
    """The network in evaluation mode with random weights.

    Args:
        width: of the finest level; each below has twice as many channels.
        blocks: of a level, on the way down and on the way up.
        resolution: side of example pictures, a multiple of 4.

    Raises:
        ValueError: another side.
    """
    return DeblurUnet(width, blocks, resolution).eval()
