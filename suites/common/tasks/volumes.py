"""Noisy ellipsoids in volumes, made from seeds: to be told from their background, voxel by voxel.

Each volume holds one to three ellipsoids of random place, axes and brightness on a background with smooth and with
white noise, weak enough against it that a single voxel says little.
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
from suites.common.training import Loss, Pace, fit

HELD_OUT = 48
#: Seeds of held-out volumes start here, far from those that are learned from.
HELD_OUT_SEED = 1_000_000
#: What a change of the generator counts up, so that weights of other volumes are none of these.
GENERATOR = 1


@dataclass(frozen=True)
class Training:
    """How a network is trained on volumes that are all different."""

    steps: int = 150
    batch: int = 2
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 1.0


def volumes(count: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Volumes [count, 1, side, side, side] and their foreground [count, side, side, side], each from its own seed."""
    made = [_volume(side, torch.Generator().manual_seed(seed + i)) for i in range(count)]
    return torch.stack([volume for volume, _ in made]), torch.stack([mask for _, mask in made])


def _volume(side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1, 1, side)
    places = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)
    inside, brightness = torch.zeros(side, side, side, dtype=torch.bool), torch.zeros(side, side, side)
    for _ in range(int(torch.randint(1, 4, (1,), generator=generator))):
        centre = 1.2 * torch.rand(3, generator=generator) - 0.6
        axes = 0.2 + 0.3 * torch.rand(3, generator=generator)
        own = ((places - centre) / axes).square().sum(-1) < 1
        brightness = torch.where(own, 0.6 + 0.6 * torch.rand(1, generator=generator), brightness)
        inside |= own
    coarse = torch.randn(1, 1, 4, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, size=(side, side, side), mode="trilinear", align_corners=False)[0, 0]
    noisy = brightness + 0.3 * smooth + 0.6 * torch.randn(side, side, side, generator=generator)
    return noisy[None], inside.long()


class Volumes(TrainedTask):
    """Dice of held-out volumes; a module says its `side` and gives two classes, or a list with the finest first."""

    name = "volumes"
    metric = "dice"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the volumes to learn from; held-out ones are the same for every seed.
            training: the recipe; None for the default.
        """
        super().__init__(cache, seed)
        self.training = training or Training()
        self.side = 32

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module takes one channel and gives two classes; settles the side."""
        if getattr(module, "channels", 1) != 1 or getattr(module, "classes", 2) != 2:
            raise TaskError(f'model "{model_name}" must take channels=1 and give classes=2: foreground and background')
        self.side = int(getattr(module, "side", 32))

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the module; the Dice of the held-out volumes."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        fit(module, self.training_batches(how.batch, how.steps, self.seed), voxelwise(module), pace)
        with torch.inference_mode():
            return {"test_dice": self.score(Run(module, batch=how.batch)).value}

    def data_digest(self) -> str:
        """Hash of the generator's version and the numbers of held-out volumes: the volumes follow from seeds."""
        return content_key({"generator": GENERATOR, "held_out": HELD_OUT, "seed": HELD_OUT_SEED, "side": self.side})

    def recipe(self) -> dict[str, Any]:
        """The training and the side."""
        return {**asdict(self.training), "side": self.side}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out volumes and their foreground."""
        for first in range(0, HELD_OUT, batch_size):
            yield volumes(min(batch_size, HELD_OUT - first), self.side, HELD_OUT_SEED + first)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of volumes that no other step has."""
        for step in range(steps):
            yield volumes(batch_size, self.side, (seed * 1000 + step) * batch_size % HELD_OUT_SEED)

    def score(self, run: Run) -> Score:
        """Dice of each held-out volume."""
        seen, values = SamplesDigest(), list[float]()
        for given, wanted in self.batches(min(run.batch, 8)):
            seen.feed(given, wanted)
            answer = run(given)
            made = logits(answer[0] if isinstance(answer, list | tuple) else answer).float().cpu()
            if made.shape != (len(given), 2, *wanted.shape[1:]):
                raise QualityError(
                    f"logits of shape {tuple(made.shape)} cannot be scored on volumes {tuple(wanted.shape)}"
                )
            check_finite(made, "the Dice", done=len(values))
            values += dice(made.argmax(1), wanted)
        return mean("dice", values, seen.hex())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of volumes, hash, what they are."""
        return {
            "name": self.name, "n": HELD_OUT,
            "split": f"{HELD_OUT} made volumes of noisy ellipsoids, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"side": self.side},
        }  # fmt: skip


def dice(found: Tensor, wanted: Tensor) -> list[float]:
    """2 |A and B| / (|A| + |B|) of each volume; 1 where both are empty."""
    both = ((found > 0) & (wanted > 0)).flatten(1).sum(1).double()
    sizes = (found > 0).flatten(1).sum(1).double() + (wanted > 0).flatten(1).sum(1).double()
    return torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), 1.0).tolist()


def voxelwise(module: nn.Module) -> Loss:
    """The module's own loss where it has one (heads of several sides), else cross-entropy of its logits."""
    own = getattr(module, "loss", None)

    def loss(given: Tensor, wanted: Tensor) -> Tensor:
        outputs = module(given)
        return own(outputs, wanted) if own is not None else F.cross_entropy(outputs, wanted)

    return loss
