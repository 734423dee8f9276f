"""Real photographs: the two that scikit-learn ships, cut into tiles, to be enlarged or freed of grain.

The left three quarters of each are there to learn from, the right quarter is held out. What the module must do follows
from its `scale`: above 1 it enlarges pictures that were averaged down, at 1 it removes grain that was drawn from a
seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache as remember
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.flags import flag
from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite, logits
from bench.scores import Score, mean
from bench.statistics import mean_interval
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Loss, Pace, fit

LEARNED = 0.75


@dataclass(frozen=True)
class Training:
    """How a restorer is trained, on random squares of `side` pixels."""

    steps: int = 600
    batch: int = 16
    side: int = 32
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0


@remember
def photographs() -> tuple[tuple[Tensor, ...], str]:
    """The photographs [3, height, width] in 0..1, and the hash of their pixels."""
    from sklearn.datasets import load_sample_images

    images = load_sample_images().images
    digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()[:16]
    with torch.inference_mode(
        False
    ):  # kept for the whole process, and learned from even if first asked for to be scored
        return tuple(torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in images), digest


class Photos(TrainedTask):
    """PSNR over held-out tiles of what a module makes of them; a module says its `scale` (1: grain is removed)."""

    name = "photos"
    metric = "psnr_db"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None, tile: int = 48, grain: float = 0.1):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the squares to learn from; grain on the held-out tiles is the same for every seed.
            training: the recipe; None for the default.
            tile: side of a held-out tile in pixels.
            grain: standard deviation of the grain, of pixels in 0..1.

        Raises:
            TaskError: tiles that are larger than what is held out.
        """
        super().__init__(cache, seed)
        if not 8 <= tile <= 160:
            raise TaskError(f"tile={tile}: the held-out quarter of a photograph is 160 pixels wide; take 8 to 160")
        self.training = training or Training()
        self.tile, self.grain, self.scale = tile, grain, 1

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless tiles and squares can be divided by the module's scale; settles the scale."""
        self.scale = int(getattr(module, "scale", 1))
        if self.scale < 1 or self.tile % self.scale or self.training.side % self.scale:
            raise TaskError(
                f'model "{model_name}" has scale={self.scale}, which divides neither tiles of {self.tile} nor squares '
                f"of {self.training.side} pixels"
            )

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train on the score, the log of each picture's error; PSNR of the held-out tiles, and of a naive answer."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        fit(module, self.training_batches(how.batch, how.steps, self.seed), logarithmic_error(module), pace)
        with torch.inference_mode():
            found, plain = self.score(Run(module)), self.score(Run(_Plain(self.scale)))
        return {"test_psnr_db": found.value, "plain_psnr_db": plain.value}

    def data_digest(self) -> str:
        """Hash of the pixels."""
        return photographs()[1]

    def recipe(self) -> dict[str, Any]:
        """The training, tiles and grain."""
        return {**asdict(self.training), "tile": self.tile, "grain": self.grain}

    def tiles(self) -> Tensor:
        """The held-out tiles, [n, 3, tile, tile], photograph by photograph in raster order."""
        found = []
        for photograph in photographs()[0]:
            right = photograph[:, :, int(LEARNED * photograph.shape[2]) :]
            cut = right.unfold(1, self.tile, self.tile).unfold(2, self.tile, self.tile)
            found.append(cut.permute(1, 2, 0, 3, 4).flatten(0, 1))
        return torch.cat(found)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What the module is given of the held-out tiles, and the tiles."""
        tiles = self.tiles()
        given = self._spoiled(tiles, torch.Generator().manual_seed(0))
        yield from zip(given.split(batch_size), tiles.split(batch_size), strict=True)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of what is left of random squares of the learned part, and the squares."""
        learned = [photograph[:, :, : int(LEARNED * photograph.shape[2])] for photograph in photographs()[0]]
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            squares = torch.stack([self._square(learned, generator) for _ in range(batch_size)])
            yield self._spoiled(squares, generator), squares

    def _square(self, learned: list[Tensor], generator: torch.Generator) -> Tensor:
        side = self.training.side
        photograph = learned[int(torch.randint(len(learned), (1,), generator=generator))]
        top = int(torch.randint(photograph.shape[1] - side + 1, (1,), generator=generator))
        left = int(torch.randint(photograph.shape[2] - side + 1, (1,), generator=generator))
        return photograph[:, top : top + side, left : left + side]

    def _spoiled(self, whole: Tensor, generator: torch.Generator) -> Tensor:
        """The pictures averaged down by the scale, or with grain where the scale is 1."""
        if self.scale > 1:
            return F.avg_pool2d(whole, self.scale)
        return whole + self.grain * torch.randn(whole.shape, generator=generator)

    def score(self, run: Run) -> Score:
        """PSNR of every held-out tile, of values cut to 0..1."""
        seen, values = SamplesDigest(), list[float]()
        for given, tiles in self.batches(run.batch):
            seen.feed(given, tiles)
            made = logits(run(given)).float().cpu()
            if made.shape != tiles.shape:
                raise QualityError(
                    f"pictures of shape {tuple(made.shape)} cannot be scored: expected {tuple(tiles.shape)}"
                )
            check_finite(made, "the PSNR", done=len(values))
            values += psnr(made.clamp(0, 1), tiles)
        plain = self._plain_values(run.batch) if run.module.__class__ is not _Plain else values
        found = mean("psnr_db", values, seen.hex(), scale=self.scale, plain_psnr_db=sum(plain) / len(plain))
        return replace(found, flags=self._flags(values, plain))

    def _plain_values(self, batch: int) -> list[float]:
        """PSNR of every held-out tile of doing nothing clever."""
        plain = _Plain(self.scale)
        return [value for given, tiles in self.batches(batch) for value in psnr(plain(given).clamp(0, 1), tiles)]

    def _flags(self, values: list[float], plain: list[float]) -> tuple[dict[str, str], ...]:
        """A flag unless the module is better, tile by tile, than enlarging or leaving the pictures as they are."""
        if values is plain:
            return ()
        gains = [own - other for own, other in zip(values, plain, strict=True)]
        mean_gain, low, _ = mean_interval(gains)
        if low is not None and low > 0:
            return ()
        what = "bicubic enlargement" if self.scale > 1 else "leaving the grain where it is"
        text = (
            f"no better than {what}: {mean_gain:+.3f} dB over {len(gains)} tiles, and the interval holds zero or less"
        )
        return (flag("no_better_than_plain", "warn", text),)

    def describe(self) -> dict[str, Any]:
        """Name, split, number of tiles, hash of the photographs, what is done to them."""
        spoiled = {"scale": self.scale, "averaged": True} if self.scale > 1 else {"grain": self.grain}
        return {
            "name": self.name,
            "split": "tiles of the right quarter of scikit-learn's two photographs",
            "n": len(self.tiles()),
            "digest": self.data_digest(),
            "preprocessing": {"tile": self.tile, **spoiled},
        }


class _Plain(nn.Module):
    """Bicubic enlargement, or the picture as it is."""

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale

    def forward(self, given: Tensor) -> Tensor:
        """The given pictures at the scale."""
        return (
            given
            if self.scale == 1
            else F.interpolate(given, scale_factor=float(self.scale), mode="bicubic", align_corners=False)
        )


def logarithmic_error(module: nn.Module) -> Loss:
    """Mean over pictures of the log of their mean squared error plus half a grey level of 255: minus the PSNR."""

    def loss(given: Tensor, wanted: Tensor) -> Tensor:
        error = (module(given) - wanted).square().flatten(1).mean(dim=1)
        return (error + (0.5 / 255) ** 2).log().mean()

    return loss


def psnr(made: Tensor, wanted: Tensor) -> list[float]:
    """10 log10(1 / MSE) of each picture in 0..1; equal pictures have that of half a grey level of 255."""
    least = (0.5 / 255) ** 2
    error = (made.double() - wanted.double()).square().flatten(1).mean(dim=1).clamp(min=least)
    return (-10 * error.log10()).tolist()
