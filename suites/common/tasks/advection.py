"""Fields that a fixed flow carries along: weather small enough to be made and learned in a minute.

Random smooth fields on a sphere's grid, periodic in both directions, are moved by a steady flow: faster in the middle
rows, each variable with a lag of its own. The network is told the lead time, 6, 12 or 24 hours, and gives the
difference.
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

HELD_OUT = 96
HELD_OUT_SEED = 1_000_000
HOURS = (6, 12, 24)
#: Columns that the fastest rows move in an hour.
SPEED = 0.08
GENERATOR = 1


@dataclass(frozen=True)
class Training:
    """How a forecaster is trained."""

    steps: int = 1000
    batch: int = 8
    rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 1.0


def fields(count: int, variables: int, high: int, wide: int, seed: int) -> Tensor:
    """Smooth random fields [count, variables, high, wide] of mean 0 and variance 1, each from a seed of its own."""
    made = [torch.randn(variables, high, wide, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]
    spectrum = torch.fft.rfft2(torch.stack(made))
    rows, columns = torch.fft.fftfreq(high) * high, torch.arange(wide // 2 + 1)
    damped = spectrum / (1 + (rows[:, None].square() + columns.square()) / 4)
    if wide % 2 == 0:
        damped[..., -1] = 0  # the fastest wave cannot be moved by part of a column and back
    smooth = torch.fft.irfft2(damped, s=(high, wide))
    return (smooth - smooth.mean((-2, -1), keepdim=True)) / smooth.std((-2, -1), keepdim=True)


def carried(start: Tensor, hours: Tensor) -> Tensor:
    """The fields after hours [count] of the flow, moved along rows by a turn of their spectrum.

    A row moves at SPEED x cos of its latitude columns an hour, a variable v by a factor 1 + v / (2 variables) faster.
    """
    variables, high, wide = start.shape[1:]
    latitude = (torch.arange(high) + 0.5) / high * torch.pi - torch.pi / 2
    faster = 1 + torch.arange(variables) / (2 * variables)
    moved = SPEED * hours[:, None, None] * faster[:, None] * latitude.cos()
    turn = torch.exp(-2j * torch.pi * torch.arange(wide // 2 + 1) / wide * moved[..., None])
    return torch.fft.irfft(torch.fft.rfft(start) * turn, n=wide)


class Advection(TrainedTask):
    """Error of forecasts of 24 hours over that of no forecast; a module says `variables`, `high` and `wide`."""

    name = "advection"
    metric = "forecast_error"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None, step: int = 6):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the fields to learn from; held-out ones are the same for every seed.
            training: the recipe; None for the default.
            step: hours of a step by which 24 hours are rolled out: 6, 12 or 24.

        Raises:
            TaskError: another step.
        """
        super().__init__(cache, seed)
        if step not in HOURS:
            raise TaskError(f"step={step}: forecasts are rolled out by steps of {HOURS} hours")
        self.training, self.step = training or Training(), step
        self.shape = (8, 16, 32)

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module says its grid; settles it."""
        missing = [name for name in ("variables", "high", "wide") if not hasattr(module, name)]
        if missing:
            raise TaskError(
                f'model "{model_name}" does not say its {", ".join(missing)}: advection is for forecasters on a grid'
            )
        self.shape = (int(module.variables), int(module.high), int(module.wide))  # type: ignore[arg-type]

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the module on differences over 6, 12 and 24 hours; the errors of the three ways to 24 hours."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        generator = torch.Generator().manual_seed(self.seed)

        def loss(start: Tensor, _: Tensor) -> Tensor:
            hours = torch.tensor(HOURS)[torch.randint(3, (len(start),), generator=generator)].float()
            return F.mse_loss(module(start, hours / 10), carried(start, hours) - start)

        fit(module, self.training_batches(how.batch, how.steps, self.seed), loss, pace)
        with torch.inference_mode():
            return {f"test_error_by_{step}_hours": _error(Run(module), self, step) for step in HOURS}

    def data_digest(self) -> str:
        """Hash of the generator's version and the numbers of held-out fields."""
        return content_key(
            {"generator": GENERATOR, "held_out": HELD_OUT, "seed": HELD_OUT_SEED, "shape": list(self.shape)}
        )

    def recipe(self) -> dict[str, Any]:
        """The training and the grid; the step is how it is judged, and no part of it."""
        return {**asdict(self.training), "shape": list(self.shape), "speed": SPEED}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out fields and what the flow makes of them in 24 hours."""
        for first in range(0, HELD_OUT, batch_size):
            start = fields(min(batch_size, HELD_OUT - first), *self.shape, HELD_OUT_SEED + first)
            yield start, carried(start, torch.full((len(start),), 24.0))

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of fields that no other step has, with themselves 24 hours later."""
        for step in range(steps):
            start = fields(batch_size, *self.shape, (seed * 1000 + step) * batch_size % HELD_OUT_SEED)
            yield start, carried(start, torch.full((len(start),), 24.0))

    def score(self, run: Run) -> Score:
        """Error of each held-out field by steps of `step` hours; the other two ways beside it."""
        values, digest = _errors(run, self, self.step)
        return mean("forecast_error", values, digest, step=self.step)

    def describe(self) -> dict[str, Any]:
        """Name, split, number of fields, hash, how they are rolled out."""
        return {
            "name": self.name, "n": HELD_OUT,
            "split": f"{HELD_OUT} made fields under a fixed flow, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"shape": list(self.shape), "hours": 24, "step": self.step},
        }  # fmt: skip


def _errors(run: Run, task: Advection, step: int) -> tuple[list[float], str]:
    """Of each held-out field the error over that of no forecast, and the hash of what was scored."""
    seen, values = SamplesDigest(), list[float]()
    for start, wanted in task.batches(min(run.batch, 32)):
        seen.feed(start, wanted)
        now = start
        for _ in range(24 // step):
            change = logits(run(now, torch.full((len(now),), step / 10))).float().cpu()
            if change.shape != now.shape:
                raise QualityError(
                    f"differences of shape {tuple(change.shape)} cannot be added to fields {tuple(now.shape)}"
                )
            check_finite(change, "the forecast", done=len(values))
            now = now + change
        missed, plain = ((x - wanted).square().flatten(1).mean(1).sqrt() for x in (now, start))
        values += (missed / plain).double().tolist()
    return values, seen.hex()


def _error(run: Run, task: Advection, step: int) -> float:
    values, _ = _errors(run, task, step)
    return sum(values) / len(values)
