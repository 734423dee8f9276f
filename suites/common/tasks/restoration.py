"""Blurred or coarse pictures to be restored: learned on made textures and one photograph, judged on the other.

Blur is Gaussian with noise; coarse pictures were averaged down and enlarged again. The score is PSNR on 0..1 over whole
tiles, beside that of the pictures as they were given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.task import TaskError
from suites.common.tasks.photos import Photos, Training, photographs

Form = Literal["blur", "coarse"]
#: What a change of the made textures counts up, so that weights of other textures are none of these.
GENERATOR = 1
#: Most tiles that are scored, spread evenly over the held-out photograph.
TILES = 30


def blurred(pictures: Tensor, kernel: int, sigma: float) -> Tensor:
    """Gaussian blur of an odd side, reflected at the edges, [batch, channels, height, width]."""
    place = torch.arange(kernel, dtype=pictures.dtype) - kernel // 2
    line = torch.exp(-place.square() / (2 * sigma**2))
    line = (line / line.sum()).expand(pictures.shape[1], 1, -1)
    whole = F.pad(pictures, (kernel // 2,) * 4, mode="reflect")
    across = F.conv2d(whole, line[:, :, None], groups=pictures.shape[1])
    return F.conv2d(across, line[..., None], groups=pictures.shape[1])


def textures(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Band-limited noise, edges, checkerboards and gradients in turn, [count, 3, side, side] in 0..1."""
    line = torch.linspace(-1, 1, side)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    found = []
    for place in range(count):
        a, b, c, d = torch.rand(4, generator=generator).tolist()
        slope = rows * math.cos(2 * math.pi * a) + columns * math.sin(2 * math.pi * a)
        if place % 4 == 0:
            coarse = torch.rand(1, 1, 4 + int(12 * b), 4 + int(12 * b), generator=generator)
            grey = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
        elif place % 4 == 1:
            grey = (slope > b - 0.5).float()
        elif place % 4 == 2:
            cell = 2 + int(6 * b)
            at = torch.arange(side)
            grey = (((at[:, None] + int(8 * c)) // cell + (at + int(8 * d)) // cell) % 2).float()
        else:
            grey = (slope + 1.5) / 3
        low, high = torch.rand(2, 3, 1, 1, generator=generator)
        found.append(low + (high - low) * grey)
    return torch.stack(found)


class Restoration(Photos):
    """PSNR over tiles of the first photograph, the one of more detail; a network gives pictures of the size it gets."""

    name = "restoration"

    def __init__(
        self, cache: Path, seed: int, *, training: Training | None = None, form: Form = "blur", kernel: int = 9,
        sigma: float = 1.5, noise: float = 0.01, factor: int = 4, tile: int = 64,
    ):  # fmt: skip
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the squares to learn from.
            training: the recipe; None for the default.
            form: "blur" with noise, or "coarse".
            kernel: side of the Gaussian in pixels, odd.
            sigma: its standard deviation in pixels.
            noise: standard deviation of the noise on blurred pictures in 0..1.
            factor: by which coarse pictures were averaged down.
            tile: side of a held-out tile in pixels.

        Raises:
            TaskError: no such form, an even kernel or one wider than a square, or a factor that does not divide.
        """
        how = training or Training(steps=150, batch=4, side=32 if kernel < 32 else 64)
        super().__init__(cache, seed, training=how, tile=tile, grain=noise)
        if form not in get_args(Form) or kernel % 2 == 0 or kernel // 2 >= min(how.side, tile) or sigma <= 0:
            raise TaskError(
                f"form={form}, kernel={kernel}, sigma={sigma}: take blur or coarse, an odd kernel that fits"
            )
        if form == "coarse" and (how.side % factor or tile % factor):
            raise TaskError(f"factor={factor} divides neither squares of {how.side} nor tiles of {tile} pixels")
        self.form, self.kernel, self.sigma, self.factor = form, kernel, sigma, factor

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module gives pictures of the size that it takes."""
        if getattr(module, "scale", None) != 1:
            raise TaskError(f'model "{model_name}" restores no pictures at their own size: take serpent_tiny')

    def recipe(self) -> dict[str, Any]:
        """The training and what is done to the pictures."""
        return {**asdict(self.training), "generator": GENERATOR, **self._how()}

    def _how(self) -> dict[str, Any]:
        if self.form == "coarse":
            return {"form": self.form, "factor": self.factor, "tile": self.tile}
        blur = {"kernel": self.kernel, "sigma": self.sigma, "noise": self.grain}
        return {"form": self.form, **blur, "tile": self.tile}

    def tiles(self) -> Tensor:
        """Tiles of the first photograph, [n, 3, tile, tile], at even distances."""
        cut = photographs()[0][0].unfold(1, self.tile, self.tile).unfold(2, self.tile, self.tile)
        every = cut.permute(1, 2, 0, 3, 4).flatten(0, 1)
        count = min(TILES, len(every))
        return every[torch.arange(count) * len(every) // count]

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches, half made textures and half squares of the second photograph, spoiled; and as they were."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            squares = [self._square([photographs()[0][1]], generator) for _ in range(batch_size - batch_size // 2)]
            whole = torch.cat([textures(batch_size // 2, self.training.side, generator), torch.stack(squares)])
            yield self._spoiled(whole, generator), whole

    def _spoiled(self, whole: Tensor, generator: torch.Generator) -> Tensor:
        if self.form == "coarse":
            small = F.avg_pool2d(whole, self.factor)
            return F.interpolate(small, scale_factor=float(self.factor), mode="bicubic", align_corners=False)
        return blurred(whole, self.kernel, self.sigma) + self.grain * torch.randn(whole.shape, generator=generator)

    def _flags(self, values: list[float], plain: list[float]) -> tuple[dict[str, str], ...]:
        """What photographs say, of what is left as it is here."""
        ours = "leaving the pictures as they are given"
        found = super()._flags(values, plain)
        return tuple({**one, "text": one["text"].replace("leaving the grain where it is", ours)} for one in found)

    def describe(self) -> dict[str, Any]:
        """Name, split, number of tiles, hash of the photographs, what is done to them."""
        return {
            "name": self.name, "n": len(self.tiles()), "digest": self.data_digest(), "preprocessing": self._how(),
            "split": "tiles of the first of scikit-learn's photographs; learned on the second and on made textures",
        }  # fmt: skip
