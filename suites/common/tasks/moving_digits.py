"""Digits that move over a canvas: which digit, and which way? One still frame cannot tell, so a network needs the past.

A network with a logit for every digit alone is asked for the digit: that is what a single frame can tell. Its `noise`
and whether the digit stands still (`static`) are those of the sequences, where it says them.

Sequences are made from scikit-learn's digits and a seed: an 8 x 8 digit of 0 to 4 on a 32 x 32 canvas, one or two
pixels a frame in one of four directions, turned back at the edges, with noise. The label of a step is the digit and its
direction in that step; digits of held-out sequences are held-out digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite, logits
from bench.scores import Score, mean
from suites.common import digits_data as data
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Pace, classification, fit

CANVAS, DIGIT = 32, 8
SHOWN = 5
#: Rows and columns per frame of the four directions: right, left, down, up.
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
CLASSES = SHOWN * len(DIRECTIONS)


@dataclass(frozen=True)
class Training:
    """How a network of clips is trained; `length` frames a clip, or as many as its window where that is longer.

    A network that answers a clip once is told one label of it, and learns from more clips: `once_steps` batches. `rate`
    is that of networks which name no `learning_rate` of their own.
    """

    steps: int = 600
    once_steps: int = 1500
    batch: int = 16
    length: int = 16
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


class MovingDigits(TrainedTask):
    """Accuracy per step over held-out sequences, of a stream (`init`, `step`) or of a network of whole clips."""

    name = "moving_digits"
    metric = "step_accuracy"

    def __init__(
        self,
        cache: Path,
        seed: int,
        *,
        training: Training | None = None,
        frames: int = 64,
        sequences: int = 64,
        grain: float = 0.05,
    ):
        """Nothing is made or trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the clips to learn from; the held-out sequences are the same for every seed.
            training: the recipe; None for the default.
            frames: of a held-out sequence.
            sequences: that are held out.
            grain: standard deviation of the noise, for modules that say none.

        Raises:
            TaskError: sequences of fewer than two frames, or of no length.
        """
        super().__init__(cache, seed)
        if frames < 2 or sequences < 2:
            raise TaskError(f"frames={frames}, sequences={sequences}: two or more of each are needed")
        self.training = training or Training()
        self.frames, self.sequences = frames, sequences
        self.usual, self.grain, self.still = grain, grain, False
        self.length, self.rate = self.training.length, self.training.rate
        self.classes = CLASSES

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module has a logit for every digit and direction, or for every digit.

        Settles what is asked for, the clips' length, their noise, whether anything moves in them, and the rate.
        """
        classes = getattr(module, "classes", CLASSES)
        if classes not in (CLASSES, SHOWN):
            raise TaskError(
                f'model "{model_name}" has {classes} logits and moving_digits has {CLASSES} classes, {SHOWN} digits in '
                f"{len(DIRECTIONS)} directions: take moving_cnn, or build it with classes={CLASSES}, or with "
                f"classes={SHOWN} for the digit alone"
            )
        self.classes, self.still = classes, classes == SHOWN and bool(getattr(module, "static", False))
        self.grain = float(getattr(module, "noise", self.usual))
        self.rate = float(getattr(module, "learning_rate", self.training.rate))
        # a window that is longer than the usual clip has to fit into the clips that it is learned from
        self.length = max(self.training.length, int(getattr(module, "frames", 0)))

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train on clips, every answered step with its label; its score on some clips and on the held-out ones."""
        how = self.training
        predict = classification(lambda clips: _steps(module(clips)))  # type: ignore[arg-type]
        answered = self._answered(module)
        steps = how.once_steps if answered == 1 else how.steps
        pace = Pace(steps, self.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        batches = (
            (clips, labels[:, -answered:]) for clips, labels in self.training_batches(how.batch, steps, self.seed)
        )
        losses = fit(module, batches, predict, pace)
        with torch.inference_mode():
            found = self.score(Run(module))
        last = losses[-20:]
        return {"train_loss": sum(last) / len(last), "test_step_accuracy": found.value}

    def _answered(self, module: nn.Module) -> int:
        """How many steps of a training clip the module answers."""
        with torch.inference_mode():
            clip = next(iter(self.training_batches(1, 1, 0)))[0]
            return int(_steps(logits(module(clip))).shape[1])

    def data_digest(self) -> str:
        """Hash of pixels and labels of the digits."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """The training, the sequences, and what is asked for."""
        return {
            **asdict(self.training), "rate": self.rate, "frames": self.frames, "sequences": self.sequences,
            "grain": self.grain,
            "classes": self.classes, "still": self.still,
        }  # fmt: skip

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out sequences [batch, frames, 1, 32, 32] and the label of every frame [batch, frames]."""
        index = _shown(data.split()[1])
        for start in range(0, self.sequences, batch_size):
            count = min(batch_size, self.sequences - start)
            made = [self._sequence(index, 1_000_000 + start + i, self.frames) for i in range(count)]
            yield torch.stack([frames for frames, _ in made]), torch.stack([labels for _, labels in made])

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of clips of training digits and the label of every frame."""
        index = _shown(data.split()[0])
        for step in range(steps):
            first = 1_000_000_000 + (seed * steps + step) * batch_size
            made = [self._sequence(index, first + i, self.length) for i in range(batch_size)]
            yield torch.stack([frames for frames, _ in made]), torch.stack([labels for _, labels in made])

    def _sequence(self, index: Tensor, seed: int, length: int) -> tuple[Tensor, Tensor]:
        """One sequence [length, 1, 32, 32] of a digit of the index, and its labels [length]."""
        generator = torch.Generator().manual_seed(seed)
        draw = [
            int(torch.randint(high, (1,), generator=generator))
            for high in (len(index), len(DIRECTIONS), 2, CANVAS - DIGIT + 1, CANVAS - DIGIT + 1)
        ]
        chosen, way, row, column = index[draw[0]], draw[1], draw[3], draw[4]
        speed = 0 if self.still else 1 + draw[2]
        frames = self.grain * torch.randn(length, 1, CANVAS, CANVAS, generator=generator)
        digit, ways = data.digits()[0][chosen], torch.empty(length, dtype=torch.long)
        for place in range(length):
            frames[place, 0, row : row + DIGIT, column : column + DIGIT] += digit
            row, column, way = _moved(row, column, way, speed)
            ways[place] = way
        # the label of a frame is the way that the digit came by: of the first one, the way that it will go
        came = torch.cat([ways[:1], ways[:-1]])
        shown = int(data.labels(chosen))
        return frames, torch.full_like(came, shown) if self.classes == SHOWN else shown * len(DIRECTIONS) + came

    # ------------------------------------------------------------------------------------------ the score

    def score(self, run: Run) -> Score:
        """The share of right answers per sequence, in percent; `curve` is the share at each frame of `at`."""
        seen, right, places = SamplesDigest(), list[Tensor](), list[int]()
        for clips, labels in self.batches(run.batch):
            seen.feed(clips, labels)
            places, said = self._answers(run, clips)
            check_finite(said, "the accuracy per step", done=sum(map(len, right)))
            right.append(said.argmax(dim=-1) == labels[:, places])
        hits = torch.cat(right).double()
        curve = (100 * hits.mean(dim=0)).tolist()
        told: dict[str, Any] = {"first": places[0], "at": places, "curve": curve}
        return mean("step_accuracy", (100 * hits.mean(dim=1)).tolist(), seen.hex(), **told)

    def _answers(self, run: Run, clips: Tensor) -> tuple[list[int], Tensor]:
        """The answered frames, and their logits [batch, answered frames, classes] in single precision on the CPU."""
        module: Any = run.module
        if not (hasattr(module, "init") and hasattr(module, "step")):
            said = _steps(logits(run(clips))).float().cpu()
            places = list(range(clips.shape[1] - said.shape[1], clips.shape[1]))
        else:
            places, said = _streamed(module, run.send(clips))
        transient = int(getattr(module, "transient", 0)) * int(getattr(module, "hop", 1))
        steady = [at for at, place in enumerate(places) if place >= transient]
        if len(places) > clips.shape[1] or said.shape[0] != len(clips) or not steady or said.shape[2] != self.classes:
            raise QualityError(
                f"answers of shape {tuple(said.shape)} cannot be scored: expected (batch, frames, {self.classes})"
            )
        return [places[at] for at in steady], said[:, steady]

    def describe(self) -> dict[str, Any]:
        """Name, split, number of sequences, hash of the digits, how the sequences are made."""
        return {
            "name": self.name,
            "split": "sequences of held-out digits, the same for every seed",
            "n": self.sequences,
            "classes": self.classes,
            "digest": self.data_digest(),
            "preprocessing": {
                "frames": self.frames,
                "canvas": CANVAS,
                "digit": DIGIT,
                "grain": self.grain,
                "still": self.still,
                "digits": SHOWN,
            },
        }


def _shown(index: Tensor) -> Tensor:
    """Those of the digits that appear in sequences."""
    return index[data.labels(index) < SHOWN]


def _moved(row: int, column: int, way: int, speed: int) -> tuple[int, int, int]:
    """Place and direction after one frame; at an edge the digit is turned back and stays inside."""
    down, right = (speed * step for step in DIRECTIONS[way])
    if not (0 <= row + down <= CANVAS - DIGIT and 0 <= column + right <= CANVAS - DIGIT):
        way ^= 1
        down, right = -down, -right
    return row + down, column + right, way


def _steps(said: Tensor) -> Tensor:
    """Logits with an axis of frames: one answer to a clip is that of its last frame."""
    return said[:, None] if said.ndim == 2 else said


def _streamed(module: Any, clips: Tensor) -> tuple[list[int], Tensor]:
    """The frames that a stream answers, not all where it answers at every so many steps, and what it says of them."""
    said, places = list[Tensor](), list[int]()
    state, hop = module.init(len(clips)), int(getattr(module, "hop", 1))
    for place in range(0, clips.shape[1] - hop + 1, hop):
        answer, state = module.step(clips[:, place] if hop == 1 else clips[:, place : place + hop], state)
        if answer is not None:
            said.append(_steps(answer).float().cpu())
            places += range(place + hop - said[-1].shape[1], place + hop)
    if not said:
        raise QualityError(f"the stream gave no answer in {clips.shape[1]} frames")
    return places, torch.cat(said, dim=1)
