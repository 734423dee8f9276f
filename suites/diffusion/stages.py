"""Stages of a chain at resolutions of their own: their times, resizing, and fresh noise between them.

Ours: fresh noise is the first noise with its values moved to other places and their signs drawn anew, the same for
every image, so that a picture depends on its own noise alone; and resizing keeps the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Of a square picture, or rows and columns.
Side = int | tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """Steps at one resolution: share of the full side, steps, and how far above its start the noise is put back."""

    scale: float
    steps: int
    strength: float
    shift: float


def grids(stages: Sequence[Stage], shift: float) -> list[list[float]]:
    """The times of every stage, of steps + 1 each; a stage begins at its strength above where the one before ended.

    Args:
        stages: in order, from noise to pictures.
        shift: of the network's own grid, under that of each stage.

    Raises:
        ValueError: a stage would end above where it begins.
    """
    total, done, left, found = sum(stage.steps for stage in stages), 0, 1.0, list[list[float]]()
    for number, stage in enumerate(stages):
        both = shift * stage.shift  # a shift of a shift is their product, and 1 / s undoes s
        begin = _shifted(left + (stage.strength * (1 - left) if done else 0.0), 1 / both)
        done += stage.steps
        end = 1 - done / total
        if end >= begin:
            raise ValueError(
                f"stage {number + 1} would begin at time {_shifted(begin, both):.3g} and end at "
                f"{_shifted(end, both):.3g}: choose a shift below {stage.shift:g} for it, or a greater strength"
            )
        even = [begin + (end - begin) * place / stage.steps for place in range(stage.steps + 1)]
        found.append([_shifted(t, both) for t in even])
        left = found[-1][-1]
    return found


def _shifted(t: float, shift: float) -> float:
    return shift * t / (1 + (shift - 1) * t)


def pair(side: Side) -> tuple[int, int]:
    """Rows and columns."""
    return (side, side) if isinstance(side, int) else side


def resized(x: Tensor, side: Side) -> Tensor:
    """Pictures at another side, bilinear downwards and nearest upwards, with the mean of every channel kept.

    Frames of videos [batch, channels, frames, rows, columns] are pictures of their own.
    """
    size = pair(side)
    if size == tuple(x.shape[-2:]):
        return x
    flat = x.flatten(1, -3)
    if size[0] < x.shape[-2]:
        new = F.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=True)
    else:
        new = F.interpolate(flat, size=size, mode="nearest")
    new = new + (flat.mean(dim=(2, 3), keepdim=True) - new.mean(dim=(2, 3), keepdim=True))
    return new.reshape(*x.shape[:-2], *size)


def fresh_noise(noise: Tensor, side: Side, seed: int) -> Tensor:
    """Noise of the same shape but for its side: values of `noise` at drawn places with drawn signs.

    Places and signs are the same for all images. Standard normal like `noise`; on average over places it is
    uncorrelated with it.
    """
    shape = (*noise.shape[:-2], *pair(side))
    count, wanted = noise[0].numel(), math.prod(shape[1:])
    generator = torch.Generator(device="cpu").manual_seed(7919 * (seed + 1))
    with torch.device("cpu"):
        places = torch.randperm(count, generator=generator)[:wanted]
        signs = 2.0 * torch.randint(2, (wanted,), generator=generator) - 1
    drawn = noise.flatten(1)[:, places.to(noise.device)] * signs.to(noise)
    return drawn.reshape(shape)
