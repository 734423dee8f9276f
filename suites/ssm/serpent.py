"""Serpent: a U-net of four-way scans for restoration, and the same skeleton with other mixers.

Source: Sepehri et al. 2024, Serpent, arXiv:2403.17902: the idea and its claims are the paper's; the table of layers is
rebuilt. Products and states are proportional to the pixels, with no term that is independent of them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from bench.errors import UsageError
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import at
from suites.ssm.mixers import matched_count, mixer_block
from suites.ssm.scan_network import ScanNetwork
from suites.ssm.ss2d import PatchMerging

__all__ = ["Serpent", "load_checkpoint", "serpent"]

#: Width, patch, and blocks of each level: encoder and decoder alike, the last is the bottleneck.
SIZES = {
    "tiny": (16, 2, [1, 1, 1]),
    "c48_p1": (48, 1, [2, 2, 2, 2]),
    "c48_p2": (48, 2, [2, 2, 2, 2]),
    "c48_p4": (48, 4, [2, 2, 2, 2]),
}


class Enlarge(nn.Module):
    """C -> 2 C without bias, pixels out of channels (C / 2 at twice the side), LayerNorm."""

    def __init__(self, channels: int):
        super().__init__()
        self.widen = nn.Linear(channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 2 height, 2 width, C / 2]."""
        return self.norm(unpatched(self.widen(x), 2))


def unpatched(x: Tensor, side: int) -> Tensor:
    """[batch, side x height, side x width, C / side^2] of channels-last maps."""
    return F.pixel_shuffle(x.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)


def mirrored(pictures: Tensor, height: int, width: int) -> Tensor:
    """Pictures continued below and to the right as in mirrors, there and back again where they are small."""
    for axis, whole in ((2, height), (3, width)):
        turn = max(1, 2 * (pictures.shape[axis] - 1))
        place = torch.arange(whole, device=pictures.device) % turn
        pictures = pictures.index_select(axis, torch.minimum(place, turn - place))
    return pictures


class Join(nn.Module):
    """The enlarged map beside the encoder's, C -> C / 2 with bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.enlarge = Enlarge(channels)
        self.reduce = nn.Linear(channels, channels // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """A map of the skip's shape."""
        return self.reduce(torch.cat([self.enlarge(x), skip], dim=-1))


class Serpent(ScanNetwork):
    """Patches, levels of blocks with merging, a bottleneck, the way back with skips, plus the input itself."""

    scale = 1

    def __init__(self, width: int, patch: int, blocks: list[int], make: dict[str, object]):
        super().__init__()
        self.patch, self.levels = patch, len(blocks)
        self.embed = nn.Conv2d(3, width, patch, patch)
        widths = [width << level for level in range(self.levels)]
        stage = [_stage(wide, count, make) for wide, count in zip(widths, blocks, strict=True)]
        self.encoder = nn.ModuleList(stage[:-1])
        self.bottleneck = stage[-1]
        self.merge = nn.ModuleList(PatchMerging(wide) for wide in widths[:-1])
        self.join = nn.ModuleList(Join(wide) for wide in widths[:0:-1])
        back = list(zip(widths[-2::-1], blocks[-2::-1], strict=True))
        self.decoder = nn.ModuleList(_stage(wide, count, make) for wide, count in back)
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, 3 * patch**2)

    def forward(self, pictures: Tensor) -> Tensor:
        """Restored pictures of the same shape; sides that do not divide are reflected at the edge and cropped."""
        height, width = pictures.shape[2:]
        multiple = self.patch << (self.levels - 1)
        down, right = -height % multiple, -width % multiple
        if down >= height or right >= width:
            whole = mirrored(pictures, height + down, width + right)
        else:
            whole = F.pad(pictures, (0, right, 0, down), mode="reflect") if down or right else pictures
        x, skips = self.embed(whole).permute(0, 2, 3, 1), []
        for stage, merge in zip(self.encoder, self.merge, strict=True):
            x = stage(x)
            skips.append(x)
            x = merge(x)
        x = self.bottleneck(x)
        for join, stage in zip(self.join, self.decoder, strict=True):
            x = stage(join(x, skips.pop()))
        change = unpatched(self.leave(self.norm(x)), self.patch).permute(0, 3, 1, 2)
        return pictures + change[:, :, :height, :width]


def _stage(channels: int, count: int, make: dict[str, object]) -> nn.Sequential:
    """Blocks of a level; of other mixers as many as come nearest to the parameters of the scans."""
    kind = str(make["mixer"])
    matched = count if not make["matched"] else matched_count(kind, channels, count)
    return nn.Sequential(
        *(mixer_block(kind, channels, str(make["scan"]), bool(make["raster4"])) for _ in range(matched))
    )


def serpent(
    *,
    size: Literal["tiny", "c48_p1", "c48_p2", "c48_p4"] = "c48_p4",
    mixer: Literal["scan", "long", "conv", "window", "global", "mdta"] = "scan",
    matched: bool = True,
    scan: str = "parallel",
    order: Literal["paper", "raster4"] = "paper",
    width: PositiveInt | None = None,
    patch: PositiveInt | None = None,
    blocks: Blocks | None = None,
    resolution: PositiveInt | None = None,
) -> Serpent:
    """A restoration network in evaluation mode with random weights.

    Args:
        size: width, patch and blocks.
        mixer: what the blocks are: four-way scans, long convolutions along the same paths, depthwise 7x7 layers,
            attention in windows of 8 x 8, attention over all tokens, or attention between channels.
        matched: whether other mixers get as many blocks as come nearest to the parameters of the scans, at each level.
        scan: form of the scan: sequential, parallel, chunk=c, mamba_ssm, or the control identity.
        order: the paper's paths, or the control whose four scans all read in raster order.
        width: channels of the first level in place of the size's, a multiple of 2.
        patch: side of a token in pixels.
        blocks: of each level, in encoder and decoder alike; the last is the bottleneck.
        resolution: side of the example input in pixels; any other will do.

    Raises:
        UsageError: no such form of scan, an odd width, or a scan's control for another mixer.
    """
    wide, side, counts = width or SIZES[size][0], patch or SIZES[size][1], blocks or SIZES[size][2]
    if wide % 2:
        raise UsageError(f"serpent: width={wide} must be even")
    if mixer != "scan" and (scan != "parallel" or order != "paper"):
        raise UsageError(f"serpent: scan and order are of mixer=scan, and this one is {mixer}")
    make: dict[str, object] = {"mixer": mixer, "matched": matched, "scan": scan, "raster4": order == "raster4"}
    return at(Serpent(wide, side, counts, make), resolution or (64 if size == "tiny" else 256))
