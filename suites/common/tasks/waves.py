"""Waves on a square: the next field of the wave equation by finite differences, and pulses to begin with."""

from __future__ import annotations

import torch
from torch import Tensor

#: (wave speed x time step / mesh width)^2, below 1/2: explicit differences are stable.
COURANT_SQUARED = 0.25


def step(before: Tensor, now: Tensor) -> Tensor:
    """The field after `now`, [batch, side, side]: central differences in time and space, zero on the edge."""
    padded = torch.nn.functional.pad(now, [1] * 4)
    around = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    return 2 * now - before + COURANT_SQUARED * (around - 4 * now)


def pulses(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Gaussian pulses of random place and width, at rest: [count, side, side]."""
    place = torch.rand(count, 2, 1, 1, generator=generator) * 0.6 + 0.2
    width = torch.rand(count, 1, 1, generator=generator) * 0.06 + 0.06
    line = (torch.arange(side) + 0.5) / side
    apart = (line.view(1, -1, 1) - place[:, 0]).square() + (line.view(1, 1, -1) - place[:, 1]).square()
    return torch.exp(-apart / (2 * width.square()))


def pairs(count: int, side: int, seed: int, most_steps: int = 24) -> tuple[Tensor, Tensor]:
    """Two fields in a row, [count, 2, side, side], and the one that follows, [count, 1, side, side].

    At random times.
    """
    generator = torch.Generator().manual_seed(seed)
    before = pulses(count, side, generator)
    now = before.clone()
    until = torch.randint(0, most_steps, (count, 1, 1), generator=generator)
    for number in range(most_steps):
        after = step(before, now)
        moving = number < until
        before, now = torch.where(moving, now, before), torch.where(moving, after, now)
    return torch.stack((before, now), 1), step(before, now).unsqueeze(1)
