"""A small network of single frames, the plain network of `delta`: convolutions, mean over space, a linear head."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.common.initial import keep_scale
from suites.streaming.frames import Recomputed

__all__ = ["FrameCnn", "frame_cnn", "load_checkpoint"]


class FrameCnn(Recomputed):
    """Logits of one frame [batch, 1, 32, 32]; it has no past, and is `frame` and `clip` in one.

    Attributes:
        noise: standard deviation of the noise of the example frames.
        static: whether the example's digit stands still as well as the camera.
    """

    frames = 1
    #: As for `co3d_tiny`, whose mean over space it has.
    learning_rate = 2e-2

    def __init__(self, width: int, resolution: int, classes: int, noise: float, static: bool):
        super().__init__()
        self.width, self.resolution, self.classes, self.noise, self.static = width, resolution, classes, noise, static
        self.convs = nn.ModuleList(
            nn.Conv2d(inner, outer, 3, stride, 1)
            for inner, outer, stride in ((1, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        )
        keep_scale(self.convs)
        self.head = nn.Linear(2 * width, classes)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Activations behind every convolution, of frames [batch, 1, side, side]."""
        found = []
        for conv in self.convs:
            x = F.relu(conv(x))
            found.append(x)
        return found

    def offline(self, clip: Tensor) -> Tensor:
        """Logits of the last frame of a clip."""
        return self.head(self.maps(clip[:, -1])[-1].mean((2, 3)))

    def forward(self, clip: Tensor) -> Tensor:
        """Logits of every frame, [batch, frames, classes]."""
        maps = self.maps(clip.flatten(0, 1))[-1]
        return self.head(maps.mean((2, 3))).unflatten(0, clip.shape[:2])

    def reference(self, clip: Tensor) -> Tensor:
        """Every frame by itself."""
        return self(clip)

    def effective(self, given: list[Tensor]) -> float:
        """Products on the elements that are not zero, given to each convolution and, behind the last, to the head."""
        masks = [(each != 0).to(each) for each in given]
        total = float(masks[-1].amax((2, 3)).sum()) * self.head.out_features
        for conv, mask in zip(self.convs, masks, strict=False):
            assert isinstance(conv, nn.Conv2d)
            total += fan_out(conv, mask)
        return total

    def dense_macs(self, given: list[Tensor]) -> float:
        """All products, with the zeros around a picture, as every counter has them."""
        total = float(len(given[0]) * self.head.weight.numel())
        for conv, made in zip(self.convs, given[1:], strict=True):
            assert isinstance(conv, nn.Conv2d)
            total += made[:, 0].numel() * conv.weight.numel()
        return total

    def effective_macs(self, x: Tensor, state: object) -> dict[str, float]:
        """Products of the next step per stream: all, and those of inputs that are not zero."""
        del state
        given = [x, *self.maps(x)]
        return {"dense": self.dense_macs(given) / len(x), "spatial": self.effective(given) / len(x)}

    def as_frame(self) -> FrameCnn:
        """A network of the same sizes: there is no past to take away."""
        return FrameCnn(self.width, self.resolution, self.classes, self.noise, self.static)

    def example_clip(self, batch: int, length: int) -> Tensor:
        """A bright square that drifts over noise, or stands still, [batch, length, 1, side, side]."""
        generator = torch.Generator().manual_seed(0)
        clip = self.noise * torch.randn(batch, length, 1, self.resolution, self.resolution, generator=generator)
        side = self.resolution // 4
        for place in range(length):
            left = 0 if self.static else place % (self.resolution - side)
            clip[:, place, :, side : 2 * side, left : left + side] += 0.8
        return clip.to(self.head.weight)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Two frames."""
        return (self.example_clip(batch, 2),)


def fan_out(conv: nn.Conv2d, mask: Tensor) -> float:
    """Products of a convolution on the elements that are marked with 1, all streams of the batch."""
    ones = mask.new_ones(1, mask.shape[1], *conv.kernel_size)
    uses = F.conv2d(mask, ones, None, conv.stride, conv.padding, conv.dilation)
    return float(uses.double().sum()) * conv.out_channels / conv.groups


def frame_cnn(
    *, width: PositiveInt = 8, resolution: PositiveInt = 32, classes: PositiveInt = 20, noise: Rate = 0.05,
    motion: Literal["moving", "static"] = "moving",
) -> FrameCnn:  # fmt: skip
    """The network in evaluation mode with random weights.

    Args:
        width: channels of the first maps; the others have twice as many.
        resolution: side of a frame, a multiple of 4.
        classes: logits; of moving digits 5 are the digit alone, which is all that one frame can tell, 20 digit and way.
        noise: standard deviation of the noise of the frames that it is measured on.
        motion: whether the square of those frames drifts, under a camera that stands still either way.
    """
    return FrameCnn(width, resolution, classes, noise, motion == "static").eval()
