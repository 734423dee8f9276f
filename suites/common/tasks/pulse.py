"""A pulse whose rate wanders: which was its mean over the last eight seconds? Made signals at 32 Hz.

A fundamental of 0.8 to 3 Hz that wanders, its second harmonic, drift, and bursts of noise. The answer is the mean
frequency of the last 8 s in beats per minute, at every step of a stream of windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite
from bench.scores import Score, mean
from suites.common.task import TaskError, TrainedTask, content_key
from suites.common.training import Pace, fit

RATE_HZ = 32
SECONDS = 8
HELD_OUT = 32
#: Seed of the held-out signals, far from those that are learned from.
HELD_OUT_SEED = 1_000_000
GENERATOR = 1
#: Beats per minute that a network's 0 stands for, and those of a step of 1.
MIDDLE, SPREAD = 114.0, 38.0


def signals(count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Signals [count, 1, length] and the mean rate of the last 8 s at every sample [count, length], per minute."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    # a walk that is turned back at both ends
    wander = 0.8 + 2.2 * uniform(count, 1) + (0.02 * normal(count, length)).cumsum(1)
    folded = (wander - 0.8).remainder(4.4)
    frequency = 0.8 + torch.minimum(folded, 4.4 - folded)
    phase = 2 * torch.pi * (uniform(count, 1) + frequency.cumsum(1) / RATE_HZ)
    drift = 0.5 * (2 * torch.pi * (0.1 * torch.arange(length) / RATE_HZ + uniform(count, 1))).sin()
    bursts = F.interpolate((uniform(count, 1, -(-length // RATE_HZ)) < 0.15).float(), scale_factor=RATE_HZ)[
        :, 0, :length
    ]
    noise = (0.1 + 0.8 * bursts) * normal(count, length)
    signal = phase.sin() + 0.4 * (2 * phase + 2 * torch.pi * uniform(count, 1)).sin() + drift + noise
    window = SECONDS * RATE_HZ
    mean_rate = F.avg_pool1d(F.pad(frequency[:, None], (window - 1, 0), mode="replicate"), window, 1)[:, 0]
    return signal[:, None], 60.0 * mean_rate


@dataclass(frozen=True)
class Training:
    """How a network of windows is trained; `length` samples a signal, enough for a window and its padding."""

    steps: int = 500
    batch: int = 32
    length: int = 640
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


class Pulse(TrainedTask):
    """Mean absolute error of the rate over held-out signals, of a stream of windows."""

    name = "pulse"
    metric = "rate_error"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None, seconds: int = 40):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the signals to learn from; held-out ones are the same for every seed.
            training: the recipe; None for the default.
            seconds: of a held-out signal.
        """
        super().__init__(cache, seed)
        self.training, self.seconds = training or Training(), seconds

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module takes windows of one channel at 32 Hz and gives one number."""
        if getattr(module, "sampled_hz", None) != RATE_HZ or getattr(module, "channels", None) != 1:
            raise TaskError(f'model "{model_name}" takes no signal of one channel at {RATE_HZ} Hz: pulse is for ppg')

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train on the rate at the end of each signal; the error of held-out ones."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)

        def loss(given: Tensor, wanted: Tensor) -> Tensor:
            return F.l1_loss(module(given)[:, 0], (wanted[:, -1] - MIDDLE) / SPREAD)

        losses = fit(module, self.training_batches(how.batch, how.steps, self.seed), loss, pace)
        with torch.inference_mode():
            return {
                "train_loss": sum(losses[-20:]) / len(losses[-20:]),
                "test_rate_error": self.score(Run(module)).value,
            }

    def data_digest(self) -> str:
        """Hash of the generator's version and the held-out signals' numbers."""
        return content_key({"generator": GENERATOR, "held_out": HELD_OUT, "seed": HELD_OUT_SEED})

    def recipe(self) -> dict[str, Any]:
        """The training and the length of what is held out."""
        return {**asdict(self.training), "seconds": self.seconds}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out signals and the rate at every sample."""
        given, wanted = signals(HELD_OUT, self.seconds * RATE_HZ, HELD_OUT_SEED)
        yield from zip(given.split(batch_size), wanted.split(batch_size), strict=True)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of signals that no other step has."""
        for number in range(steps):
            yield signals(batch_size, self.training.length, (seed * 10_000 + number) % HELD_OUT_SEED)

    def score(self, run: Run) -> Score:
        """The mean over steps of each held-out signal, in beats per minute; `curve` is the mean at each step."""
        seen, wrong = SamplesDigest(), list[Tensor]()
        for given, wanted in self.batches(run.batch):
            seen.feed(given, wanted)
            places, said = _streamed(run.module, run.send(given))
            check_finite(said, "the rate", done=sum(map(len, wrong)))
            wrong.append((MIDDLE + SPREAD * said - wanted[:, places]).abs().double())
        errors = torch.cat(wrong)
        return mean("rate_error", errors.mean(1).tolist(), seen.hex(), curve=errors.mean(0).tolist())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of signals, hash, their length."""
        return {
            "name": self.name, "n": HELD_OUT, "split": f"{HELD_OUT} made signals, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"seconds": self.seconds, "rate_hz": RATE_HZ},
        }  # fmt: skip


def _streamed(module: Any, signal: Tensor) -> tuple[list[int], Tensor]:
    """The last samples of the steps that answer from the transient on, and the answers [batch, answers]."""
    hop, state = int(module.hop), module.init(len(signal))
    places, said = list[int](), list[Tensor]()
    for number in range(signal.shape[2] // hop):
        answer, state = module.step(signal[:, :, number * hop : (number + 1) * hop], state)
        if answer is not None and number >= int(getattr(module, "transient", 0)):
            places.append((number + 1) * hop - 1)
            said.append(answer[:, 0].float().cpu())
    if not said:
        raise QualityError(f"the stream gave no answer in {signal.shape[2]} samples")
    return places, torch.stack(said, dim=1)
