"""P3D: 3x3x3 convolutions cut into one over space and one over time, put together in three ways.

Source: Qiu et al. 2017, Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks, arXiv:1711.10305;
section 3.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError

WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
ORDER = "ABC"
#: Frames: each of the first pool and the three behind stages halves them, and none may vanish.
FRAMES = 16


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)
) -> nn.Module:
    pad = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Sequential(nn.Conv3d(inputs, outputs, kernel, stride, pad, bias=False), nn.BatchNorm3d(outputs))


class Block(nn.Module):
    """1x1x1, the middle, 1x1x1, and a shortcut; the spatial stride is in the first layer.

    `A` is T(S x), `B` S x + T x, `C` S x + T(S x), with S of 1x3x3 and T of 3x1x1; `2d` is S alone, `3d` one of 3x3x3.
    """

    def __init__(self, inputs: int, width: int, kind: str, stride: int):
        super().__init__()
        outputs, step = EXPANSION * width, (1, stride, stride)
        self.kind = kind
        self.enter = _conv(inputs, width, (1, 1, 1), step)
        self.space = _conv(width, width, (3, 3, 3) if kind == "3d" else (1, 3, 3))
        self.time = _conv(width, width, (3, 1, 1)) if kind in ORDER else None
        self.leave = _conv(width, outputs, (1, 1, 1))
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else _conv(inputs, outputs, (1, 1, 1), step)

    def middle(self, x: Tensor) -> Tensor:
        """The two (or one) layers between the 1x1x1 ones."""
        space = self.space(x).relu()
        if self.time is None:
            return space
        if self.kind == "A":
            return self.time(space).relu()
        return space + self.time(x if self.kind == "B" else space).relu()

    def forward(self, x: Tensor) -> Tensor:
        """Clips [batch, channels, frames, h, w]."""
        y = self.leave(self.middle(self.enter(x).relu()))
        return (y + self.shortcut(x)).relu()


class P3d(nn.Module):
    """Clips [batch, 3, frames, h, w] to logits."""

    def __init__(self, depths: list[int], arrangement: str, frames: int, classes: int):
        super().__init__()
        self.frames = frames
        self.stem = nn.Sequential(
            _conv(3, 64, (1, 7, 7), (1, 2, 2)), nn.ReLU(), nn.MaxPool3d((2, 3, 3), 2, padding=(0, 1, 1))
        )
        stages, before, number = [], 64, 0
        for place, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            blocks: list[nn.Module] = []
            for inside in range(depth):
                kind = "2d" if place == len(WIDTHS) - 1 else _kind(arrangement, number)
                blocks.append(Block(before, width, kind, 2 if place and not inside else 1))
                before, number = EXPANSION * width, number + 1
            halve = [nn.MaxPool3d((2, 1, 1), (2, 1, 1))] if place < len(WIDTHS) - 1 else []
            stages.append(nn.Sequential(*blocks, *halve))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        return self.head(self.stages(self.stem(x)).mean((2, 3, 4)))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random clips."""
        side = int(self.resolution)  # type: ignore[arg-type]
        return (torch.randn(batch, 3, self.frames, side, side, device=self.head.weight.device),)


def _kind(arrangement: str, number: int) -> str:
    """The arrangement of a block: the three in turn, or the same everywhere."""
    return ORDER[number % len(ORDER)] if arrangement == "mixed" else arrangement


def p3d(
    *, depths: Counts = [3, 4, 6, 3], arrangement: Literal["mixed", "A", "B", "C", "2d", "3d"] = "mixed",  # noqa: B006
    frames: PositiveInt = FRAMES, classes: PositiveInt = 400, resolution: PositiveInt = 160,
) -> P3d:  # fmt: skip
    """A pseudo-3D residual network of clips [batch, 3, frames, resolution, resolution].

    Args:
        depths: blocks of the four stages; 3 4 6 3 is P3D-63, 3 4 23 3 P3D-131, 3 8 36 3 P3D-199.
        arrangement: `mixed` takes A, B and C in turn; one of them, `2d` (frame by frame) or `3d` (3x3x3) is everywhere.
        frames: of a clip, at least 16: time is halved four times.
        classes: logits.
        resolution: side of a frame.

    Raises:
        UsageError: depths are not of four stages, or there are too few frames.
    """
    if len(depths) != 4:
        raise UsageError(f"p3d: depths={depths} must name four stages")
    if frames < FRAMES:
        raise UsageError(f"p3d: frames={frames}: time is halved four times, so that fewer than {FRAMES} frames vanish")
    network = P3d(list(depths), arrangement, frames, classes).eval()
    network.resolution = resolution  # type: ignore[assignment]
    return network
