"""SwinIR: pictures enlarged by attention in shifted windows, the light network, a baseline of CFSR. Blocks are timm's.

Source: Liang et al. 2021, SwinIR, arXiv:2108.10257; section 3 and the lightweight setting of section 4.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.timm_bridge import import_timm

#: Of the light network: channels, heads, side of a window, width of an MLP over its channels.
WIDTH, HEADS, WINDOW, MLP_RATIO = 60, 6, 8, 2


class WindowGroup(nn.Module):
    """x + 3x3(blocks of attention in windows, every second one shifted by half a window)."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, size: tuple[int, int]):
        super().__init__()
        block: Any = importlib.import_module("timm.models.swin_transformer").SwinTransformerBlock
        self.blocks = nn.Sequential(
            *(
                block(
                    channels, size, heads, window_size=window, shift_size=window // 2 if place % 2 else 0,
                    always_partition=True, mlp_ratio=MLP_RATIO,
                )
                for place in range(depth)
            )
        )  # fmt: skip
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, channels, height, width]."""
        return x + self.conv(self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class SwinIR(nn.Module):
    """Pictures [batch, 3, height, width] of one size to [batch, 3, scale height, scale width]."""

    def __init__(self, scale: int, width: int, depths: Counts, heads: int, window: int, size: tuple[int, int]):
        super().__init__()
        self.scale, self.window, self.size = scale, window, size
        padded = (-(-size[0] // window) * window, -(-size[1] // window) * window)
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.groups = nn.Sequential(*(WindowGroup(width, depth, heads, window, padded) for depth in depths))
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Sequential(nn.Conv2d(width, 3 * scale * scale, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """The enlarged pictures.

        Raises:
            UsageError: they are of another size than the one that the network was built for.
        """
        height, width = x.shape[-2:]
        if (height, width) != self.size:
            raise UsageError(
                f"this SwinIR holds the masks of its shifted windows for pictures of {self.size[0]} x {self.size[1]}, "
                f"not {height} x {width}: build it for the resolution that it is run at"
            )
        x = F.pad(x, (0, -width % self.window, 0, -height % self.window), mode="reflect")
        shallow = self.enter(x)
        deep = self._normed(self.norm2, self.groups(self._normed(self.norm1, shallow)))
        return self.leave(shallow + self.mix(deep))[..., : height * self.scale, : width * self.scale]

    @staticmethod
    def _normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """Normalised over channels."""
        return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random pictures of the network's size."""
        return (self.enter.weight.new_empty(batch, 3, *self.size).uniform_(),)


def swinir(
    *, scale: PositiveInt = 4, width: PositiveInt = WIDTH, depths: Counts = [6, 6, 6, 6],  # noqa: B006
    heads: PositiveInt = HEADS, window: PositiveInt = WINDOW, wide: bool = False, resolution: PositiveInt = 48,
) -> SwinIR:  # fmt: skip
    """A SwinIR that enlarges in one step at its end, as the light one does.

    Args:
        scale: how much it enlarges.
        width: channels.
        depths: blocks of the groups.
        heads: of the attention, which divide the width.
        window: side of the windows; the pictures are padded by reflection to a multiple of it.
        wide: pictures of 16:9 in place of square ones; the resolution is their height, 180 (x4) or 360 (x2) in the
            published counts.
        resolution: side of the input, at least half a window.

    Raises:
        UsageError: timm is missing, heads do not divide the width, or the pictures are too small to be reflected.
    """
    if width % heads:
        raise UsageError(f"swinir: heads={heads} do not divide width={width}")
    if resolution <= -resolution % window:
        raise UsageError(
            f"swinir: pictures of {resolution} are too small for windows of {window}: take {window} or more"
        )
    import_timm()
    size = (resolution, resolution * 16 // 9 if wide else resolution)
    return at(SwinIR(scale, width, depths, heads, window, size), resolution)
