"""A diffusion transformer for short videos: every token of every frame sees every other; no patch spans two frames.

The blocks are those of `suites.common.dit`; a token knows its frame and its place in it. Videos here are digits that
a shift of one pixel a frame carries around the picture, so that frames tell of each other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.dit import Dit, block_macs
from suites.common.rectified_flow import noise

__all__ = ["VideoDit", "load_checkpoint", "video_dit"]


class VideoDit(Dit):
    """Velocities of videos [batch, channels, frames, side, side]; any number of frames."""

    def __init__(self, *, frames: int, **settings: int | float):
        super().__init__(**settings)  # type: ignore[arg-type]
        self.frames = frames

    def velocity(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """Velocities of the same shape."""
        condition = self.condition(t, classes)
        return self.as_video(self.last(self.through(self.video_tokens(x), condition), condition), x.shape[2])

    def video_tokens(self, x: Tensor, first: int = 0) -> Tensor:
        """Tokens frame by frame, [batch, frames x places, width]; the first frame is number `first` of the whole."""
        frames = self.embedded(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
        return (frames + frame_positions(first, x.shape[2], self.width, frames)).flatten(1, 2)

    def as_video(self, pixels: Tensor, frames: int) -> Tensor:
        """Pixels of tokens as videos, [batch, channels, frames, side, side]."""
        batch = len(pixels)
        places = pixels.unflatten(1, (frames, -1)).flatten(0, 1)
        return self.unpatched(places, round(places.shape[1] ** 0.5)).unflatten(0, (batch, frames)).transpose(1, 2)

    @property
    def places(self) -> int:
        """Tokens of a frame."""
        return (self.resolution // self.patch) ** 2

    def evaluation_macs(self, side: int) -> int:
        """MACs of all frames at a side in pixels."""
        return self.tokens_macs(self.frames * (side // self.patch) ** 2)

    def tokens_macs(self, n: int) -> int:
        """MACs of n tokens through the whole network."""
        return len(self.blocks) * block_macs(n, self.width, self.ratio) + self.ends_macs(n)

    def example_noise(self, batch: int, seed: int) -> Tensor:
        """Noise of each video's own, by seed and index."""
        return noise(range(batch), seed, (self.channels, self.frames, self.resolution, self.resolution))


def frame_positions(first: int, frames: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of frame numbers, [1, frames, 1, width]."""
    half = width // 2
    number = torch.arange(first, first + frames, device=like.device, dtype=torch.float32)
    rates = torch.exp(-math.log(100.0) * torch.arange(half, device=like.device, dtype=torch.float32) / half)
    angles = number[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)[None, :, None]


def video_dit(
    *,
    width: PositiveInt = 64,
    heads: PositiveInt = 4,
    depth: PositiveInt = 4,
    patch: PositiveInt = 2,
    resolution: PositiveInt = 8,
    frames: PositiveInt = 8,
    classes: PositiveInt = 10,
) -> VideoDit:
    """A video transformer in evaluation mode with random weights.

    Args:
        width: features per token; a multiple of 4 and of `heads`.
        heads: attention heads per block.
        depth: number of blocks.
        patch: side of a patch in pixels; divides `resolution`.
        resolution: side of a frame in pixels.
        frames: of a video.
        classes: that videos may be asked for, beside the empty one.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads or width % 4:
        raise ValueError(f"width={width} must be a multiple of 4 and of heads={heads}")
    if resolution % patch:
        raise ValueError(f"resolution={resolution} is not a multiple of patch={patch}")
    return VideoDit(
        frames=frames, width=width, heads=heads, depth=depth, patch=patch, resolution=resolution, channels=1,
        classes=classes, ratio=4.0,
    ).eval()  # fmt: skip
