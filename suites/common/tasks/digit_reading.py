"""Reading digits aloud: pictures as a prefix of pixels, then text that spells what they show; scored through the cache.

A sample is 2 to 16 of scikit-learn's digits, 64 pixels each in 17 grey levels, every pixel one token; then for each
picture a token that asks for it and the digit that answers. Held-out pictures are those of the task `digits`. The score
is the share of digits that are right, asked one after the other through whatever cache the module keeps, its own
answers fed back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest
from bench.scores import Score, proportion
from suites.common import digits_data as data
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Pace, fit

#: Pixels of a picture, grey levels, and numbers of the text: ten digits, up to 16 asks, room.
PIXELS, LEVELS, TEXT = 64, 17, 32
ASK = 10


@dataclass(frozen=True)
class Training:
    """How a reader is trained."""

    steps: int = 400
    batch: int = 16
    rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0


def pixel_ids(index: Tensor, pictures: int) -> Tensor:
    """Ids of the pixels of pictures [batch, pictures] of the data, [batch, 64 pictures].

    An id is 32 + grey level x 64 pictures + place, the place counted over all pictures of the sample.
    """
    grey = (data.digits()[0][index.flatten()] * (LEVELS - 1)).round().long()
    places = torch.arange(PIXELS * pictures)
    return TEXT + grey.reshape(len(index), -1) * len(places) + places


class DigitReading(TrainedTask):
    """Samples of as many pictures as the module says (`pictures`)."""

    name = "digit_reading"
    metric = "accuracy"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the order of the training pictures.
            training: the recipe; None for the default.
        """
        super().__init__(cache, seed)
        self.training, self.pictures = training or Training(), 4

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module reads pixels and writes digits; settles how many pictures."""
        pictures = getattr(module, "pictures", None)
        if not isinstance(pictures, int) or not 1 <= pictures <= TEXT // 2:
            raise TaskError(f'model "{model_name}" reads no digits as a prefix of pixels: take digits_reader')
        self.pictures = pictures

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the reader; its last loss and how many held-out digits it reads."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        batches = self.training_batches(how.batch, how.steps, self.seed)
        losses = fit(module, batches, lambda ids, wanted: answer_loss(module(ids), wanted, self.pictures), pace)
        with torch.inference_mode():
            held_out = self.score(Run(module))
        return {"train_loss": sum(losses[-10:]) / len(losses[-10:]), "test_accuracy": held_out.value}

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """The training."""
        return asdict(self.training)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of whole samples without their last digit, and of the digits [batch, pictures]."""
        known = data.split()[0]
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            index = known[torch.randint(len(known), (batch_size, self.pictures), generator=generator)]
            yield self.sample(index)

    def sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels, then ask, digit, ask, ... without the last digit; and the digits."""
        wanted = data.labels(index.flatten()).reshape(index.shape)
        asks = (ASK + torch.arange(self.pictures)).expand_as(wanted)
        text = torch.stack([asks, wanted], dim=2).flatten(1)[:, :-1]
        return torch.cat([pixel_ids(index, self.pictures), text], dim=1), wanted

    def held_out(self) -> Tensor:
        """The held-out pictures in rows of as many as a sample has; a rest is left out."""
        index = data.split()[1]
        return index[: len(index) // self.pictures * self.pictures].reshape(-1, self.pictures)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Prompts of held-out samples, pixels and the first ask, and their digits."""
        for index in self.held_out().split(batch_size):
            ids, wanted = self.sample(index)
            yield ids[:, : PIXELS * self.pictures + 1], wanted

    def score(self, run: Run) -> Score:
        """Percent of the held-out digits that are right."""
        seen, marks = SamplesDigest(), ""
        for prompts, wanted in self.batches(run.batch):
            seen.feed(prompts, wanted)
            said = self._read(run.module, run.send(prompts)).cpu()
            marks += "".join(str(int(right)) for right in (said == wanted).flatten().tolist())
        return proportion("accuracy", marks, seen.hex())

    def _read(self, module: Any, prompts: Tensor) -> Tensor:
        """The digits that a module says, [batch, pictures]; every ask is given, every answer is its own."""
        logits, kept = module.prefill(prompts)
        out = [logits[:, :ASK].argmax(dim=-1, keepdim=True)]
        for picture in range(1, self.pictures):
            _, kept = module.decode(out[-1], kept)
            logits, kept = module.decode(torch.full_like(out[-1], ASK + picture), kept)
            out.append(logits[:, :ASK].argmax(dim=-1, keepdim=True))
        return torch.cat(out, dim=1)

    def describe(self) -> dict[str, Any]:
        """Name, split, number of digits, hash of the data, preprocessing."""
        return {
            "name": self.name,
            "split": "the held-out pictures of the task digits",
            "n": self.held_out().numel(),
            "digest": self.data_digest(),
            "preprocessing": {"pictures": self.pictures, "pixels": PIXELS, "levels": LEVELS},
        }


def answer_loss(logits: Tensor, wanted: Tensor, pictures: int) -> Tensor:
    """Cross-entropy of the digits behind each ask, and half that of each digit at its picture's last pixel.

    Args:
        logits: [batch, tokens, text] of whole samples without the last digit.
        wanted: the digits, [batch, pictures].
        pictures: of a sample.
    """
    asked, seen = logits[:, PIXELS * pictures :: 2], logits[:, PIXELS - 1 : PIXELS * pictures : PIXELS]
    first, second = (F.cross_entropy(part.flatten(0, 1), wanted.flatten()) for part in (asked, seen))
    return first + 0.5 * second
