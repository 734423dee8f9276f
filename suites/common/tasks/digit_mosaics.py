"""Mosaics that a sampler makes: one and the same digit in 4 x 4 cells, judged cell by cell as pictures of digits are.

A cell is 8 x 8 pixels. The judge of `digit_images` looks at every cell, enlarged to its size, and its features and
answers are averaged over the cells: a mosaic whose cells do not agree is far from real ones, so that the score asks for
coherence over the whole picture and not only for digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common import digits_data as data
from suites.common.task import TaskError
from suites.common.tasks.digit_images import JUDGE_STEPS, SIDE, DigitImages, Training, pictures

#: Side of a cell in pixels, and cells along a side of a mosaic.
CELL, CELLS = 8, 4


class DigitMosaics(DigitImages):
    """Class-conditional mosaics by a sampler as the workload asks."""

    name = "digit_mosaics"

    def __init__(
        self,
        cache: Path,
        seed: int,
        *,
        training: Training | None = None,
        samples: int = 300,
        seeds: int = 3,
        judge_steps: int = JUDGE_STEPS,
    ):
        """Nothing is trained yet; the arguments are those of `DigitImages`."""
        how = training or Training(steps=1000, batch=32)
        super().__init__(cache, seed, training=how, samples=samples, seeds=seeds, judge_steps=judge_steps)

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module samples grey pictures of 32 x 32 pixels of ten classes."""
        shape = tuple(getattr(module, name, None) for name in ("channels", "resolution", "classes"))
        if shape != (1, CELL * CELLS, data.CLASSES) or hasattr(module, "frames"):
            raise TaskError(f'model "{model_name}" makes no grey pictures of ten classes at 32 px: take mosaic_dit')

    def training_batches(
        self, batch_size: int, steps: int, seed: int, *, at_half: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of mosaics of random training digits and labels, at full size; a network cuts them itself."""
        train_index, _ = data.split()
        still, labels = pictures(train_index, CELL), data.labels(train_index)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = torch.randint(len(labels), (batch_size,), generator=generator)
            yield mosaics(still[pick]), labels[pick]

    def shape_of(self, module: Any) -> tuple[int, ...]:
        """The shape of one mosaic."""
        return (1, CELL * CELLS, CELL * CELLS)

    def real(self, index: Tensor) -> Tensor:
        """Mosaics of these digits; one cell says all, because the others repeat it."""
        return pictures(index, CELL)

    def features(self, samples: Tensor) -> Tensor:
        """The judge's features, averaged over cells."""
        return self._over_cells(self.judge().features, samples)

    def answers(self, samples: Tensor) -> Tensor:
        """The judge's logits, averaged over cells."""
        return self._over_cells(self.judge(), samples)

    @staticmethod
    def _over_cells(judge: Any, made: Tensor) -> Tensor:
        seen = judge(F.interpolate(cells_of(made), size=(SIDE, SIDE), mode="bilinear", align_corners=False))
        return seen.unflatten(0, (len(made), -1)).mean(dim=1)

    def describe(self) -> dict[str, Any]:
        """Name, what is compared, number of samples, hash of the data, the judge."""
        known = super().describe()
        return {**known, "preprocessing": {**known["preprocessing"], "cell": CELL, "cells": CELLS**2}}


def mosaics(still: Tensor) -> Tensor:
    """Pictures [n, 1, 8, 8] repeated in all cells, [n, 1, 32, 32]."""
    return still.repeat(1, 1, CELLS, CELLS)


def cells_of(made: Tensor) -> Tensor:
    """Cells of mosaics [n, 1, side, side], row by row, [n x cells, 1, 8, 8]."""
    rows = made.unflatten(-1, (-1, CELL)).unflatten(-3, (-1, CELL))  # [n, 1, rows, 8, columns, 8]
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
