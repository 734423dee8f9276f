"""A small network of moving pictures: convolutions over space and time, causal, so that it also streams.

There is no padding in time. Frame by frame it keeps what its convolutions over time need of the past and gives what the
whole clip would give, with no product computed twice (after Hedegaard and Iosifidis 2021, "Continual 3D Convolutional
Neural Networks").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = ["MovingCnn", "load_checkpoint", "moving_cnn"]

KERNEL = 3


class Temporal(nn.Sequential):
    """A 3 x 3 x 3 convolution, padded in space alone, with batch normalisation and ReLU."""

    def __init__(self, inner: int, outer: int, stride: int):
        conv = nn.Conv3d(inner, outer, KERNEL, (1, stride, stride), (0, 1, 1), bias=False)
        super().__init__(conv, nn.BatchNorm3d(outer), nn.ReLU())


class MovingCnn(nn.Module):
    """Logits for every frame that has enough frames before it; as a clip (`forward`, `offline`) and as a stream."""

    period = 1
    time_dim = 1
    output_dim = 1

    def __init__(self, width: int, layers: int, resolution: int, channels: int, classes: int):
        super().__init__()
        self.width, self.resolution, self.channels, self.classes = width, resolution, channels, classes
        self.transient = layers * (KERNEL - 1)
        self.window = 4 * (self.transient + 1)
        self.frame = nn.Conv2d(channels, width, 3, 2, 1)
        widths = [width, *([2 * width] * layers)]
        self.temporal = nn.ModuleList(Temporal(widths[i], widths[i + 1], 1 + (i > 0)) for i in range(layers))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits [batch, frames - 2 x layers, classes] of a clip [batch, frames, channels, side, side]."""
        x = F.relu(self.frame(clip.flatten(0, 1))).unflatten(0, clip.shape[:2]).transpose(1, 2)
        for layer in self.temporal:
            x = layer(x)
        return self.head(x.amax(dim=(3, 4)).transpose(1, 2))

    def offline(self, clip: Tensor) -> Tensor:
        """The same, as the workload `stream` calls it."""
        return self(clip)

    def init(self, batch: int) -> list[Tensor | None]:
        """The state before the first frame: per convolution over time, nothing seen yet."""
        del batch  # the first frame tells
        return [None] * len(self.temporal)

    def step(self, x: Tensor, state: list[Tensor | None]) -> tuple[Tensor | None, list[Tensor | None]]:
        """Logits [batch, classes] of one more frame, None while too few have been seen; and the state after it."""
        new, kept = F.relu(self.frame(x))[:, :, None], list(state)
        for place, layer in enumerate(self.temporal):
            past = state[place]
            seen = new if past is None else torch.cat([past, new], dim=2)
            kept[place] = seen[:, :, -(KERNEL - 1) :]
            if seen.shape[2] < KERNEL:
                return None, kept
            new = layer(seen)
        return self.head(new[:, :, 0].amax(dim=(2, 3))), kept

    def example_clip(self, batch: int, length: int) -> Tensor:
        """A bright square that drifts over noise, [batch, length, channels, side, side], the same every time."""
        generator = torch.Generator().manual_seed(0)
        clip = 0.05 * torch.randn(batch, length, self.channels, self.resolution, self.resolution, generator=generator)
        for place in range(length):
            left = place % (self.resolution - 8)
            clip[:, place, :, 4:12, left : left + 8] += 0.5
        return clip.to(self.head.weight)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A clip of the network's window."""
        return (self.example_clip(batch, self.window),)


def moving_cnn(
    *,
    width: PositiveInt = 16,
    layers: PositiveInt = 2,
    resolution: PositiveInt = 32,
    channels: PositiveInt = 1,
    classes: PositiveInt = 20,
) -> MovingCnn:
    """A network of clips and streams, in evaluation mode with random weights.

    Args:
        width: channels of a frame's maps; those of space and time have twice as many.
        layers: convolutions over time; an answer needs 2 x layers frames before its own.
        resolution: side of a square frame in pixels, 16 or more.
        channels: of a frame.
        classes: number of logits.

    Raises:
        ValueError: the frames are too small.
    """
    if resolution < 16:
        raise ValueError(f"resolution={resolution}: frames of 16 pixels or more are wanted")
    return MovingCnn(width, layers, resolution, channels, classes).eval()
