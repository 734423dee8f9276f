"""A digit somewhere on a noisy canvas, and three questions at once: which digit, in which cell, and which pixels?

A module that answers all three lets one search or one training serve several tasks; `target` says which answer is
scored. Digits, places and noise of held-out canvases follow from seeds of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite
from bench.scores import Score, mean, proportion
from suites.common import digits_data as data
from suites.common.task import TaskError, TrainedTask
from suites.common.tasks.volumes import dice
from suites.common.training import Pace, fit

Target = Literal["class", "place", "ink"]
CANVAS, DIGIT, CELLS = 32, 14, 4
#: Standard deviation of the noise, and the ink from which on a pixel belongs to the digit.
GRAIN, INK = 0.1, 0.3
#: Seeds of held-out canvases start here, far from those that are learned from.
HELD_OUT_SEED = 1_000_000_000
#: What a change of the generator counts up, so that weights of other canvases are none of these.
GENERATOR = 1


@dataclass(frozen=True)
class Training:
    """How a network of three answers is trained, on canvases that are all different."""

    steps: int = 900
    batch: int = 32
    rate: float = 6e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


def canvases(index: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Canvases [n, 1, 32, 32] of the digits of an index, and what is asked of them [n, 2 + 32 x 32].

    An answer is the digit, the cell of 4 x 4 that the digit's centre lies in, row by row, and 0 or 1 a pixel.
    """
    made, asked = [], []
    small = data.digits()[0][index][:, None]
    large = F.interpolate(small, size=(DIGIT, DIGIT), mode="bilinear", align_corners=False)[:, 0]
    for place, (digit, label) in enumerate(zip(large, data.labels(index), strict=True)):
        generator = torch.Generator().manual_seed(seed + place)
        row, column = (int(x) for x in torch.randint(CANVAS - DIGIT + 1, (2,), generator=generator))
        clean = torch.zeros(CANVAS, CANVAS)
        clean[row : row + DIGIT, column : column + DIGIT] = digit
        side, half = CANVAS // CELLS, DIGIT // 2
        cell = (row + half) // side * CELLS + (column + half) // side
        made.append(clean + GRAIN * torch.randn(CANVAS, CANVAS, generator=generator))
        asked.append(torch.cat([torch.stack([label, torch.tensor(cell)]), (clean > INK).long().flatten()]))
    return torch.stack(made)[:, None], torch.stack(asked)


def losses(answers: Mapping[str, Tensor], asked: Tensor) -> dict[str, Tensor]:
    """The loss of each question: cross-entropy of digit and cell, binary cross-entropy plus soft Dice of pixels.

    Args:
        answers: logits of `class` [n, 10], `place` [n, 16] and `ink` [n, 32, 32]; those that are there are judged.
        asked: see `canvases`.
    """
    found = {}
    if "class" in answers:
        found["class"] = F.cross_entropy(answers["class"], asked[:, 0])
    if "place" in answers:
        found["place"] = F.cross_entropy(answers["place"], asked[:, 1])
    if "ink" in answers:
        wanted = asked[:, 2:].float().view_as(answers["ink"])
        share = answers["ink"].sigmoid()
        both, sizes = (share * wanted).flatten(1).sum(1), (share + wanted).flatten(1).sum(1)
        apart = 1 - ((2 * both + 1) / (sizes + 1)).mean()
        found["ink"] = F.binary_cross_entropy_with_logits(answers["ink"], wanted) + apart
    return found


class DigitCanvas(TrainedTask):
    """The score of one of three answers; a module has `answers(canvases)`, a dictionary of logits, and a `target`."""

    name = "digit_canvas"

    def __init__(self, cache: Path, seed: int, *, target: Target = "class", training: Training | None = None):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept; they serve every target.
            seed: of the canvases to learn from; the held-out ones are the same for every seed.
            target: which answer is scored.
            training: the recipe; None for the default.

        Raises:
            TaskError: there is no such target.
        """
        super().__init__(cache, seed)
        if target not in get_args(Target):
            raise TaskError(f'target="{target}" is unknown: choose {", ".join(get_args(Target))}')
        self.target, self.training = target, training or Training()
        self.metric = "dice" if target == "ink" else "accuracy"  # type: ignore[misc]

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module answers all three questions, this task's at its output."""
        if not hasattr(module, "answers"):
            raise TaskError(f'model "{model_name}" has no answers(canvases): digit_canvas asks three questions at once')
        if getattr(module, "target", self.target) != self.target:
            raise TaskError(
                f'model "{model_name}" gives the answer to "{module.target}", and this task scores "{self.target}": '
                f"take the task of that target, or build the model with target='{self.target}'"
            )

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train on the sum of the three losses; the score of the held-out canvases by target."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        answers: Any = module.answers
        fit(
            module,
            self.training_batches(how.batch, how.steps, self.seed),
            lambda given, asked: torch.stack(list(losses(answers(given), asked).values())).sum(),
            pace,
        )
        with torch.inference_mode():
            return {f"test_{self.target}": self.score(Run(module)).value}

    def data_digest(self) -> str:
        """Hash of the digits, with the version of the generator."""
        return f"{data.digits()[2]}-{GENERATOR}"

    def recipe(self) -> dict[str, Any]:
        """The training and the noise; the target is how it is judged, and no part of it."""
        return {**asdict(self.training), "grain": GRAIN}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out canvases and what is asked of them."""
        index, done = data.split()[1], 0
        for part in index.split(batch_size):
            yield canvases(part, HELD_OUT_SEED + done)
            done += len(part)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of canvases that no other step has."""
        index = data.split()[0]
        generator = torch.Generator().manual_seed(seed)
        for step in range(steps):
            pick = torch.randint(len(index), (batch_size,), generator=generator)
            yield canvases(index[pick], (seed * 10_000 + step) * batch_size % HELD_OUT_SEED)

    def score(self, run: Run) -> Score:
        """Share of right digits or cells, or the Dice of the pixels, of the held-out canvases."""
        seen, marks, values = SamplesDigest(), list[str](), list[float]()
        for given, asked in self.batches(run.batch):
            seen.feed(given, asked)
            said = run(given).float().cpu()
            check_finite(said, f"the score of {self.target}", done=len(marks) + len(values))
            sizes = {"class": (data.CLASSES,), "place": (CELLS * CELLS,), "ink": (CANVAS, CANVAS)}
            if said.shape[1:] != sizes[self.target]:
                raise QualityError(
                    f"answers of shape {tuple(said.shape)} cannot be scored: expected (batch, {sizes[self.target]})"
                )
            if self.target == "ink":
                values += dice(said > 0, asked[:, 2:].view_as(said))
            else:
                right = said.argmax(1) == asked[:, 0 if self.target == "class" else 1]
                marks += ["1" if hit else "0" for hit in right.tolist()]
        return mean("dice", values, seen.hex()) if values else proportion("accuracy", "".join(marks), seen.hex())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of canvases, hash, how they are made."""
        return {
            "name": f"{self.name}_{self.target}", "n": data.HELD_OUT,
            "split": "held-out digits at places of their own, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"canvas": CANVAS, "digit": DIGIT, "grain": GRAIN},
        }  # fmt: skip
