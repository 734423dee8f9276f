"""Waves on a square: the next field of the wave equation by finite differences, and pulses to begin with.

A network is given two fields in a row and gives the one that follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite, logits
from bench.scores import Score, mean
from suites.common.task import TaskError, TrainedTask, content_key
from suites.common.training import Pace, fit

HELD_OUT = 128
#: Seed of the held-out fields, far from those that are learned from.
HELD_OUT_SEED = 1_000_000
#: What a change of the generator counts up, so that weights of other fields are none of these.
GENERATOR = 1

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


@dataclass(frozen=True)
class Training:
    """How a network of fields is trained, on pulses that are all different."""

    steps: int = 600
    batch: int = 16
    rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0


class Waves(TrainedTask):
    """Relative error of the next field over held-out waves; a module takes [batch, 2, side, side]."""

    name = "waves"
    metric = "field_error"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the waves to learn from; held-out ones are the same for every seed.
            training: the recipe; None for the default.
        """
        super().__init__(cache, seed)
        self.training = training or Training()
        self.side = 32

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module says that it takes fields; settles their side."""
        if getattr(module, "takes", None) != "fields":
            raise TaskError(f'model "{model_name}" does not take two fields of a wave: waves is for wave_network')
        self.side = int(module.resolution)  # type: ignore[arg-type]

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train on the squared error of the change, relative to the change's own size; the error of held-out waves."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)

        def loss(given: Tensor, wanted: Tensor) -> Tensor:
            change = wanted - given[:, 1:]
            return F.mse_loss(module(given), wanted) / change.square().mean().clamp_min(1e-12)

        fit(module, self.training_batches(how.batch, how.steps, self.seed), loss, pace)
        with torch.inference_mode():
            return {"test_field_error": self.score(Run(module)).value}

    def data_digest(self) -> str:
        """Hash of the generator's version and the held-out waves' numbers."""
        return content_key({"generator": GENERATOR, "held_out": HELD_OUT, "seed": HELD_OUT_SEED, "side": self.side})

    def recipe(self) -> dict[str, Any]:
        """The training and the side."""
        return {**asdict(self.training), "side": self.side, "courant_squared": COURANT_SQUARED}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out pairs of fields and those that follow."""
        given, wanted = pairs(HELD_OUT, self.side, HELD_OUT_SEED)
        yield from zip(given.split(batch_size), wanted.split(batch_size), strict=True)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of waves that no other step has."""
        for step_number in range(steps):
            yield pairs(batch_size, self.side, (seed * 10_000 + step_number) % HELD_OUT_SEED)

    def score(self, run: Run) -> Score:
        """Of each held-out wave the error's length over the field's, and beside it that of no change at all."""
        seen, values, still = SamplesDigest(), list[float](), list[float]()
        for given, wanted in self.batches(run.batch):
            seen.feed(given, wanted)
            found = logits(run(given)).float().cpu()
            if found.shape != wanted.shape:
                raise QualityError(f"fields of shape {tuple(found.shape)} cannot be scored on {tuple(wanted.shape)}")
            check_finite(found, "the field error", done=len(values))
            size = wanted.flatten(1).norm(dim=1)
            values += ((found - wanted).flatten(1).norm(dim=1) / size).double().tolist()
            still += ((given[:, 1:] - wanted).flatten(1).norm(dim=1) / size).double().tolist()
        return mean("field_error", values, seen.hex(), no_change=sum(still) / len(still))

    def describe(self) -> dict[str, Any]:
        """Name, split, number of waves, hash, their side."""
        return {
            "name": self.name, "n": HELD_OUT, "split": f"{HELD_OUT} made waves, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"side": self.side},
        }  # fmt: skip
